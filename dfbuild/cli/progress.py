"""Progress of a run: a live table on a terminal, plain lines elsewhere. Both go to standard error."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from dfbuild.matrix.events import (
    CellBegan,
    CellEnded,
    CellStage,
    CheckBegan,
    CheckEnded,
    Event,
    Listener,
    RunBegan,
    StepBegan,
    StepEnded,
    StepSaid,
)
from dfbuild.model import Outcome, Verdict
from dfbuild.report.text import plural, safe_line

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_REFRESH_PER_SECOND = 8
_QUIET = 30.0
"""Seconds after which a plain log hears again of a step that is still at work."""
_SILENT = 120.0
"""And after which it does though the step has nothing new to say."""


def line(event: Event) -> str | None:
    """The plain line that tells `event`, or None for what only a live display shows."""
    match event:
        case RunBegan(run, steps, cells):
            return f"run {run}: {plural(steps, 'build step')}, {plural(cells, 'cell')}"
        case StepEnded(step, verdict, title, seconds, cached):
            how = "cached" if cached else f"{seconds:.1f} s"
            return f"{verdict:<10} {step} ({how})" + (f": {title}" if title else "")
        case CellBegan(cell, attempt) if attempt > 1:
            return f"retry      {cell} (attempt {attempt})"
        case CellStage(cell, stage, seconds):
            return f"stage      {cell}: {stage} after {seconds:.1f} s"
        case CheckEnded(cell, result) if result.outcome in (Outcome.FAIL, Outcome.FIXED):
            return f"{result.outcome:<10} {cell}: {result.check}"
        case CellEnded(cell, verdict, title, seconds, retried):
            again = ", will be tried again" if retried else ""
            return f"{verdict:<10} {cell} ({seconds:.1f} s{again})" + (f": {title}" if title else "")
        case _:
            return None


def say(line: str) -> None:
    """Tell of the progress of one build, as it comes."""
    print(safe_line(line), file=sys.stderr, flush=True)


@dataclass
class Plain:
    """One line an event, for logs and CI."""

    out: TextIO
    start: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)
    running: dict[str, _Last] = field(default_factory=dict)
    """What is at work, by its name."""

    def __call__(self, event: Event) -> None:
        with self.lock:
            still = self._still(event, time.monotonic())
            text = line(event) or still
            if text is not None:
                self._print(text)

    def remind(self, now: float) -> None:
        """Tell of what was not heard of for long: somebody may wait for a sign of life."""
        with self.lock:
            for name, last in self.running.items():
                if now - last.told >= _SILENT:
                    last.told = now
                    self._print(f"{'...':<10} {name}: {last.said}".removesuffix(": "))

    def _print(self, text: str) -> None:
        print(f"{time.monotonic() - self.start:7.1f}  {safe_line(text)}", file=self.out, flush=True)

    def _still(self, event: Event, now: float) -> str | None:
        """Note what is at work; what a step says, if nothing was heard of it for a while."""
        match event:
            case StepBegan(name) | CellBegan(name):
                self.running[name] = _Last(now)
            case StepSaid(name, said):
                last = self.running.setdefault(name, _Last(now))
                last.said = said
                if now - last.told >= _QUIET:
                    last.told = now
                    return f"{'...':<10} {name}: {said}"
            case CheckBegan(name, check) if name in self.running:
                self.running[name].said = check
            case StepEnded(name) | CellEnded(name):
                self.running.pop(name, None)
        return None


@dataclass
class _Last:
    """When it was told of, and what it said."""

    told: float
    said: str = ""


@dataclass
class Live:
    """What runs now, with its state, above a bar for the whole."""

    bars: Bars
    total: TaskID
    running: dict[str, list[TaskID]] = field(default_factory=dict)
    """By what people see of a thing, which several may share."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: Event) -> None:
        with self.lock:
            self._show(event)

    def _show(self, event: Event) -> None:
        match event:
            case RunBegan(run, steps, cells):
                self.bars.update(self.total, total=steps + cells, description=f"run {run}")
            case StepBegan(name) | CellBegan(name, _):
                task = self.bars.add_task(safe_line(name), total=None, state="")
                self.running.setdefault(name, []).append(task)
            case StepSaid(name, state) | CheckBegan(name, state) | CellStage(name, state, _):
                for task in self.running.get(name, ())[-1:]:
                    self.bars.update(task, state=safe_line(state))
            case StepEnded(name) | CellEnded(name):
                for task in self.running.get(name, ())[-1:]:
                    self.running[name].remove(task)
                    self.bars.remove_task(task)
                if not (isinstance(event, CellEnded) and event.retried):
                    self.bars.advance(self.total)
        text = line(event)
        if text is not None and not isinstance(event, CellStage | RunBegan):
            good = isinstance(event, StepEnded | CellEnded) and event.verdict in (Verdict.PASS, Verdict.SKIP)
            self.bars.console.print(safe_line(text), style="green" if good else "bold red", markup=False)


@contextlib.contextmanager
def shown(out: TextIO = sys.stderr) -> Iterator[Listener]:
    """The listener that suits `out`."""
    if not out.isatty():
        plain, over = Plain(out), threading.Event()

        def remind() -> None:
            while not over.wait(_QUIET / 3):
                plain.remind(time.monotonic())

        reminder = threading.Thread(target=remind, name="progress", daemon=True)
        reminder.start()
        try:
            yield plain
        finally:
            over.set()
            reminder.join()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.text import Text

    class Done(MofNCompleteColumn):
        """How many of how many, for what is counted."""

        def render(self, task: Task) -> Text:
            return Text() if task.total is None else super().render(task)

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        Done(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        console=Console(file=out),
        refresh_per_second=_REFRESH_PER_SECOND,
        transient=True,
    ) as bars:
        yield Live(bars, bars.add_task("", total=None, state=""))
