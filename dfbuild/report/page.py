"""What the HTML page shows, worked out: plain values for the template, which only places them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dfbuild.model import CheckResult, Outcome, Sample, Verdict
from dfbuild.report.excerpt import ConsoleLine, Excerpts
from dfbuild.report.failures import Failure, fixed, told
from dfbuild.report.plots import Segment, Strip, span, strip, timeline
from dfbuild.report.summary import meaning, outcomes, phases, verdicts, wall_seconds
from dfbuild.results.compare import CellChange, CheckChange, Comparison, Kind, MetricChange
from dfbuild.results.records import CellRecord, RefusalRecord, RunRecord, StepRecord
from dfbuild.results.repeat import cell_line
from dfbuild.results.statistics import Trend, samples_needed
from dfbuild.results.verdict import exit_status

_MOST_PASSES = 20_000
"""Checks in a run beyond which the page no longer lists the ones that passed: a browser must still open it."""
_MOST_FAILURES = 300
"""Failures told at length; the others are in their cells, and in report.json."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A place in the grid: a cell, a refusal or (both None) nothing."""

    cell: CellRecord | None = None
    refusal: RefusalRecord | None = None
    anchor: str = ""
    change: Kind | None = None


@dataclass(frozen=True, slots=True)
class Row:
    label: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    shapes: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class FailureView:
    failure: Failure
    lines: tuple[ConsoleLine, ...]
    change: Kind | None
    anchors: tuple[tuple[str, str], ...]
    """(cell, anchor) of the cells that have it."""


@dataclass(frozen=True, slots=True)
class SampleView:
    sample: Sample
    plot: Strip


@dataclass(frozen=True, slots=True)
class CheckView:
    check: CheckResult
    samples: tuple[SampleView, ...]


@dataclass(frozen=True, slots=True)
class CellView:
    cell: CellRecord
    anchor: str
    build: float | None
    boot: float
    suites: float
    steps: tuple[StepRecord, ...]
    stages: tuple[Segment, ...]
    checks: tuple[CheckView, ...]
    hidden: int
    """Checks that passed and are not listed."""
    repeat: str
    logs: tuple[tuple[str, str], ...]
    """The hypervisor's own logs: name and text."""


@dataclass(frozen=True, slots=True)
class MetricView:
    change: MetricChange
    before: Strip
    after: Strip


@dataclass(frozen=True, slots=True)
class Changes:
    """A comparison, grouped; `few` metrics had fewer samples than the `needed` ones, `known` checks are known in
    both runs."""

    against: str
    groups: tuple[tuple[Kind, tuple[CellChange | CheckChange, ...]], ...]
    metrics: tuple[MetricView, ...]
    compared: int
    few: int
    needed: int
    known: int


@dataclass(frozen=True, slots=True)
class Page:
    run: RunRecord
    status: int
    meaning: str
    seconds: float | None
    verdicts: tuple[tuple[Verdict | None, int], ...]
    outcomes: tuple[tuple[Outcome, int], ...]
    cached: int
    """Build steps that came from the cache."""
    grid: Grid
    failures: tuple[FailureView, ...]
    more_failures: int
    """How many there are beyond those."""
    fixed: tuple[tuple[str, CheckResult], ...]
    cells: tuple[CellView, ...]
    changes: Changes | None


def page(run: RunRecord, comparison: Comparison | None, excerpts: Excerpts) -> Page:
    """The page of a run. Pure, but for the transcripts that `excerpts` reads."""
    anchors = {cell.id: f"cell-{number}" for number, cell in enumerate(run.cells, 1)}
    cells = {cell.id: cell for cell in run.cells}
    cell_kinds = {change.cell: change.kind for change in comparison.cells} if comparison else {}
    check_kinds = {(c.cell, c.check): c.kind for c in comparison.checks} if comparison else {}
    status, wrong = exit_status(run), told(run)
    counts = outcomes(run)
    return Page(
        run=run,
        status=status,
        meaning=meaning(run),
        seconds=wall_seconds(run),
        verdicts=tuple(verdicts(run).most_common()),
        outcomes=tuple((outcome, counts[outcome]) for outcome in Outcome if counts[outcome]),
        cached=sum(step.cached for step in run.steps),
        grid=_grid(run, anchors, cell_kinds),
        failures=tuple(
            FailureView(
                failure,
                excerpts.of(cells[failure.cell], failure),
                check_kinds.get((failure.cell, failure.check)) if failure.check else cell_kinds.get(failure.cell),
                tuple((cell, anchors[cell]) for cell in (failure.cell, *(() if failure.check else failure.also))),
            )
            for failure in wrong[:_MOST_FAILURES]
        ),
        more_failures=max(0, len(wrong) - _MOST_FAILURES),
        fixed=fixed(run),
        cells=_cells(run, anchors, excerpts),
        changes=_changes(comparison) if comparison else None,
    )


