"""What is stored of a run, as frozen values: everything that a comparison or a report needs, and no database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from dfbuild.model import Cell, CheckResult, Outcome, Refusal, Sample, StageReached, StepKind, Verdict


def _now() -> datetime:
    return datetime.now(UTC)


class RunStatus(StrEnum):
    """A run that was killed stays `running`; nobody was left to say otherwise."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is known of a run before it starts. `cells` are all that it means to run, in order.

    `name` is the matrix's name; `command` dfbuild's own command line; `options` the words of it that a line which
    repeats a failure must have too (`("--via", "serial")`); `versions` of dfbuild, the hypervisor and the host.
    """

    name: str
    config_file: str
    config_text: str
    command: tuple[str, ...]
    cells: tuple[Cell, ...]
    options: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    started: datetime = field(default_factory=_now)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a cell; only INFRA and a killed run lead to a second one. Handed to every record call."""

    run: str
    cell: str
    number: int
    row: int


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One build step as it ended. `id` is the recipe's; `seconds` is 0 for a cached step.

    `facts` is JSON data (the ELF proof); `title` says what went wrong, `tail` are the last lines of `log`.
    """

    id: str
    kind: StepKind
    name: str
    key: str
    verdict: Verdict
    cached: bool = False
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    tail: str = ""
    log: str = ""


@dataclass(frozen=True, slots=True)
class CrashRecord:
    """A crash of the guest. `offset` is the transcript's byte at which it begins."""

    title: str
    signature: str
    offset: int
    excerpt: str = ""


@dataclass(frozen=True, slots=True)
class CellRecord:
    """A cell by its last attempt. `verdict` is None while it is unfinished (or was killed)."""

    id: str
    attributes: Mapping[str, str | int]
    suites: tuple[str, ...]
    verdict: Verdict | None
    title: str = ""
    """Why the verdict is what it is, in a line; the crash's title for a crash."""
    seconds: float = 0.0
    """Wall time from the attempt's beginning to its end."""
    attempt: int = 0
    """Number of the attempt that is shown, from 1; 0 when there was none."""
    accel: str = ""
    command: tuple[str, ...] = ()
    """The hypervisor's command line."""
    steps: tuple[str, ...] = ()
    """Ids of the build steps that it needed."""
    stages: tuple[StageReached, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    crash: CrashRecord | None = None

    @property
    def boot_seconds(self) -> float:
        """From power-on to the last boot stage that was reached."""
        return max((stage.seconds for stage in self.stages), default=0.0)

    @property
    def suite_seconds(self) -> float:
        return sum(check.duration for check in self.checks)

    def count(self, outcome: Outcome) -> int:
        return sum(check.outcome is outcome for check in self.checks)


@dataclass(frozen=True, slots=True)
class RefusalRecord:
    """A cell that was refused, with the reason and its evidence."""

    id: str
    attributes: Mapping[str, str | int]
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a comparison looks at, and nothing else: cheap to load for a run with many checks.

    `outcomes` are keyed by (cell, check), `samples` by (cell, check, metric).
    """

    run: str
    verdicts: Mapping[str, Verdict | None]
    outcomes: Mapping[tuple[str, str], Outcome]
    samples: Mapping[tuple[str, str, str], Sample]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A stored run with everything in it."""

    id: str
    name: str
    status: RunStatus
    started: datetime
    finished: datetime | None
    config_file: str
    config_text: str
    command: tuple[str, ...]
    options: tuple[str, ...]
    versions: Mapping[str, str]
    steps: tuple[StepRecord, ...]
    cells: tuple[CellRecord, ...]
    refusals: tuple[RefusalRecord, ...]
    idle: float = 0.0
    """Seconds in which nobody ran it, of one that was gone on with."""

    @property
    def left(self) -> tuple[CellRecord, ...]:
        """The cells to be run if it goes on: INFRA says nothing about one."""
        return tuple(cell for cell in self.cells if cell.verdict in (None, Verdict.INFRA))

    @property
    def snapshot(self) -> Snapshot:
        """What a comparison needs of it; the same as `Store.snapshot(id)`."""
        return Snapshot(
            run=self.id,
            verdicts={cell.id: cell.verdict for cell in self.cells},
            outcomes={(cell.id, check.check): check.outcome for cell in self.cells for check in cell.checks},
            samples={
                (cell.id, check.check, sample.metric): sample
                for cell in self.cells
                for check in cell.checks
                for sample in check.samples
            },
        )


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A line in the list of runs. `verdicts` counts cells; unfinished ones are in `unfinished`."""

    id: str
    name: str
    status: RunStatus
    started: datetime
    finished: datetime | None
    verdicts: Mapping[Verdict, int]
    unfinished: int
