"""What changed between two runs: check by check, cell by cell, metric by metric. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from dfbuild.model import Better, Outcome, Verdict
from dfbuild.results.records import Snapshot
from dfbuild.results.statistics import Pair, Trend, judge
from dfbuild.results.verdict import REGRESSIONS


class Kind(StrEnum):
    """How something stands against the other run."""

    NEW_FAILURE = "new failure"
    """Fails now and did not; for a cell also: fails in another way now."""
    STILL_FAILING = "still failing"
    FIXED = "fixed"
    """Was broken (failed or known) and works now."""
    VANISHED = "vanished"
    APPEARED = "appeared"
    KNOWN = "known"
    """Known to be broken, in both runs."""
    CHANGED = "changed"
    """Differs otherwise: became known, is skipped now, was not finished …"""


@dataclass(frozen=True, slots=True)
class CheckChange:
    """None is a check that is not there."""

    kind: Kind
    cell: str
    check: str
    before: Outcome | None
    after: Outcome | None


@dataclass(frozen=True, slots=True)
class CellChange:
    """None is a cell that was not finished or, where the kind says so, is not there.

    Where one of the runs did not come through the cell's suites, the checks that only one of them has or came to
    are counted here and not listed one by one: they are a consequence.
    """

    kind: Kind
    cell: str
    before: Verdict | None
    after: Verdict | None
    appeared: int = 0
    vanished: int = 0


@dataclass(frozen=True, slots=True)
class MetricChange:
    """One metric in one cell; the figures are a `statistics.Judgement`. `samples`: the values before and now."""

    trend: Trend
    cell: str
    check: str
    metric: str
    unit: str
    better: Better
    before: float
    after: float
    ratio: float | None
    effect: float
    p: float | None
    samples: tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`run` against an earlier run. `cells` and `checks` hold what is worth a word, `metrics` every common one."""

    run: str
    against: str
    cells: tuple[CellChange, ...]
    checks: tuple[CheckChange, ...]
    metrics: tuple[MetricChange, ...]

    def checks_of(self, kind: Kind) -> tuple[CheckChange, ...]:
        return tuple(change for change in self.checks if change.kind is kind)

    def metrics_of(self, trend: Trend) -> tuple[MetricChange, ...]:
        return tuple(change for change in self.metrics if change.trend is trend)


def compare(run: Snapshot, against: Snapshot) -> Comparison:
    """What changed in `run` since `against` (`RunRecord.snapshot` or `Store.snapshot(id)` of each)."""
    now, then = _unreached(run, against), _unreached(against, run)
    return Comparison(
        run=run.run,
        against=against.run,
        cells=tuple(_cells(run, against, now, then)),
        checks=tuple(_checks(run, against, now | then)),
        metrics=tuple(_metrics(run, against)),
    )


def check_kind(before: Outcome | None, after: Outcome | None) -> Kind | None:
    """How a check stands; None if there is nothing to say."""
    works = (Outcome.PASS, Outcome.FIXED)
    match before, after:
        case None, None:
            return None
        case None, _:
            return Kind.APPEARED
        case _, None:
            return Kind.VANISHED
        case Outcome.FAIL, Outcome.FAIL:
            return Kind.STILL_FAILING
        case _, Outcome.FAIL:
            return Kind.NEW_FAILURE
        case Outcome.KNOWN, Outcome.KNOWN:
            return Kind.KNOWN
        case ((Outcome.FAIL | Outcome.KNOWN), _) if after in works:
            return Kind.FIXED
        case _ if before is after or (before in works and after in works):
            return None
    return Kind.CHANGED


def verdict_kind(before: Verdict | None, after: Verdict | None) -> Kind | None:
    """How a cell stands that is in both runs; None if there is nothing to say."""
    if after in REGRESSIONS:
        # Another verdict is another failure: a panic where tests failed must not hide among the old ones.
        return Kind.STILL_FAILING if before is after else Kind.NEW_FAILURE
    if after is Verdict.PASS and before in REGRESSIONS:
        return Kind.FIXED
    return None if before is after else Kind.CHANGED


def _complete(snapshot: Snapshot, cell: str) -> bool:
    """The cell's guest came through its suites, so a check that is not there was not asked for."""
    return snapshot.verdicts.get(cell) in (Verdict.PASS, Verdict.SKIP, Verdict.TEST_FAIL)


def _unreached(run: Snapshot, against: Snapshot) -> set[tuple[str, str]]:
    """Checks that `run` skipped for want of a guest. One that failed in `against` is worth a word of its own."""
    return {
        key
        for key, outcome in run.outcomes.items()
        if outcome is Outcome.SKIP
        and not _complete(run, key[0])
        and against.outcomes.get(key, outcome) not in (Outcome.SKIP, Outcome.FAIL)
    }


def _cells(
    run: Snapshot, against: Snapshot, now: set[tuple[str, str]], then: set[tuple[str, str]]
) -> Iterator[CellChange]:
    """`now` and `then` are the checks `_unreached` in each."""
    appeared = Counter(cell for cell, _ in run.outcomes.keys() - against.outcomes.keys() | then)
    vanished = Counter(cell for cell, _ in against.outcomes.keys() - run.outcomes.keys() | now)
    for cell in {**run.verdicts, **against.verdicts}:
        before, after = against.verdicts.get(cell), run.verdicts.get(cell)
        kind: Kind | None
        if cell not in against.verdicts:
            kind = Kind.APPEARED
        elif cell not in run.verdicts:
            kind = Kind.VANISHED
        else:
            kind = verdict_kind(before, after)
        counted = not (_complete(run, cell) and _complete(against, cell))
        came, went = (appeared[cell], vanished[cell]) if counted else (0, 0)
        if kind is None and (came or went):
            kind = Kind.CHANGED
        if kind is not None:
            yield CellChange(kind, cell, before, after, came, went)


def _checks(run: Snapshot, against: Snapshot, unreached: set[tuple[str, str]]) -> Iterator[CheckChange]:
    for key in (*run.outcomes, *(key for key in against.outcomes if key not in run.outcomes)):
        before, after = against.outcomes.get(key), run.outcomes.get(key)
        if before is after and after is Outcome.PASS:
            continue  # nearly all of them: asked first because it is quick
        kind = check_kind(before, after)
        if kind is None or key in unreached:
            continue
        cell, check = key
        one_sided = before is None or after is None
        if one_sided and not (_complete(run, cell) and _complete(against, cell)):
            continue
        yield CheckChange(kind, cell, check, before, after)


def _metrics(run: Snapshot, against: Snapshot) -> Iterator[MetricChange]:
    common = {
        key: (against.samples[key], sample)
        for key, sample in run.samples.items()
        # Another unit is another metric under the same name: nothing to compare.
        if key in against.samples
        and (against.samples[key].unit, against.samples[key].better) == (sample.unit, sample.better)
    }
    judged = judge({key: Pair(old.values, new.values, new.better) for key, (old, new) in common.items()})
    for key, judgement in judged.items():
        cell, check, metric = key
        old, new = common[key]
        yield MetricChange(
            trend=judgement.trend,
            cell=cell,
            check=check,
            metric=metric,
            unit=new.unit,
            better=new.better,
            before=judgement.before,
            after=judgement.after,
            ratio=judgement.ratio,
            effect=judgement.effect,
            p=judgement.p,
            samples=(old.values, new.values),
        )
