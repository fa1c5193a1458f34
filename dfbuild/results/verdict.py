"""From what was seen to what is said: checks ▸ a cell's verdict, cells ▸ the run's exit status. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dfbuild.model import CheckResult, Outcome, Verdict
from dfbuild.results.records import RunRecord, RunStatus

REGRESSIONS = frozenset({Verdict.BUILD_FAIL, Verdict.BOOT_FAIL, Verdict.PANIC, Verdict.HANG, Verdict.TEST_FAIL})
"""Verdicts that say: what was built or booted is at fault."""


UNFINISHED = 130
"""The exit status of what was interrupted, as shells have it."""

LATE = "the time for the suites was over before all checks had run"


def cell_verdict(
    suites: Iterable[str], checks: Sequence[CheckResult], *, check: str = "", late: bool = False
) -> Verdict:
    """The verdict of a cell whose guest came through its `suites`, by what they reported.

    A failed check is TEST_FAIL. Otherwise every suite must have reported at least one check (with the pattern
    `check` that narrows them: one check in all), and it must not have been too `late` for any, or the cell is
    INFRA: what said nothing proves nothing. A cell whose checks were all skipped is SKIP.
    """
    if any(result.outcome is Outcome.FAIL for result in checks):
        return Verdict.TEST_FAIL
    if late or _silent(suites, checks, check):
        return Verdict.INFRA
    return Verdict.SKIP if _skipped(checks) else Verdict.PASS


def cell_title(suites: Iterable[str], checks: Sequence[CheckResult], *, check: str = "", late: bool = False) -> str:
    """One line that says why `cell_verdict` is what it is; empty for PASS."""
    failed = [result.check for result in checks if result.outcome is Outcome.FAIL]
    more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
    silent = _silent(suites, checks, check)
    return "; ".join(
        ([f"{', '.join(failed[:3])}{more}"] if failed else [])
        + ([f"no check ended of {', '.join(silent)}"] if silent else [])
        + ([LATE] if late else [])
        + ([f"skipped: {checks[0].reason}"] if _skipped(checks) else [])
    )


def _skipped(checks: Sequence[CheckResult]) -> bool:
    return bool(checks) and all(result.outcome is Outcome.SKIP for result in checks)


def _silent(suites: Iterable[str], checks: Sequence[CheckResult], check: str) -> list[str]:
    if check and checks:
        return []
    seen = {result.check.partition("/")[0] for result in checks}
    return [suite for suite in suites if suite not in seen]


def exit_status(run: RunRecord) -> int:
    """What a run earns: 0 all as expected, 1 regressions, 3 infrastructure, 130 if it has not come to its
    end."""
    verdicts = [cell.verdict for cell in run.cells]
    status = verdicts_status(verdicts)
    return UNFINISHED if status == 3 and None in verdicts and run.status is not RunStatus.FINISHED else status


def verdicts_status(verdicts: Iterable[Verdict | None]) -> int:
    """The exit status by the cells' verdicts; None is a cell that was not finished.

    A regression wins over infrastructure: it stands, whatever else could not be looked at. Unfinished cells count
    as infrastructure, and so does a run without any cell, which has shown nothing.
    """
    seen = set(verdicts)
    if seen & REGRESSIONS:
        return 1
    if not seen or seen & {None, Verdict.INFRA}:
        return 3
    return 0


def hang_title(check: str, why: str) -> str:
    """What a cell is called whose guest hung while `check` ran."""
    return f"the guest hangs in {check}: {why}"
