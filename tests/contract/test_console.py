"""One contract for every `Console`: the one that a process holds, and the one that another process attached to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes import FakeGuest

from dfbuild.console.protocol import Console, ConsoleClosed
from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, GuestCrashed
from dfbuild.model import Cell, Shape, Variant
from dfbuild.releases import load
from dfbuild.session import attach, boot

UP = b"[    0.000000] Linux version 6.1\r\n\r\nreference login: "
PANIC = b"\r\n[   12.345678] Kernel panic - not syncing: Fatal exception\r\nand more\r\n"
CELL = Cell(Variant("reference", "gcc-12", "on", "smp"), Shape("up"))


@dataclass
class Case:
    console: Console
    guest: FakeGuest


@pytest.fixture(params=["held", "attached"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    guest = FakeGuest(UP)
    with boot(guest, load("reference"), CELL, tmp_path / "run", soon()) as held:
        if request.param == "held":
            yield Case(held.console, guest)
        else:
            with attach(held.manifest_path) as attached:
                yield Case(attached.console, guest)


def soon(seconds: float = 20.0) -> Deadline:
    return Deadline.after(seconds)


def test_what_was_printed_is_there(case: Case) -> None:
    assert case.console.size == len(UP)
    assert case.console.read(0) == UP
    assert case.console.read(2, 5) == UP[2:7]
    assert not case.console.closed and case.console.crash is None


def test_reading_never_waits(case: Case) -> None:
    assert case.console.read(len(UP)) == b""
    assert case.console.read(10**9) == b""


def test_growth_wakes(case: Case) -> None:
    threading.Timer(0.05, case.guest.print, (b"root",)).start()
    size = case.console.wait(len(UP), soon())
    while size < len(UP) + 4:
        size = case.console.wait(size, soon())
    assert case.console.read(len(UP)) == b"root"
    assert case.console.wait(0, soon()) == len(UP) + 4


def test_readers_do_not_steal_from_each_other(case: Case) -> None:
    data = b"".join(b"line %d\r\n" % n for n in range(20_000))
    got: list[bytes] = []

    def follow() -> None:
        offset, parts = len(UP), b""
        while len(parts) < len(data):
            case.console.wait(offset, soon())
            part = case.console.read(offset)
            parts += part
            offset += len(part)
        got.append(parts)

    readers = [threading.Thread(target=follow) for _ in range(3)]
    for reader in readers:
        reader.start()
    case.guest.print(data)
    for reader in readers:
        reader.join(20)
    assert got == [data] * 3


def test_waiting_ends_with_the_deadline(case: Case) -> None:
    with pytest.raises(DeadlineExceeded):
        case.console.wait(len(UP), soon(0.05))


def test_waiting_is_cancelled(case: Case) -> None:
    cancel = Cancel()
    threading.Timer(0.05, cancel.set).start()
    with pytest.raises(Cancelled):
        case.console.wait(len(UP), Deadline.after(20, cancel=cancel))


def test_a_crash_ends_the_wait_with_its_excerpt(case: Case) -> None:
    threading.Timer(0.05, case.guest.print, (PANIC,)).start()
    with pytest.raises(GuestCrashed) as caught:
        case.console.wait(10**9, soon())
    report = caught.value.report
    assert report.title == "panic: Fatal exception"
    assert report.offset == len(UP) + 2
    assert report.excerpt.endswith("Fatal exception\nand more")
    assert case.console.crash == report
    with pytest.raises(GuestCrashed):
        case.console.wait(0, soon())
    assert case.console.read(len(UP)) == PANIC


def test_the_end(case: Case) -> None:
    case.guest.print(b"bye")
    case.guest.end()
    with pytest.raises(ConsoleClosed):
        case.console.wait(10**9, soon())
    assert case.console.closed
    assert case.console.read(len(UP)) == b"bye"
    assert case.console.wait(0, soon()) == len(UP) + 3
    with pytest.raises(ConsoleClosed):
        case.console.send(b"x", soon())


def test_typing(case: Case) -> None:
    case.console.send(b"root\r", soon())
    assert case.guest.typed(5) == b"root\r"
    every_byte = bytes(range(256)) * 200
    typist = threading.Thread(target=case.console.send, args=(every_byte, soon()))
    typist.start()
    assert case.guest.typed(len(every_byte)) == every_byte
    typist.join(20)


def test_typing_at_a_guest_that_does_not_read_ends_with_the_deadline(case: Case) -> None:
    with pytest.raises(DeadlineExceeded):
        case.console.send(b"z" * (4 << 20), soon(0.2))
    case.guest.print(b"!")
    assert case.console.wait(len(UP), soon()) == len(UP) + 1
