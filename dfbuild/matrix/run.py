"""Run a plan: builds and guests as a DAG, every result journalled as it comes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from dfbuild.build.recipe import Artefact, Recipe
from dfbuild.build.store import BUILD_SECONDS
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed, Cancelled, DeadlineExceeded, InfraError
from dfbuild.guest.xen.argv import host_memory
from dfbuild.matrix.cell import run_cell
from dfbuild.matrix.defect import defect
from dfbuild.matrix.events import CellBegan, CellEnded, RunBegan, StepBegan, StepEnded, StepSaid
from dfbuild.matrix.job import Job
from dfbuild.matrix.plan import Plan
from dfbuild.matrix.schedule import Cost, End, Scheduler, Task
from dfbuild.model import Cell, Verdict
from dfbuild.results.records import StepRecord

TRIES = 2
"""How often a cell is run as long as only the infrastructure fails."""
_OVERHEAD_MIB = 64
"""What QEMU itself takes beside the guest's memory: measured at 40 to 60 MiB."""


class PlanRun:
    """A plan being run. `done` and `failed` are filled by the tasks' threads, each under its own id."""

    def __init__(self, job: Job, plan: Plan, cells: Collection[str]) -> None:
        self._job, self._plan = job, plan
        self._cells = [cell for cell in plan.cells if cell.id in cells]
        self._done: dict[str, Artefact] = {}
        self._failed: dict[str, tuple[Verdict, str]] = {}

    def run(self, limit: Cost) -> None:
        """Run everything to its end. Raises `Cancelled`, and `InfraError` when results can't be recorded."""
        needed = {recipe.id: recipe for cell in self._cells for recipe in self._walk(cell)}
        tasks = [self._step(self._plan.recipes[id]) for id in needed]
        tasks += [self._guest(rank, cell, limit.cpus) for rank, cell in enumerate(self._cells)]
        self._job.listener(RunBegan(self._job.run, len(needed), len(self._cells)))
        Scheduler(tasks, limit, self._job.cancel).run()

    # ── builds ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _step(self, recipe: Recipe) -> Task:
        def blocked(culprit: str) -> None:
            self._failed[recipe.id] = self._failed[culprit]

        # Nobody says when that guest has booted, and a build in it may take hours: it holds no boot's place.
        cost = Cost(cpus=1)
        if recipe.guest and self._job.artefacts.find(recipe) is None:
            cost = Cost(memory=recipe.guest + _OVERHEAD_MIB, cpus=1, guests=1)
        return Task(
            id=recipe.id,
            cost=cost,
            run=lambda booted: End.SUCCEEDED if self._make(recipe) else End.FAILED,
            blocked=blocked,
            needs=frozenset(need.id for need in recipe.needs),
            rank=-1,  # before guests: builds are what the others wait for
        )

    def _make(self, recipe: Recipe) -> bool:
        """Find or make the artefact and record how that went; True if it is there."""
        job, name, start = self._job, label(recipe), time.monotonic()
        record = StepRecord(recipe.id, recipe.kind, recipe.name, recipe.key, Verdict.PASS)
        artefact = job.artefacts.find(recipe)
        if artefact is not None:
            return self._ended(recipe, replace(record, cached=True, facts=artefact.facts), artefact)
        job.listener(StepBegan(name))
        # The recipe's own minutes are the store's to count: what takes longer than they say has failed.
        deadline = Deadline.after(BUILD_SECONDS, what=name, cancel=job.cancel)
        needs = [self._done[need.id] for need in recipe.needs]
        try:
            artefact = job.artefacts.make(recipe, needs, deadline, lambda line: job.listener(StepSaid(name, line)))
            record = replace(record, facts=artefact.facts)
        except BuildFailed as error:
            log = str(error.log or "")
            record = replace(record, verdict=Verdict.BUILD_FAIL, title=error.message, tail=error.tail, log=log)
        except (InfraError, DeadlineExceeded) as error:
            record = replace(record, verdict=Verdict.INFRA, title=str(error))
        except Cancelled:
            raise
        except Exception as error:  # noqa: BLE001 - one step's misfortune is not that of those which do not need it
            place = job.artefacts.logs(recipe) / "step.log"
            record = replace(record, verdict=Verdict.INFRA, title=defect(error, place), log=str(place))
        return self._ended(recipe, replace(record, seconds=time.monotonic() - start), artefact)

    def _ended(self, recipe: Recipe, record: StepRecord, artefact: Artefact | None) -> bool:
        name = label(recipe)
        if artefact is not None:
            self._done[recipe.id] = artefact
        else:
            self._failed[recipe.id] = (record.verdict, f"{name}: {record.title}")
        self._job.results.record_step(self._job.run, record)
        self._job.listener(StepEnded(name, record.verdict, record.title, record.seconds, record.cached))
        return artefact is not None

    # ── guests ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _guest(self, rank: int, cell: Cell, host_cpus: int) -> Task:
        image, host = self._plan.images[cell.id], self._plan.hosts.get(cell.id)
        steps = tuple(recipe.id for recipe in self._walk(cell))
        memory = host_memory(cell.shape.memory) if cell.shape.on_xen else cell.shape.memory

        turns = itertools.count(1)

        def run(booted: Callable[[], None]) -> End:
            last = next(turns) >= TRIES
            verdict = run_cell(self._job, cell, self._done[image.id], host, steps, booted, last=last)
            if verdict is Verdict.INFRA and not last:
                return End.AGAIN
            return End.SUCCEEDED if verdict in (Verdict.PASS, Verdict.SKIP) else End.FAILED

        return Task(
            id=cell.id,
            # CPUs that wait for one another (IPIs, TLB shoot-downs) lose more than half their speed beside a build.
            cost=Cost(memory=memory + _OVERHEAD_MIB, cpus=min(cell.shape.cpus, host_cpus), guests=1, boots=1),
            run=run,
            blocked=lambda culprit: self._blocked(cell, steps, culprit),
            needs=frozenset(need.id for need in self._plan.needs(cell)),
            rank=rank,
        )

    def _walk(self, cell: Cell) -> Iterator[Recipe]:
        """All recipes that `cell` needs, needs first, each once."""
        found = {recipe.id: recipe for need in self._plan.needs(cell) for recipe in need.walk()}
        return iter(found.values())

    def _blocked(self, cell: Cell, steps: tuple[str, ...], culprit: str) -> None:
        verdict, title = self._failed[culprit]
        attempt = self._job.results.begin_cell(self._job.run, cell.id, steps)
        self._job.listener(CellBegan(cell.id))
        self._job.results.end_cell(attempt, verdict, title=title)
        self._job.listener(CellEnded(cell.id, verdict, title, 0.0))


def label(recipe: Recipe) -> str:
    """A recipe as people see it."""
    return f"{recipe.kind} {recipe.name}" if recipe.kind != recipe.name else recipe.name
