"""How a cell's suites get into its guest, and what becomes of a cell whose guest or suites end in some way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeGuest

from dfbuild.build.recipe import Artefact
from dfbuild.build.store import ArtefactStore
from dfbuild.deadline import Cancel
from dfbuild.errors import InfraError
from dfbuild.guest.accel import Accel
from dfbuild.guest.protocol import Exit
from dfbuild.matrix import cell as module
from dfbuild.matrix.cell import run_cell, way
from dfbuild.matrix.job import Job
from dfbuild.model import Cell, CheckResult, Media, Outcome, Shape, StepKind, Variant, Verdict
from dfbuild.releases import load
from dfbuild.releases.schema import SshShell
from dfbuild.results.records import CellRecord, RunInfo
from dfbuild.results.store import Store
from dfbuild.suites.events import EndEvent, Event, ResultEvent
from dfbuild.workspace import Workspace

OLD = SshShell(kex_algorithms=("diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1"))
ANCIENT = SshShell(kex_algorithms=("none-of-ours",), ciphers=("aes128-ctr", "blowfish-cbc"))


@pytest.mark.parametrize("asked", ["ssh", "serial"])
def test_as_asked_where_it_can_be(asked: str) -> None:
    assert way(asked, OLD, answers=True) == (asked, "")


def test_over_the_console_where_nobody_answers() -> None:
    via, why = way("ssh", OLD, answers=False)
    assert via == "serial" and "no SSH server" in why


def test_over_the_console_where_we_have_no_language_in_common() -> None:
    via, why = way("ssh", ANCIENT, answers=True)
    assert via == "serial" and why.endswith("does not speak none-of-ours")


def test_a_release_without_ssh_is_not_asked_for_it_silently() -> None:
    assert way("ssh", None, answers=False) == ("ssh", "")


CELL = Cell(Variant("reference", "gcc-12", "on", "smp"), Shape("up"), ("security",))
UP = b"[    0.000000] Linux version 6.1\r\n\r\nreference login: "
PANIC = b"\r\n[    9.000000] Kernel panic - not syncing: x\r\n"
GOOD = ResultEvent(CheckResult("security/nx", Outcome.PASS))
Suites = Callable[[FakeGuest, Callable[[Event], None]], None]


class Target:
    def media(self, *_: object) -> Media:
        return Media()


def ran(suites: Suites, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> CellRecord:
    """`CELL` run on a guest that comes up, with `suites` in place of the real ones."""
    guests: list[FakeGuest] = []

    def create(*_: object) -> FakeGuest:
        guests.append(FakeGuest(UP))
        return guests[-1]

    def run_suites(manifest: Path, names: Any, via: str, deadline: Any, event: Any, log: Path, check: Any) -> int:
        suites(guests[-1], event)
        return 0

    monkeypatch.setattr(module, "create", create)
    monkeypatch.setattr(module, "run_suites", run_suites)
    target: Any = Target()
    with Store.open(workspace.database) as store:
        run = store.begin(RunInfo("test", "test.toml", "", ("dfbuild",), (CELL,)))
        job = Job(
            run=run, release=load("reference"), target=target, workspace=workspace,
            artefacts=ArtefactStore(workspace), results=store, accel=Accel("kvm"), cancel=Cancel(),
            listener=lambda event: None, via="ssh",
        )  # fmt: skip
        run_cell(job, CELL, Artefact(StepKind.IMAGE, "image", "key", workspace.root), None, (), lambda: None)
        (cell,) = store.run(run).cells
    return cell


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CellRecord]:
    return lambda suites, **more: ran(suites, Workspace(tmp_path), monkeypatch, **more)


def test_what_passes(cell: Callable[..., CellRecord]) -> None:
    found = cell(lambda guest, event: [event(GOOD), event(EndEvent())])
    assert (found.verdict, found.title) == (Verdict.PASS, "")


def test_a_panic_that_breaks_the_suites_is_a_panic(cell: Callable[..., CellRecord]) -> None:
    def suites(guest: FakeGuest, event: Callable[[Event], None]) -> None:
        event(GOOD)
        guest.print(PANIC)
        raise InfraError("the suites broke (pytest status 3)")

    found = cell(suites)
    assert (found.verdict, found.title) == (Verdict.PANIC, "panic: x")


def test_suites_that_break_by_themselves_say_nothing_of_the_guest(cell: Callable[..., CellRecord]) -> None:
    def suites(guest: FakeGuest, event: Callable[[Event], None]) -> None:
        raise InfraError("the suites broke (pytest status 3)")

    found = cell(suites)
    assert (found.verdict, found.title) == (Verdict.INFRA, "the suites broke (pytest status 3)")


def test_a_guest_that_resets_itself_behind_the_last_check_has_not_passed(cell: Callable[..., CellRecord]) -> None:
    def suites(guest: FakeGuest, event: Callable[[Event], None]) -> None:
        event(GOOD)
        event(EndEvent())
        guest._finish(Exit(0, "guest", "", "guest-reset"))

    found = cell(suites)
    assert (found.verdict, found.title) == (
        Verdict.PANIC, "the guest ended (guest-reset) while the suites ran"
    )  # fmt: skip


def test_a_hypervisor_that_fails_under_the_suites_says_nothing_of_the_guest(
    cell: Callable[..., CellRecord],
) -> None:
    found = cell(lambda guest, event: [event(GOOD), guest.end(-9)])
    assert found.verdict is Verdict.INFRA and "status -9" in found.title


@pytest.mark.parametrize(("outcome", "verdict"), [(Outcome.PASS, "INFRA"), (Outcome.FAIL, "TEST_FAIL")])
def test_too_little_time_for_all_checks_is_no_pass(
    cell: Callable[..., CellRecord], outcome: Outcome, verdict: str
) -> None:
    result = ResultEvent(CheckResult("security/nx", outcome))
    found = cell(lambda guest, event: [event(result), event(EndEvent(late=True))])
    assert found.verdict == verdict
    assert "the time for the suites was over" in found.title


def test_a_defect_of_ours_is_told_with_its_traceback(cell: Callable[..., CellRecord], tmp_path: Path) -> None:
    def suites(guest: FakeGuest, event: Callable[[Event], None]) -> None:
        raise ZeroDivisionError("what")

    found = cell(suites)
    assert found.verdict is Verdict.INFRA and "a defect of dfbuild: ZeroDivisionError: what" in found.title
    (log,) = tmp_path.glob("runs/**/defect.txt")
    assert "Traceback" in log.read_text()
