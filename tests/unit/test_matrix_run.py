"""A plan being run, with real recipes and store, and guests that only say how they ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dfbuild.build.recipe import Artefact, Kitchen, Recipe
from dfbuild.build.store import ArtefactStore
from dfbuild.deadline import Cancel
from dfbuild.errors import BuildFailed, InfraError
from dfbuild.guest.accel import Accel
from dfbuild.matrix import run as run_module
from dfbuild.matrix.events import Event, StepEnded
from dfbuild.matrix.job import Job
from dfbuild.matrix.plan import plan
from dfbuild.matrix.run import PlanRun
from dfbuild.matrix.schedule import Cost, Scheduler, Task
from dfbuild.model import Cell, Media, Refusal, Shape, StepKind, Variant, Verdict
from dfbuild.releases import Release, load
from dfbuild.results.records import RunInfo, RunRecord
from dfbuild.results.store import Store
from dfbuild.workspace import Workspace

LIMIT = Cost(memory=4096, cpus=2, guests=2, boots=1)


class Target:
    """Worlds by toolchain, one kernel for all; `broken` toolchains fail as they are told."""

    def __init__(self, broken: Mapping[str, Exception] | None = None) -> None:
        self.broken = broken or {}
        self.made: list[str] = []
        self._kernel = self._recipe(StepKind.KERNEL, "kernel")

    def _recipe(self, kind: StepKind, name: str, *needs: Recipe) -> Recipe:
        def make(kitchen: Kitchen) -> Mapping[str, Any]:
            self.made.append(name)
            assert [need.name for need in kitchen.needs] == [need.name for need in needs]
            if name in self.broken:
                raise self.broken[name]
            (kitchen.directory / "what").write_text(name)
            return {"made": name}

        return Recipe(kind, name, {"n": name}, make, needs)

    def image(self, release: Release, cell: Cell, workspace: Workspace) -> Recipe:
        toolchain = cell.variant.toolchain
        world = self._recipe(StepKind.WORLD, toolchain)
        return self._recipe(StepKind.IMAGE, f"image-{toolchain}", self._kernel, world)

    def refuse(self, release: Release, cell: Cell) -> Refusal | None:
        return Refusal(cell, "no such toolchain") if cell.variant.toolchain == "cfront" else None

    def media(self, release: Release, cell: Cell, image: Artefact, workspace: Workspace) -> Media:
        return Media()


def cell(toolchain: str, shape: str) -> Cell:
    return Cell(Variant("reference", toolchain, "on", "smp"), Shape(shape))


def play(monkeypatch: pytest.MonkeyPatch, ends: Callable[[Cell, Artefact, bool], Verdict]) -> None:
    """Replace the guest's run: it ends at once, as `ends` says of cell, image, and whether it is the last run."""

    def run_cell(
        job: Job,
        cell: Cell,
        image: Artefact,
        host: Recipe | None,
        steps: tuple[str, ...],
        booted: Callable[[], None],
        *,
        last: bool,
    ) -> Verdict:
        verdict = ends(cell, image, last)
        attempt = job.results.begin_cell(job.run, cell.id, steps)
        booted()
        job.results.end_cell(attempt, verdict)
        return verdict

    monkeypatch.setattr(run_module, "run_cell", run_cell)


