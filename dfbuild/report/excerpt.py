"""The console around a failure, with times, bounded: a guest may have printed 200 MB."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dfbuild.console.text import printable
from dfbuild.console.transcript import Times, times_path
from dfbuild.report.failures import Failure
from dfbuild.results.directory import cell_directory
from dfbuild.results.records import CellRecord, RunRecord
from dfbuild.session.diagnosis import DIAGNOSIS
from dfbuild.workspace import Workspace

BEFORE, AFTER = 8, 48
"""Lines shown ahead of a place and behind it; of a longer span its beginning and its end are shown."""
MOST = 100
"""Excerpts in one report. A run with more failures than that has one cause, and it is in the first ones."""
_HEAD_BYTES, _TAIL_BYTES = 8 << 10, 24 << 10
_WIDTH = 500
_TAKEN_BACK = re.compile(rb"[^\x08]\x08")
"""What the next character stands in the place of: a loader's wheel is a thousand of these on a line."""
_CPU = re.compile(r"^cpu \d+ .*:$|^  (?:at|from) .*$", re.MULTILINE)
_CALLS = 24
_LOGS = (".log", ".txt")
_END = 2**62
"""A place beyond the end of every transcript: where a guest fell silent, its last lines say most."""
_NOT_ITS_OWN = ("console.log", "suites.log", "holder.log")


@dataclass(frozen=True, slots=True)
class ConsoleLine:
    """A line as safe text. `seconds` after power-on (None if that is not known); `inside` the span asked for."""

    seconds: float | None
    text: str
    inside: bool = True

    def __str__(self) -> str:
        stamp = " " * 10 if self.seconds is None else f"{self.seconds:10.3f}"
        return f"{stamp} {'│' if self.inside else ' '} {self.text}"


class Excerpts:
    """Cuts excerpts out of a run's transcripts; the first `most` that are asked for."""

    def __init__(self, workspace: Workspace, run: RunRecord, most: int = MOST) -> None:
        self._workspace, self._run, self._left = workspace, run, most
        self._times: dict[Path, Times] = {}

    def logs(self, cell: CellRecord) -> tuple[tuple[str, str], ...]:
        """What the hypervisor wrote of `cell`: names of files, and as safe text the last of what is in them."""
        if cell.attempt == 0:
            return ()
        directory = cell_directory(self._workspace, self._run.id, cell.id, cell.attempt)
        found = []
        for path in sorted(directory.glob("*")):
            if path.suffix in _LOGS and path.name not in _NOT_ITS_OWN:
                with contextlib.suppress(OSError), path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
                    found.append((path.name, printable(file.read(_TAIL_BYTES))))
        return tuple(found)

    def cpus(self, cell: CellRecord) -> tuple[str, ...]:
        """Where the CPUs of a guest of `cell` were that crashed or hung, and who called whom, innermost first."""
        diagnosis = dict(self.logs(cell)).get(DIAGNOSIS, "")
        return tuple(_CPU.findall(diagnosis)[:_CALLS])

    def of(self, cell: CellRecord, failure: Failure) -> tuple[ConsoleLine, ...]:
        """The console lines that show a failure of `cell`; empty if there are none, or is no transcript."""
        span = failure.console if failure.check else failure.console or (_END, _END)
        if span is None or failure.silent or cell.attempt == 0 or self._left == 0:
            return ()
        log = cell_directory(self._workspace, self._run.id, cell.id, cell.attempt) / "console.log"
        try:
            if log not in self._times:
                self._times[log] = Times(log)
            lines = console_lines(log, self._times[log], *span)
            if not failure.check:
                lines = annotated(lines, failure.detail.splitlines())
        except OSError:
            # Run directories may be thrown away; the database is the record.
            return ()
        self._left -= 1
        return lines


def annotated(lines: Sequence[ConsoleLine], excerpt: Sequence[str]) -> tuple[ConsoleLine, ...]:
    """`lines`, those of a crash as its `excerpt` has them: with what the kernel's addresses stand for. Pure."""
    inside = iter(excerpt)

    def of(line: ConsoleLine) -> ConsoleLine:
        words = next(inside, "") if line.inside else ""
        left = iter(words.split())
        # Only what was put between its words may tell them apart.
        same = all(word in left for word in line.text.split())
        return replace(line, text=words[:_WIDTH]) if same and words else line

    return tuple(map(of, lines))


def console_lines(log: Path, times: Times, begin: int, end: int) -> tuple[ConsoleLine, ...]:
    """The lines of bytes [begin, end), with some before and, for a mere place, some behind.

    A place beyond the end means the last lines. Raises `OSError` as the file system does.
    """
    size = log.stat().st_size
    begin, end = min(begin, size), min(max(begin, end), size)
    back = max(0, begin - _HEAD_BYTES)
    before = _lines(log, times, back, begin, cut=back > 0, inside=False)
    if begin == size:
        return tuple(before[-(BEFORE + AFTER) :])
    if end == begin:
        inside = _lines(log, times, begin, begin + _TAIL_BYTES)[:AFTER]
    elif end - begin <= _HEAD_BYTES + _TAIL_BYTES:
        inside = _ends(_lines(log, times, begin, end))
    else:
        head = _lines(log, times, begin, begin + _HEAD_BYTES)[: AFTER // 2]
        tail = _lines(log, times, end - _TAIL_BYTES, end, cut=True)[-AFTER:]
        inside = [*head, _remark(f"the middle of {end - begin:,} bytes left out"), *tail]
    return (*before[-BEFORE:], *inside)


def _ends(lines: list[ConsoleLine]) -> list[ConsoleLine]:
    left = len(lines) - AFTER // 2 - AFTER
    if left <= 0:
        return lines
    return [*lines[: AFTER // 2], _remark(f"{left} lines left out"), *lines[-AFTER:]]


def _remark(text: str) -> ConsoleLine:
    return ConsoleLine(None, f"… {text} …")


def _lines(
    log: Path, times: Times, begin: int, end: int, *, cut: bool = False, inside: bool = True
) -> list[ConsoleLine]:
    """The lines between two offsets. `cut` says that the first one is a piece of a line, and is left out if there
    is another."""
    with log.open("rb") as file:
        file.seek(begin)
        data = file.read(end - begin)
    found = []
    stamped = times_path(log).is_file()
    for raw in data.split(b"\n"):
        text = printable(_TAKEN_BACK.sub(b"", raw.rstrip(b"\r"))[: 4 * _WIDTH])
        shown = text if len(text) <= _WIDTH else text[:_WIDTH] + "…"
        found.append(ConsoleLine(times.at(begin).seconds if stamped else None, shown, inside))
        begin += len(raw) + 1
    if found and not found[-1].text:
        found.pop()
    return found[1:] if cut and len(found) > 1 else found
