"""The run for a person at a terminal, and as plain text where there is none."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from dfbuild.model import Outcome, Verdict
from dfbuild.report.excerpt import Excerpts
from dfbuild.report.failures import fixed, told
from dfbuild.report.summary import headline, phases
from dfbuild.report.text import duration, figure, plural, safe, safe_line
from dfbuild.results.compare import CellChange, CheckChange, Comparison, Kind, MetricChange
from dfbuild.results.records import CellRecord, RunRecord
from dfbuild.results.statistics import Trend, samples_needed
from dfbuild.workspace import Workspace

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_PLAIN_WIDTH = 132
_WIDE, _NARROW = 120, 100
"""Columns from which on the table has room to say why, which the failures below it say anyway; and how long."""
_DETAILED = 20
"""Failures shown with detail and console; the others get a few lines each."""
_LISTED = 200
"""Failures shown at all."""

_COLOURS: dict[str, str] = {
    Verdict.PASS: "green",
    Verdict.SKIP: "dim",
    Verdict.INFRA: "yellow",
    Outcome.PASS: "green",
    Outcome.KNOWN: "cyan",
    Outcome.FIXED: "bold magenta",
    Outcome.SKIP: "dim",
}


def show(run: RunRecord, comparison: Comparison | None, workspace: Workspace, stream: TextIO | None = None) -> None:
    """Print the report; in colour and fitted to its width if `stream` (standard output) is a terminal."""
    from rich.console import Console

    stream = stream or sys.stdout
    if not stream.isatty():
        columns = os.environ.get("COLUMNS", "")
        width = int(columns) if columns.isdecimal() else _PLAIN_WIDTH
        stream.write(render(run, comparison, workspace, width))
        return
    _print(
        Console(file=stream, highlight=False, markup=False, emoji=False), run, comparison, Excerpts(workspace, run)
    )


def render(run: RunRecord, comparison: Comparison | None, workspace: Workspace, width: int = _PLAIN_WIDTH) -> str:
    """The same as plain text, whatever the environment says of colours."""
    from rich.console import Console

    text = io.StringIO()
    console = Console(
        file=text,
        highlight=False,
        markup=False,
        emoji=False,
        width=width,
        force_terminal=False,
        color_system=None,
    )
    _print(console, run, comparison, Excerpts(workspace, run))
    # Tables fill their last column with blanks.
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _print(console: Console, run: RunRecord, comparison: Comparison | None, excerpts: Excerpts) -> None:
    console.print(_cells(run, console.width))
    if run.refusals:
        console.print(f"refused ({len(run.refusals)}):", style="bold")
        for refusal in run.refusals:
            _line(console, f"  {safe_line(refusal.id)}: {safe_line(refusal.reason)}")
        console.print()
    for cell, check in fixed(run):
        _line(console, f"FIXED  {safe_line(check.check)}  in {safe_line(cell)}", style="bold magenta")
        if check.reason:
            _line(console, f"       was expected to be broken: {safe_line(check.reason)}")
    _failures(console, run, excerpts)
    if comparison is not None:
        _comparison(console, comparison)
    _line(console, headline(run), style="bold")


def _line(console: Console, text: str, style: str = "") -> None:
    # Never wrapped: lines are copied from here.
    console.print(text, style=style, soft_wrap=True)


def _colour(what: Verdict | Outcome | str | None) -> str:
    return _COLOURS.get(what, "bold red") if what else "yellow"


# ── cells ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _cells(run: RunRecord, width: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wide, timed = width >= _WIDE, width >= _NARROW
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=safe_line(run.id), title_justify="left")
    table.add_column("cell", no_wrap=timed, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    if timed:
        for phase in ("build", "boot", "suites"):
            table.add_column(phase, justify="right", no_wrap=True)
    counts = {cell.id: _counts(cell, ", " if wide else ",\n") for cell in run.cells}
    longest = max((line.cell_len for count in counts.values() for line in count.split()), default=0)
    table.add_column("checks", no_wrap=wide, min_width=max(longest, len("checks")))
    if wide:
        table.add_column("why", overflow="fold")  # alone gives way where there is no room for all
    for cell in run.cells:
        times = phases(run, cell) if timed else ()
        table.add_row(
            Text(safe_line(cell.id)),
            Text(cell.verdict or "unfinished", style=_colour(cell.verdict)),
            *(Text("cached" if seconds is None else duration(seconds) if seconds else "–") for seconds in times),
            counts[cell.id],
            *([Text(safe_line(cell.title, 120))] if wide else []),
        )
    return table


def _counts(cell: CellRecord, between: str) -> Text:
    from rich.text import Text

    words = [
        (f"{cell.count(outcome)} {'FAIL' if outcome is Outcome.FAIL else outcome}", _colour(outcome))
        for outcome in (Outcome.FAIL, Outcome.FIXED, Outcome.KNOWN, Outcome.PASS, Outcome.SKIP)
        if cell.count(outcome)
    ]
    joined = Text()
    for number, (word, style) in enumerate(words):
        joined.append(between if number else "").append(word, style=style)
    return joined


# ── failures ───────────────────────────────────────────────────────────────────────────────────────────────────


def _failures(console: Console, run: RunRecord, excerpts: Excerpts) -> None:
    found = told(run)
    cells = {cell.id: cell for cell in run.cells}
    for number, failure in enumerate(found[:_LISTED]):
        what = "FAIL" if failure.what == Outcome.FAIL else failure.what
        name = f"{safe_line(failure.check)}  in " if failure.check else ""
        _line(console, f"{what}  {name}{safe_line(failure.cell)}", style=_colour(failure.what))
        if failure.during:
            _line(console, f"  while {safe_line(failure.during)} ran")
        for other in failure.also:
            _line(console, f"  also {'' if failure.check else 'in '}{safe_line(other)}", style="dim")
        if number < _DETAILED:
            lines = excerpts.of(cells[failure.cell], failure)
            # A crash's own text is in the console below it.
            detail = failure.title if lines and not failure.check else failure.detail or failure.title
            for line in safe(detail, 4000).splitlines():
                _line(console, f"  {line}")
            if lines:
                _line(console, "  console:", style="dim")
            for shown in lines:
                _line(console, f"  {shown}", style="" if shown.inside else "dim")
            if failure.silent:
                _line(console, "  the console was silent", style="dim")
            calls = () if failure.check else excerpts.cpus(cells[failure.cell])
            if calls:
                _line(console, "  its CPUs:", style="dim")
            for call in calls:
                _line(console, f"    {safe_line(call)}")
        else:
            _line(console, f"  {safe_line(failure.title)}")
        if failure.log:
            _line(console, f"  log: {safe_line(failure.log)}")
        _line(console, f"  repeat: {safe_line(failure.repeat, 4000)}")
        console.print()
    if len(found) > _LISTED:
        _line(console, f"and {plural(len(found) - _LISTED, 'failure')} more: see report.json")


# ── comparison ─────────────────────────────────────────────────────────────────────────────────────────────────


def _comparison(console: Console, comparison: Comparison) -> None:
    _line(console, f"since {safe_line(comparison.against)}:", style="bold")
    changes: list[CellChange | CheckChange] = [*comparison.cells, *comparison.checks]
    nothing = True
    for kind, style in (
        (Kind.NEW_FAILURE, "bold red"),
        (Kind.FIXED, "green"),
        (Kind.STILL_FAILING, "red"),
        (Kind.VANISHED, "yellow"),
        (Kind.APPEARED, ""),
        (Kind.CHANGED, ""),
    ):
        these = [change for change in changes if change.kind is kind]
        nothing = nothing and not these
        _group(console, kind, style, [describe(change) for change in these])
    known = len(comparison.checks_of(Kind.KNOWN))
    if known:
        _line(console, f"  known, unchanged: {plural(known, 'check')}")
    for trend, style in ((Trend.WORSE, "bold red"), (Trend.BETTER, "green")):
        moved = comparison.metrics_of(trend)
        nothing = nothing and not moved
        _group(console, f"performance, {trend}", style, [describe_metric(change) for change in moved])
    few = len(comparison.metrics_of(Trend.TOO_FEW))
    if few:
        needed = samples_needed(len(comparison.metrics))
        _line(
            console,
            f"  {plural(few, 'metric')} with too few samples to say anything (it takes {needed} in each run)",
        )
    if nothing:
        _line(console, "  no change")
    console.print()


def _group(console: Console, name: str, style: str, lines: Iterable[str]) -> None:
    lines = list(lines)
    if lines:
        _line(console, f"  {name} ({len(lines)}):", style=style)
        for line in lines:
            _line(console, f"    {line}")


def describe(change: CellChange | CheckChange) -> str:
    """A change in a line of safe text."""
    if isinstance(change, CheckChange):
        before, after = change.before or "–", change.after or "–"
        return f"{safe_line(change.check)}  in {safe_line(change.cell)}  ({before} → {after})"
    words = [f"{change.before or '–'} → {change.after or '–'}"]
    if change.appeared:
        words.append(f"{plural(change.appeared, 'check')} appeared")
    if change.vanished:
        words.append(f"{plural(change.vanished, 'check')} not reached")
    return f"{safe_line(change.cell)}  ({', '.join(words)})"


def describe_metric(change: MetricChange) -> str:
    """A performance change in a line of safe text."""
    ratio = f"×{change.ratio:.2f}, " if change.ratio is not None else ""
    p = "" if change.p is None else f"p={change.p:.2g}, "
    return (
        f"{safe_line(change.metric)}: {figure(change.before)} → {figure(change.after)} {safe_line(change.unit)}"
        f"  in {safe_line(change.cell)}  ({ratio}{p}effect {change.effect:+.2f},"
        f" n={len(change.samples[0])}/{len(change.samples[1])})"
    )