@pytest.fixture
def guests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the guest run by one that passes; the list says which cells ran."""
    ran: list[str] = []

    def passes(cell: Cell, image: Artefact, last: bool) -> Verdict:
        assert (image.path / "what").read_text() == f"image-{cell.variant.toolchain}"
        ran.append(cell.id)
        return Verdict.PASS

    play(monkeypatch, passes)
    return ran


def go(workspace: Workspace, target: Target, cells: list[Cell]) -> tuple[RunRecord, list[Event]]:
    events: list[Event] = []
    planned = plan(cells, [], target, load("reference"), workspace)
    with Store.open(workspace.database) as store:
        run = store.begin(RunInfo("test", "test.toml", "", ("dfbuild",), planned.cells, refusals=planned.refusals))
        job = Job(
            run=run,
            release=load("reference"),
            target=target,
            workspace=workspace,
            artefacts=ArtefactStore(workspace),
            results=store,
            accel=Accel("tcg", "test"),
            cancel=Cancel(),
            listener=events.append,
            via="ssh",
        )
        PlanRun(job, planned, {c.id for c in planned.cells}).run(LIMIT)
        store.finish(run)
        return store.run(run), events


def test_each_step_is_made_once_and_cached_the_next_time(tmp_path: Path, guests: list[str]) -> None:
    workspace, target = Workspace(tmp_path), Target()
    cells = [cell(t, s) for t in ("gcc-12", "clang-14") for s in ("up", "smp2")]
    first, _ = go(workspace, target, cells)
    assert sorted(target.made) == ["clang-14", "gcc-12", "image-clang-14", "image-gcc-12", "kernel"]
    assert sorted(guests) == sorted(c.id for c in cells)
    assert {c.verdict for c in first.cells} == {Verdict.PASS}

    second, events = go(workspace, target, cells)
    assert len(target.made) == 5, "nothing is made twice"
    assert all(step.cached for step in second.steps)
    assert [e.cached for e in events if isinstance(e, StepEnded)] == [True] * 5


@pytest.mark.parametrize("verdict", list(Verdict))
def test_what_only_the_infrastructure_failed_is_run_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: Verdict
) -> None:
    ran: list[bool] = []

    def ends(cell: Cell, image: Artefact, last: bool) -> Verdict:
        ran.append(last)
        return verdict

    play(monkeypatch, ends)
    record, _ = go(Workspace(tmp_path), Target(), [cell("gcc-12", "up")])
    assert ran == ([False, True] if verdict is Verdict.INFRA else [False])
    assert record.cells[0].verdict is verdict


def test_a_failed_build_fails_its_cells_and_no_others(tmp_path: Path, guests: list[str]) -> None:
    broken = BuildFailed("init.c does not compile", component="init", tail="error: oops")
    record, _ = go(
        Workspace(tmp_path), Target({"clang-14": broken}), [cell("gcc-12", "up"), cell("clang-14", "up")]
    )
    verdicts = {c.id: (c.verdict, c.title) for c in record.cells}
    assert verdicts[cell("gcc-12", "up").id][0] is Verdict.PASS
    verdict, title = verdicts[cell("clang-14", "up").id]
    assert verdict is Verdict.BUILD_FAIL
    assert "init.c does not compile" in title
    steps = {step.name: step for step in record.steps}
    assert steps["clang-14"].verdict is Verdict.BUILD_FAIL
    assert "oops" in steps["clang-14"].tail
    assert "image-clang-14" not in steps, "what stands on a failed step is not begun"


def test_our_own_failure_is_not_blamed_on_the_build(tmp_path: Path, guests: list[str]) -> None:
    record, _ = go(Workspace(tmp_path), Target({"kernel": InfraError("no space left")}), [cell("gcc-12", "up")])
    assert record.cells[0].verdict is Verdict.INFRA
    assert guests == []


def test_a_build_that_takes_too_long_is_the_builds_failure(tmp_path: Path, guests: list[str]) -> None:
    target = Target()

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        threading.Event().wait(kitchen.deadline.remaining())
        kitchen.deadline.check()
        raise AssertionError

    target._kernel = Recipe(StepKind.KERNEL, "kernel", {}, make, minutes=0.002)
    record, _ = go(Workspace(tmp_path), target, [cell("gcc-12", "up")])
    assert record.cells[0].verdict is Verdict.BUILD_FAIL
    assert "took longer than 0.002 minutes" in record.cells[0].title


def test_a_defect_costs_what_needs_it_and_nothing_else(tmp_path: Path, guests: list[str]) -> None:
    target = Target({"clang-14": ZeroDivisionError("what")})
    record, _ = go(Workspace(tmp_path), target, [cell("gcc-12", "up"), cell("clang-14", "up")])
    verdicts = {c.id: c.verdict for c in record.cells}
    assert verdicts == {cell("gcc-12", "up").id: Verdict.PASS, cell("clang-14", "up").id: Verdict.INFRA}
    (step,) = [step for step in record.steps if step.name == "clang-14"]
    assert "a defect of dfbuild: ZeroDivisionError: what" in step.title
    assert "Traceback" in Path(step.log).read_text()


def test_the_target_can_refuse(tmp_path: Path, guests: list[str]) -> None:
    record, _ = go(Workspace(tmp_path), Target(), [cell("cfront", "up"), cell("gcc-12", "up")])
    assert [r.reason for r in record.refusals] == ["no such toolchain"]
    assert len(record.cells) == 1


def test_a_guest_takes_as_many_of_the_hosts_cpus_as_it_has_and_no_more_than_there_are(
    tmp_path: Path, guests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    costs: dict[str, int] = {}

    class Recorder(Scheduler):
        def __init__(self, tasks: Sequence[Task], limit: Cost, cancel: Cancel) -> None:
            costs.update({task.id: task.cost.cpus for task in tasks if task.cost.guests})
            super().__init__(tasks, limit, cancel)

    monkeypatch.setattr(run_module, "Scheduler", Recorder)
    cells = [Cell(Variant("reference", "gcc-12", "on", "smp"), Shape(f"smp{n}", sockets=n)) for n in (1, 2, 4)]
    go(Workspace(tmp_path), Target(), cells)
    assert [costs[one.id] for one in cells] == [1, 2, LIMIT.cpus]
    assert len(guests) == 3
