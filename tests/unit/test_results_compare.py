"""Comparison of two runs, and the statistics of its performance half."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfbuild.model import Better, Outcome, Sample, Verdict
from dfbuild.results.compare import Kind, check_kind, compare, verdict_kind
from dfbuild.results.records import Snapshot
from dfbuild.results.statistics import ALPHA, Pair, Trend, cliffs_delta, holm, judge, p_value, samples_needed

CELLS = ("v @ up", "v @ smp2", "w @ up")
CHECKS = ("security/nx", "network/rst", "scheduler/cpus")


def snapshot(
    verdicts: dict[str, Verdict | None] | None = None,
    outcomes: dict[tuple[str, str], Outcome] | None = None,
    samples: dict[tuple[str, str, str], Sample] | None = None,
    run: str = "run",
) -> Snapshot:
    return Snapshot(run, verdicts or {}, outcomes or {}, samples or {})


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    verdicts = draw(st.dictionaries(st.sampled_from(CELLS), st.sampled_from([*Verdict, None])))
    places = [(cell, check) for cell in verdicts for check in CHECKS]
    outcomes = draw(st.dictionaries(st.sampled_from(places), st.sampled_from(list(Outcome)))) if places else {}
    values = st.lists(st.floats(-1e6, 1e6), max_size=12).map(tuple)
    samples = {
        (cell, check, "m"): Sample(
            "m", draw(st.sampled_from(["s", "µs"])), draw(values), draw(st.sampled_from(Better))
        )
        for cell, check in outcomes
    }
    return snapshot(verdicts, outcomes, samples)


@given(snapshots())
@settings(deadline=None)
def test_a_run_compared_with_itself_shows_no_change(one: Snapshot) -> None:
    same = compare(one, one)
    assert {change.kind for change in same.cells} <= {Kind.STILL_FAILING}
    assert {change.kind for change in same.checks} <= {Kind.STILL_FAILING, Kind.KNOWN}
    assert {change.trend for change in same.metrics} <= {Trend.SAME, Trend.TOO_FEW}
    assert all(change.before is change.after for change in same.checks)


@given(snapshots(), snapshots())
@settings(deadline=None)
def test_swapping_the_runs_mirrors_the_comparison(one: Snapshot, other: Snapshot) -> None:
    there, back = compare(one, other), compare(other, one)

    def pairs(found: object, swap: bool) -> set[object]:
        return {
            (
                change.cell,
                getattr(change, "check", ""),
                *((change.after, change.before) if swap else (change.before, change.after)),
            )
            for change in found  # type: ignore[attr-defined]
        }

    # FIXED and STILL_FAILING of one direction are said in the other as well, whatever they are called there.
    assert pairs(there.checks, False) == pairs(back.checks, True)
    assert pairs(there.cells, False) == pairs(back.cells, True)
    for kind, mirrored in ((Kind.VANISHED, Kind.APPEARED), (Kind.KNOWN, Kind.KNOWN), (Kind.STILL_FAILING,) * 2):
        assert {(c.cell, c.check) for c in there.checks_of(kind)} == {
            (c.cell, c.check) for c in back.checks_of(mirrored)
        }
    flipped = {Trend.WORSE: Trend.BETTER, Trend.BETTER: Trend.WORSE}
    mine = {(m.cell, m.check, m.metric): m for m in there.metrics}
    for m in back.metrics:
        twin = mine[m.cell, m.check, m.metric]
        assert flipped.get(m.trend, m.trend) is twin.trend
        assert math.isclose(m.effect, -twin.effect, abs_tol=1e-12) and (m.before, m.after) == (
            twin.after,
            twin.before,
        )


@given(snapshots(), snapshots())
@settings(deadline=None)
def test_nothing_that_fails_now_is_left_unsaid(one: Snapshot, other: Snapshot) -> None:
    comparison = compare(one, other)
    told = {(change.cell, change.check) for change in comparison.checks if change.after is Outcome.FAIL}
    counted = {change.cell for change in comparison.cells if change.appeared}
    for (cell, check), outcome in one.outcomes.items():
        if outcome is Outcome.FAIL:
            assert (cell, check) in told or cell in counted


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (Outcome.PASS, Outcome.FAIL, Kind.NEW_FAILURE),
        (Outcome.KNOWN, Outcome.FAIL, Kind.NEW_FAILURE),
        (Outcome.SKIP, Outcome.FAIL, Kind.NEW_FAILURE),
        (Outcome.FAIL, Outcome.FAIL, Kind.STILL_FAILING),
        (Outcome.FAIL, Outcome.PASS, Kind.FIXED),
        (Outcome.KNOWN, Outcome.FIXED, Kind.FIXED),
        (Outcome.KNOWN, Outcome.PASS, Kind.FIXED),
        (Outcome.KNOWN, Outcome.KNOWN, Kind.KNOWN),
        (Outcome.FAIL, Outcome.KNOWN, Kind.CHANGED),
        (Outcome.FAIL, Outcome.SKIP, Kind.CHANGED),
        (Outcome.PASS, Outcome.SKIP, Kind.CHANGED),
        (Outcome.PASS, Outcome.PASS, None),
        (Outcome.FIXED, Outcome.PASS, None),
        (None, Outcome.FAIL, Kind.APPEARED),
        (Outcome.FAIL, None, Kind.VANISHED),
    ],
)
def test_kinds_of_checks(before: Outcome | None, after: Outcome | None, kind: Kind | None) -> None:
    assert check_kind(before, after) is kind


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (Verdict.PASS, Verdict.PANIC, Kind.NEW_FAILURE),
        (None, Verdict.HANG, Kind.NEW_FAILURE),
        (Verdict.TEST_FAIL, Verdict.PANIC, Kind.NEW_FAILURE),
        (Verdict.PANIC, Verdict.PANIC, Kind.STILL_FAILING),
        (Verdict.PANIC, Verdict.PASS, Kind.FIXED),
        (Verdict.INFRA, Verdict.PASS, Kind.CHANGED),
        (Verdict.PANIC, Verdict.INFRA, Kind.CHANGED),
        (Verdict.PASS, Verdict.PASS, None),
    ],
)
def test_kinds_of_cells(before: Verdict | None, after: Verdict | None, kind: Kind | None) -> None:
    assert verdict_kind(before, after) is kind


def test_checks_that_a_panic_kept_from_running_are_counted_not_listed() -> None:
    cell = CELLS[0]
    ran = {(cell, check): Outcome.PASS for check in CHECKS}
    comparison = compare(snapshot({cell: Verdict.PANIC}), snapshot({cell: Verdict.PASS}, ran))
    assert comparison.checks == ()
    (change,) = comparison.cells
    assert (change.kind, change.vanished, change.appeared) == (Kind.NEW_FAILURE, 3, 0)


@pytest.mark.parametrize("verdict", [Verdict.PANIC, Verdict.HANG, Verdict.INFRA])
def test_checks_that_were_skipped_because_the_guest_was_gone_are_counted_not_listed(verdict: Verdict) -> None:
    cell = CELLS[0]
    came = (Outcome.PASS, Outcome.PASS, Outcome.KNOWN, Outcome.FIXED, Outcome.FAIL, Outcome.SKIP)
    went = (Outcome.FAIL, *[Outcome.SKIP] * 5)

    def of(verdict: Verdict, outcomes: tuple[Outcome, ...]) -> Snapshot:
        return snapshot({cell: verdict}, {(cell, f"a/{n}"): outcome for n, outcome in enumerate(outcomes)})

    sound, broken = of(Verdict.TEST_FAIL, came), of(verdict, went)
    comparison = compare(broken, sound)
    assert [(change.check, change.before, change.after) for change in comparison.checks] == [
        ("a/0", Outcome.PASS, Outcome.FAIL),
        ("a/4", Outcome.FAIL, Outcome.SKIP),
    ]
    assert [(change.vanished, change.appeared) for change in comparison.cells] == [(3, 0)]
    back = compare(sound, broken)
    assert [(change.check, change.kind) for change in back.checks] == [
        ("a/0", Kind.FIXED),
        ("a/4", Kind.NEW_FAILURE),
    ]
    assert [(change.vanished, change.appeared) for change in back.cells] == [(0, 3)]
    skipped = compare(of(Verdict.TEST_FAIL, went), sound)
    assert len(skipped.checks) == 5, "in a guest that came through its suites each skip has a reason of its own"


def test_a_check_that_vanished_from_a_sound_cell_is_told() -> None:
    cell = CELLS[0]
    ran = {(cell, check): Outcome.PASS for check in CHECKS}
    fewer = {key: outcome for key, outcome in ran.items() if key[1] != CHECKS[1]}
    comparison = compare(snapshot({cell: Verdict.PASS}, fewer), snapshot({cell: Verdict.PASS}, ran))
    assert [(change.kind, change.check) for change in comparison.checks] == [(Kind.VANISHED, CHECKS[1])]
    assert comparison.cells == ()


def test_a_new_check_that_fails_appeared() -> None:
    cell = CELLS[0]
    comparison = compare(
        snapshot({cell: Verdict.TEST_FAIL}, {(cell, "a/new"): Outcome.FAIL}), snapshot({cell: Verdict.PASS})
    )
    assert [(change.kind, change.after) for change in comparison.checks] == [(Kind.APPEARED, Outcome.FAIL)]


# ── performance ────────────────────────────────────────────────────────────────────────────────────────────────


def gauss(middle: float, count: int = 30, seed: int = 0) -> tuple[float, ...]:
    chance = random.Random(f"{middle}{count}{seed}")
    return tuple(chance.gauss(middle, middle / 50) for _ in range(count))


def trend(before: tuple[float, ...], after: tuple[float, ...], better: Better = Better.LOWER) -> Trend:
    return judge({"m": Pair(before, after, better)})["m"].trend


def test_a_clear_change_is_seen_in_its_direction() -> None:
    assert trend(gauss(100), gauss(120)) is Trend.WORSE
    assert trend(gauss(120), gauss(100)) is Trend.BETTER
    assert trend(gauss(100), gauss(120), Better.HIGHER) is Trend.BETTER
    judged = judge({"m": Pair(gauss(100), gauss(120), Better.LOWER)})["m"]
    assert judged.effect == 1.0 and judged.p is not None and judged.p < 1e-6
    assert judged.ratio == pytest.approx(1.2, rel=0.02)


def test_a_small_shift_is_no_change_however_significant() -> None:
    pair = Pair(gauss(100, 200), gauss(103, 200), Better.LOWER)
    assert p_value(pair) < ALPHA and cliffs_delta(pair.before, pair.after) > 0.474
    assert judge({"m": pair})["m"].trend is Trend.SAME


def test_a_large_shift_that_is_not_significant_is_no_change() -> None:
    # Five a side can be significant; these are not, because one of them lies across.
    pair = Pair((1.0, 1.1, 1.2, 1.3, 2.05), (2.0, 2.1, 2.2, 2.3, 2.4), Better.LOWER)
    judged = judge({"m": pair})["m"]
    assert judged.p is not None and judged.p > ALPHA
    assert judged.trend is Trend.SAME


def test_a_quiet_night_does_not_load_the_statistics_library() -> None:
    code = (
        "import sys; from dfbuild.model import Better; from dfbuild.results.statistics import Pair, judge;"
        "values = tuple(float(n) for n in range(30));"
        "judge({n: Pair(values, values[::-1], Better.LOWER) for n in range(9)}); print('scipy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20)


@given(VALUES, VALUES)
def test_the_effect_is_what_its_definition_says(before: list[float], after: list[float]) -> None:
    greater = sum(a > b for a in after for b in before)
    smaller = sum(a < b for a in after for b in before)
    assert cliffs_delta(before, after) == pytest.approx((greater - smaller) / (len(before) * len(after)))


def test_too_few_samples_is_said_and_does_not_blunt_the_others() -> None:
    few = {f"few{number}": Pair((1.0, 1.1, 1.2), (9.0, 9.1, 9.2), Better.LOWER) for number in range(500)}
    clear = Pair(gauss(100, 10), gauss(150, 10), Better.LOWER)
    judged = judge({**few, "clear": clear})
    assert {judged[key].trend for key in few} == {Trend.TOO_FEW} and judged["few0"].p is None
    assert judged["clear"].trend is Trend.WORSE


@pytest.mark.parametrize("metrics", [1, 12, 200])
def test_with_the_samples_needed_a_change_can_be_seen(metrics: int) -> None:
    enough = samples_needed(metrics)
    for count, seen in ((enough, Trend.WORSE), (enough - 1, Trend.TOO_FEW)):
        pair = Pair(tuple(100.0 + n for n in range(count)), tuple(200.0 + n for n in range(count)), Better.LOWER)
        calm = Pair(pair.before, pair.before[::-1], Better.LOWER)
        judged = judge({0: pair, **dict.fromkeys(range(1, metrics), calm)})
        assert judged[0].trend is seen


def test_noise_over_many_metrics_raises_no_alarm() -> None:
    pairs = {
        number: Pair(gauss(100, 20, number), gauss(100, 20, -number - 1), Better.LOWER) for number in range(300)
    }
    uncorrected = sum(p_value(pair) < 0.05 for pair in pairs.values())
    assert uncorrected > 5, "the noise must be such that an uncorrected test would raise alarms"
    assert {judgement.trend for judgement in judge(pairs).values()} == {Trend.SAME}


def test_the_order_of_samples_and_an_empty_side_do_not_matter() -> None:
    assert trend(gauss(100), tuple(reversed(gauss(120)))) is Trend.WORSE
    assert judge({"m": Pair((), (1.0,), Better.LOWER)}) == {}
    assert trend((5.0,) * 30, (5.0,) * 30) is Trend.SAME
    assert judge({"m": Pair((0.0,) * 30, gauss(5), Better.LOWER)})["m"].ratio is None


def test_holm_by_its_textbook_example() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


@given(st.dictionaries(st.integers(), st.floats(0, 1), min_size=1))
def test_holm_never_lowers_a_p_value_and_keeps_the_order(p_values: dict[int, float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= adjusted[key] <= 1 for key, p in p_values.items())
    ordered = sorted(p_values, key=lambda key: p_values[key])
    assert all(adjusted[one] <= adjusted[two] for one, two in itertools.pairwise(ordered))


def test_another_unit_is_another_metric() -> None:
    key = (CELLS[0], CHECKS[0], "m")
    one, other = Sample("m", "s", gauss(1)), Sample("m", "ms", gauss(1000))
    assert compare(snapshot(samples={key: one}), snapshot(samples={key: other})).metrics == ()
