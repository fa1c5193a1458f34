"""A crashed kernel's debugger is asked for its trace, and a guest without one is kept waiting for nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeGuest

from dfbuild.console.monitor import Monitor
from dfbuild.console.reader import ConsoleReader
from dfbuild.deadline import Deadline
from dfbuild.errors import GuestCrashed
from dfbuild.model import Cell, Shape, Variant
from dfbuild.releases import load
from dfbuild.releases.schema import Debugger
from dfbuild.session import boot
from dfbuild.session.debugger import trace

DDB = Debugger(prompt="db> ", trace="trace\r")
CRASH = b"Fatal trap 12: page fault while in kernel mode\r\ninstruction pointer\t= 0x8:0xffffffff80001234\r\n"
TRACE = b"trace\r\nculprit() at culprit+0x34 0xffffffff80001234 \r\ndb> "
CELL = Cell(Variant("master", "gcc80", "strong", "nx1"), Shape("smp1"))


@pytest.fixture
def line(tmp_path: Path) -> Iterator[tuple[ConsoleReader, socket.socket]]:
    ours, guest = socket.socketpair()
    reader = ConsoleReader(ours, tmp_path / "console.log", Monitor(()), power_on=0.0)
    reader.start()
    yield reader, guest
    guest.close()
    reader.close()


def answer(guest: socket.socket, asked: list[bytes]) -> None:
    asked.append(guest.recv(100))
    guest.sendall(TRACE)


def test_it_is_asked_and_answers(line: tuple[ConsoleReader, socket.socket]) -> None:
    console, guest = line
    asked: list[bytes] = []
    threading.Thread(target=answer, args=(guest, asked), daemon=True).start()
    guest.sendall(CRASH + b"db> ")
    assert trace(console, DDB, Deadline.after(20))
    assert asked == [b"trace\r"] and console.read(0) == CRASH + b"db> " + TRACE


@pytest.mark.parametrize("last", [b"", b"db> and on", b"db> "], ids=["no prompt", "no more", "no answer"])
def test_where_there_is_none_nothing_is_waited_for(
    line: tuple[ConsoleReader, socket.socket], last: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfbuild.session.debugger._TRACE_SECONDS", 0.3)
    console, guest = line
    guest.sendall(CRASH + last)
    assert not trace(console, DDB, Deadline.after(20))


def test_a_console_that_has_ended_is_not_waited_for(line: tuple[ConsoleReader, socket.socket]) -> None:
    console, guest = line
    guest.sendall(CRASH + b"db> ")
    guest.shutdown(socket.SHUT_RDWR)
    assert not trace(console, DDB, Deadline.after(20))


def test_a_crash_is_told_with_the_trace(tmp_path: Path) -> None:
    guest = FakeGuest(b"/\x08" + CRASH + b"db> ")

    def ask() -> None:
        guest.typed(len(DDB.trace))
        guest.print(TRACE)

    threading.Thread(target=ask, daemon=True).start()
    with pytest.raises(GuestCrashed, match="fatal trap 12: page fault") as caught:
        boot(guest, load("master"), CELL, tmp_path, Deadline.after(20))
    assert caught.value.report.excerpt.endswith("culprit+0x34 0xffffffff80001234 \ndb> ")
    assert not (tmp_path / "diagnosis.txt").exists()


def test_a_crash_without_a_trace_has_what_the_cpus_did(tmp_path: Path) -> None:
    guest = FakeGuest(b"/\x08" + CRASH)
    with pytest.raises(GuestCrashed):
        boot(guest, load("master"), CELL, tmp_path, Deadline.after(20))
    assert guest.diagnosis in (tmp_path / "diagnosis.txt").read_text()