def _grid(run: RunRecord, anchors: Mapping[str, str], kinds: Mapping[str, Kind]) -> Grid:
    """Variants down, shapes across, both in the order of the matrix."""
    names = ("release", "toolchain", "stack_protector", "kernel")
    every: list[CellRecord | RefusalRecord] = [*run.cells, *run.refusals]
    varied = [
        name
        for name in names
        if name in ("toolchain", "stack_protector") or len({one.attributes.get(name) for one in every}) > 1
    ]
    tiles: dict[tuple[object, ...], dict[str, Tile]] = {}
    shapes: dict[str, None] = {}
    for one in every:
        variant = tuple(one.attributes.get(name, "") for name in names)
        shape = str(one.attributes.get("shape", ""))
        shapes[shape] = None
        tile = (
            Tile(cell=one, anchor=anchors[one.id], change=kinds.get(one.id))
            if isinstance(one, CellRecord)
            else Tile(refusal=one)
        )
        tiles.setdefault(variant, {})[shape] = tile
    return Grid(
        tuple(shapes),
        tuple(
            Row(
                _label(dict(zip(names, variant, strict=True)), varied),
                tuple(row.get(shape, Tile()) for shape in shapes),
            )
            for variant, row in tiles.items()
        ),
    )


def _label(attributes: Mapping[str, object], varied: list[str]) -> str:
    words = []
    for name in varied:
        value = str(attributes[name])
        words.append({"on": "+ ssp", "off": "no ssp"}.get(value, f"ssp {value}") if "protector" in name else value)
    return " · ".join(words)


def _cells(run: RunRecord, anchors: Mapping[str, str], excerpts: Excerpts) -> tuple[CellView, ...]:
    steps = {step.id: step for step in run.steps}
    longest = max((cell.boot_seconds for cell in run.cells), default=0.0)
    list_passes = sum(len(cell.checks) for cell in run.cells) <= _MOST_PASSES
    scales: dict[tuple[str, str], list[float]] = {}
    for cell in run.cells:
        for check in cell.checks:
            for sample in check.samples:
                scales.setdefault((sample.metric, sample.unit), []).extend(sample.values)
    found = []
    for cell in run.cells:
        build, boot, suites = phases(run, cell)
        shown = [
            check for check in cell.checks if list_passes or check.outcome is not Outcome.PASS or check.samples
        ]
        found.append(
            CellView(
                cell=cell,
                anchor=anchors[cell.id],
                build=build,
                boot=boot,
                suites=suites,
                steps=tuple(steps[id] for id in cell.steps if id in steps),
                stages=timeline(cell.stages, longest),
                checks=tuple(_check(check, scales) for check in shown),
                hidden=len(cell.checks) - len(shown),
                repeat=cell_line(run, cell.id),
                logs=excerpts.logs(cell),
            )
        )
    return tuple(found)


def _check(check: CheckResult, scales: Mapping[tuple[str, str], list[float]]) -> CheckView:
    # One scale for a metric in all cells, so that cells can be compared by eye.
    return CheckView(
        check,
        tuple(
            SampleView(sample, strip(sample.values, span(scales[sample.metric, sample.unit])))
            for sample in check.samples
            if sample.values
        ),
    )


def _changes(comparison: Comparison) -> Changes:
    every: list[CellChange | CheckChange] = [*comparison.cells, *comparison.checks]
    order = (Kind.NEW_FAILURE, Kind.FIXED, Kind.STILL_FAILING, Kind.VANISHED, Kind.APPEARED, Kind.CHANGED)
    groups = ((kind, tuple(change for change in every if change.kind is kind)) for kind in order)
    moved = [*comparison.metrics_of(Trend.WORSE), *comparison.metrics_of(Trend.BETTER)]
    return Changes(
        against=comparison.against,
        groups=tuple((kind, changes) for kind, changes in groups if changes),
        metrics=tuple(_metric(change) for change in moved),
        compared=len(comparison.metrics),
        few=len(comparison.metrics_of(Trend.TOO_FEW)),
        needed=samples_needed(len(comparison.metrics)),
        known=len(comparison.checks_of(Kind.KNOWN)),
    )


def _metric(change: MetricChange) -> MetricView:
    scale = span(*change.samples)
    before, after = change.samples
    return MetricView(change, strip(before, scale), strip(after, scale))
