"""What happens during a run, as values: for whoever shows progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dfbuild.model import CheckResult, Verdict


@dataclass(frozen=True, slots=True)
class RunBegan:
    """`steps` and `cells` are how many there will be."""

    run: str
    steps: int
    cells: int


@dataclass(frozen=True, slots=True)
class StepBegan:
    step: str


@dataclass(frozen=True, slots=True)
class StepSaid:
    step: str
    line: str


@dataclass(frozen=True, slots=True)
class StepEnded:
    step: str
    verdict: Verdict
    title: str
    seconds: float
    cached: bool = False


@dataclass(frozen=True, slots=True)
class CellBegan:
    cell: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class CellStage:
    cell: str
    stage: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CheckBegan:
    cell: str
    check: str


@dataclass(frozen=True, slots=True)
class CheckEnded:
    cell: str
    result: CheckResult


@dataclass(frozen=True, slots=True)
class CellEnded:
    cell: str
    verdict: Verdict
    title: str
    seconds: float
    retried: bool = False
    """True when this attempt will be followed by another."""


Event = RunBegan | StepBegan | StepSaid | StepEnded | CellBegan | CellStage | CheckBegan | CheckEnded | CellEnded
Listener = Callable[[Event], None]
