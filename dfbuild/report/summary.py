"""A run in a few figures. Pure."""

from __future__ import annotations

from collections import Counter

from dfbuild.model import Outcome, Verdict
from dfbuild.report.text import duration, plural
from dfbuild.results.records import CellRecord, RunRecord
from dfbuild.results.verdict import exit_status

_MEANINGS = {0: "all as expected", 1: "regressions", 3: "infrastructure failed"}


def meaning(run: RunRecord) -> str:
    """What the run's exit status says, in words; of one that has not come to its end, how it stands."""
    return _MEANINGS.get(exit_status(run), str(run.status))


def verdicts(run: RunRecord) -> Counter[Verdict | None]:
    return Counter(cell.verdict for cell in run.cells)


def outcomes(run: RunRecord) -> Counter[Outcome]:
    return Counter(check.outcome for cell in run.cells for check in cell.checks)


def phases(run: RunRecord, cell: CellRecord) -> tuple[float | None, float, float]:
    """Seconds of building (None if all of it came from the cache), booting and testing.

    A step that several cells share counts in full for each: it is what the cell would have taken alone.
    """
    steps = [step for step in run.steps if step.id in cell.steps]
    build = None if steps and all(step.cached for step in steps) else sum(step.seconds for step in steps)
    return build, cell.boot_seconds, cell.suite_seconds


def wall_seconds(run: RunRecord) -> float | None:
    """From the run's beginning to its end, but for when nobody ran it; None while there is none."""
    return (run.finished - run.started).total_seconds() - run.idle if run.finished else None


def headline(run: RunRecord) -> str:
    """`16 cells: 14 PASS, 2 TEST_FAIL; 512 checks: 498 pass, …; in 3 min 12 s: regressions`."""
    cells = ", ".join(f"{count} {verdict or 'unfinished'}" for verdict, count in verdicts(run).most_common())
    counts = outcomes(run)
    checks = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    seconds = wall_seconds(run)
    parts = [
        f"{plural(len(run.cells), 'cell')}: {cells}" if cells else "no cells",
        f"{plural(counts.total(), 'check')}: {checks}" if checks else "no checks",
        *([f"{len(run.refusals)} refused"] if run.refusals else []),
        *([f"in {duration(seconds)}"] if seconds is not None else []),
    ]
    return f"{'; '.join(parts)}: {meaning(run)}"
