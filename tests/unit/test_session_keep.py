"""Guests kept up by name: what is up, what is not any more, and what a holder says. No virtual machines."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeGuest

from dfbuild.cli.guest import console
from dfbuild.cli.parser import build
from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import BootFailed, GuestCrashed, InfraError, UsageError
from dfbuild.guest.protocol import State
from dfbuild.model import Cell, Media, Shape, Variant
from dfbuild.releases import load
from dfbuild.runtime import runtime_directory
from dfbuild.session import attach, keep
from dfbuild.session.keep import Order, Progress, hold
from dfbuild.session.messages import Problem, dump, dump_manifest, parse
from dfbuild.workspace import Workspace

UP = b"[    0.000000] Linux version 6.1\r\n\r\nreference login: "
CELL = Cell(Variant("reference", "gcc-12", "on", "smp"), Shape("up"))


class Holder:
    """A holder in a thread of this process, with the lock that a holder has."""

    def __init__(self, root: Path, name: str) -> None:
        self.workspace = Workspace(root)
        self.guest = FakeGuest(UP, name=name)
        self.cancel = Cancel()
        self.said: list[Progress] = []
        self.up = threading.Event()
        self._order = Order(root, name, load("reference"), CELL, Media(), 20.0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        (self.workspace.guests / name).mkdir(parents=True)
        self._thread.start()
        assert self.up.wait(20)

    def _run(self) -> None:
        with keep._locked(self.workspace.guests / self._order.name):
            hold(self._order, self.guest, self.cancel, self._report)

    def _report(self, progress: Progress) -> None:
        self.said.append(progress)
        if progress.up:
            self.up.set()

    def join(self) -> bool:
        self._thread.join(20)
        return not self._thread.is_alive()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    holder = Holder(tmp_path, "one")
    yield holder
    holder.cancel.set()
    assert holder.join()


def test_a_held_guest_is_found(holder: Holder) -> None:
    assert keep.names(holder.workspace) == ("one",)
    with attach(keep.find(holder.workspace, "one")) as session:
        assert session.console.read(0) == UP
    assert [line.said.split()[0] for line in holder.said[:-1]] == ["kernel", "login"]


def test_a_guest_that_ends_while_they_are_listed_is_left_out(
    holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep, "names", lambda _: ("gone", "one"))
    assert [manifest.name for manifest in keep.manifests(holder.workspace)] == ["one"]


def test_its_console_is_followed_through_a_crash_to_its_end(
    holder: Holder, capsys: pytest.CaptureFixture[str]
) -> None:
    words = build().parse_args(["guest", "console", "one", "--follow", "--work", str(holder.workspace.root)])
    status: list[int] = []
    reader = threading.Thread(target=lambda: status.append(console(words)))
    reader.start()
    with attach(keep.find(holder.workspace, "one")) as session:
        holder.guest.print(b"\r\n[    9.000000] Kernel panic - not syncing: test\r\n")
        with pytest.raises(GuestCrashed):
            while True:
                session.console.wait(session.console.size, Deadline.after(20))
    holder.guest.print(b"db> \r\n")
    holder.guest.end()
    reader.join(20)
    assert status == [0]
    said = capsys.readouterr().out
    assert said.startswith("[    0.000000] Linux version") and said.index("not syncing: test") < said.index("db>")


def test_nothing_is_cleaned_away_below_it(holder: Holder) -> None:
    with pytest.raises(UsageError, match="at work"), holder.workspace.alone():
        pass
    holder.cancel.set()
    assert holder.join()
    with holder.workspace.alone():
        pass


def test_another_name_is_not(holder: Holder) -> None:
    with pytest.raises(UsageError, match="no guest is up as 'two'") as caught:
        keep.find(holder.workspace, "two")
    assert "one" in caught.value.hint


def test_a_taken_name_is_refused(holder: Holder) -> None:
    with pytest.raises(UsageError, match="up already"):
        keep.up(holder.workspace, "one", load("reference"), CELL, Media(), Deadline.after(5), print)
    with pytest.raises(UsageError, match="up already"), keep._locked(holder.workspace.guests / "one"):
        pass


def test_asking_does_not_take_the_lock(holder: Holder) -> None:
    directory = holder.workspace.guests / "other"
    directory.mkdir()
    with keep._locked(directory):
        assert keep._held(directory)
    assert not keep._held(directory)


def test_stop_ends_the_holder(holder: Holder) -> None:
    with attach(keep.find(holder.workspace, "one")) as session:
        session.stop(Deadline.after(20))
    assert holder.join()
    assert keep.names(holder.workspace) == ()


def test_the_guests_own_end_ends_the_holder(holder: Holder) -> None:
    holder.guest.end()
    assert holder.join()
    with pytest.raises(UsageError):
        keep.find(holder.workspace, "one")


def test_a_signal_ends_guest_and_holder(holder: Holder) -> None:
    holder.cancel.set()
    assert holder.join()
    assert holder.guest.state is State.ENDED


def test_what_a_killed_holder_leaves_is_cleaned_up(holder: Holder, tmp_path: Path) -> None:
    stale = holder.workspace.guests / "stale"
    stale.mkdir()
    sockets = runtime_directory("k")
    manifest = keep.find(holder.workspace, "one")
    (stale / "guest.json").write_bytes(dump_manifest(replace(manifest, control=sockets / "control")))
    (stale / "lock").touch()
    assert keep.names(holder.workspace) == ("one",)
    with pytest.raises(UsageError, match="no guest is up"):
        keep.find(holder.workspace, "stale")
    assert not (stale / "guest.json").exists() and not sockets.exists()


def test_a_guest_that_comes_up_is_not_taken_for_the_one_that_was_killed(holder: Holder) -> None:
    booting = holder.workspace.guests / "booting"
    booting.mkdir()
    (booting / "guest.json").write_bytes(dump_manifest(keep.find(holder.workspace, "one")))
    with keep._locked(booting):
        assert keep.names(holder.workspace) == ("one",)
        with pytest.raises(UsageError, match="no guest is up as 'booting'"):
            keep.down(holder.workspace, "booting", Deadline.after(1))
    assert holder.guest.state is not State.ENDED


def test_cleaning_up_removes_no_directory_but_a_guests(holder: Holder, tmp_path: Path) -> None:
    stale = holder.workspace.guests / "stale"
    precious = tmp_path / "precious"
    for directory in (stale, precious):
        directory.mkdir()
    manifest = replace(keep.find(holder.workspace, "one"), control=precious / "control")
    (stale / "guest.json").write_bytes(dump_manifest(manifest))
    with pytest.raises(UsageError):
        keep.find(holder.workspace, "stale")
    assert precious.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a b", "ü", "x" * 65, "a\n"])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="can't be a guest's name"):
        keep.find(Workspace(tmp_path), name)


def listen(*lines: bytes) -> list[str]:
    """What `up` makes of a holder that says `lines` and ends."""
    reading, writing = os.pipe()
    said: list[str] = []
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb", buffering=0) as pipe:
        for line in lines:
            pipe.write(line)
        pipe.close()
        keep._listen(reading, Deadline.after(5), said.append, Path("holder.log"))
    return said


def test_what_a_holder_says_is_passed_on() -> None:
    assert listen(dump(Progress("one")), dump(Progress("two")), dump(Progress(up=True))) == ["one", "two"]


def test_a_holders_problem_is_raised() -> None:
    with pytest.raises(BootFailed, match="it broke"):
        listen(dump(Progress("one")), dump(Progress(problem=Problem("BootFailed", "it broke"))))


def test_a_holder_that_dies_is_the_hosts_fault() -> None:
    with pytest.raises(InfraError, match="ended before"):
        listen(dump(Progress("one")))


def test_orders_cross_the_pipe() -> None:
    order = Order(Path("/w"), "n", load("reference"), CELL, Media(kernel=Path("/k"), append="a b"), 5.0)
    assert parse(Order, dump(order)) == order
