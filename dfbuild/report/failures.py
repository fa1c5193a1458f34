"""What went wrong in a run, as a list: the part of every report that is read first. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dfbuild.model import CheckResult, Outcome, Verdict
from dfbuild.results.records import CellRecord, RunRecord, StepRecord
from dfbuild.results.repeat import cell_line, repeat_line
from dfbuild.results.verdict import REGRESSIONS, hang_title


@dataclass(frozen=True, slots=True)
class Failure:
    """A cell that ended badly (`check` is empty), or a check that failed in it.

    `what` is a verdict or `fail`. `detail` is guest or compiler text, hostile. `console` is the byte span of the
    cell's transcript that shows it: (n, n) the place n, None if that is not known. `repeat` is the one line
    that does it again. A build step that failed is one failure; `also` are the other cells that needed it.
    Of a check `also` are others of the cell that failed in the same words, where they are `told` together.
    """

    cell: str
    check: str
    what: str
    title: str
    detail: str
    console: tuple[int, int] | None
    repeat: str
    log: str = ""
    """The log file of the build step that failed."""
    also: tuple[str, ...] = ()
    during: str = ""
    """The check that ran when the guest crashed or hung, and failed of nothing else."""

    @property
    def silent(self) -> bool:
        """Whether nothing came over the console while the check ran."""
        return bool(self.check) and self.console is not None and self.console[0] == self.console[1]


_CLASS = re.compile(r"^dfbuild(?:\.\w+)+: ", re.MULTILINE)
_CRASHED = "dfbuild.errors.GuestCrashed: "


def failures(run: RunRecord) -> tuple[Failure, ...]:
    """All of them, in the order of the matrix; regressions before infrastructure."""
    steps = {step.id: step for step in run.steps if step.verdict is not Verdict.PASS}
    builds: dict[str, list[CellRecord]] = {}
    found: list[Failure] = []
    for cell in run.cells:
        if cell.verdict is None or (cell.verdict not in REGRESSIONS and cell.verdict is not Verdict.INFRA):
            continue
        culprit = next((id for id in cell.steps if id in steps), None)
        if culprit is not None:
            builds.setdefault(culprit, []).append(cell)
        else:
            found += _of_guest(run, cell)
    found += [_of_build(run, steps[id], cells) for id, cells in builds.items()]
    position = {cell.id: number for number, cell in enumerate(run.cells)}
    return tuple(sorted(found, key=lambda one: (one.what == Verdict.INFRA, position[one.cell])))


def told(run: RunRecord) -> tuple[Failure, ...]:
    """The same for a person: a check that failed of nothing but its guest's end is told with that, and checks of
    one cell that failed in the same words are told once."""
    found = failures(run)
    crashed = {(failure.cell, failure.during) for failure in found if failure.during}
    alike: dict[tuple[str, ...], list[Failure]] = {}
    for failure in found:
        if (failure.cell, failure.check) not in crashed:
            words = (failure.detail,) if failure.check and failure.detail else (failure.check, "")
            alike.setdefault((failure.cell, failure.what, *words), []).append(failure)
    return tuple(
        replace(first, also=(*first.also, *(one.check for one in more))) for first, *more in alike.values()
    )


def plain(detail: str) -> str:
    """What checks say of errors, without the names that these have in dfbuild."""
    return _CLASS.sub("", detail)


def fixed(run: RunRecord) -> tuple[tuple[str, CheckResult], ...]:
    """(cell, check) of what was expected to be broken and is not."""
    return tuple((cell.id, check) for cell in run.cells for check in cell.checks if check.outcome is Outcome.FIXED)


def _of_build(run: RunRecord, step: StepRecord, cells: list[CellRecord]) -> Failure:
    return Failure(
        cell=cells[0].id,
        check="",
        what=step.verdict,
        title=cells[0].title or step.title,
        detail=step.tail or step.title,
        console=None,
        repeat=cell_line(run, cells[0].id),
        log=step.log,
        also=tuple(cell.id for cell in cells[1:]),
    )


def _of_guest(run: RunRecord, cell: CellRecord) -> Iterator[Failure]:
    failed = [check for check in cell.checks if check.outcome is Outcome.FAIL]
    if not (cell.verdict is Verdict.TEST_FAIL and failed):
        yield Failure(
            cell=cell.id,
            check="",
            what=str(cell.verdict),
            title=cell.title,
            detail=cell.crash.excerpt if cell.crash else "",
            console=(cell.crash.offset, cell.crash.offset) if cell.crash else None,
            repeat=cell_line(run, cell.id),
            during=next((check.check for check in failed if _of_end(cell, check)), ""),
        )
    for check in failed:
        yield Failure(
            cell=cell.id,
            check=check.check,
            what=check.outcome,
            title=_first_line(plain(check.detail)),
            detail=plain(check.detail),
            # (0, 0) is what a check says that does not know.
            console=check.console if any(check.console) else None,
            repeat=repeat_line(run.config_file, cell.id, check=check.check, options=run.options),
        )


def _of_end(cell: CellRecord, check: CheckResult) -> bool:
    """Whether the check failed of nothing but the guest's end: of an error of the way to it, and no finding."""
    if cell.crash is None:
        return cell.verdict is Verdict.HANG and cell.title.startswith(hang_title(check.check, ""))
    # What a check is told of a crash is the beginning of what is known of it in the end.
    known = [bool(line) and cell.crash.title.startswith(line) for line in plain(check.detail).splitlines()]
    mere = known[:1] == [True] or _CLASS.match(check.detail) is not None
    return check.detail.startswith(_CRASHED) or (mere and any(known))


def _first_line(text: str) -> str:
    return next((line.strip() for line in text[:4000].splitlines() if line.strip()), "")
