"""The console's reader: everything is recorded, a crash is known within a second, and nothing can hold it up."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import AT_ONCE

from dfbuild.console.monitor import Monitor
from dfbuild.console.protocol import ConsoleClosed
from dfbuild.console.reader import ConsoleReader
from dfbuild.console.transcript import Times
from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, GuestCrashed, InfraError
from dfbuild.releases import load

CRASHES = load("reference").console.crashes
PANIC = b"[   12.345678] Kernel panic - not syncing: Fatal exception\r\n"


class Line:
    """A reader and the guest's end of its stream."""

    def __init__(self, log: Path) -> None:
        ours, self.guest = socket.socketpair()
        self.reader = ConsoleReader(ours, log, Monitor(CRASHES), power_on=time.monotonic())
        self.reader.start()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path / "console.log")
    yield line
    line.guest.close()
    line.reader.close()


def soon(seconds: float = 10.0) -> Deadline:
    return Deadline.after(seconds)


def test_a_crash_ends_the_wait_within_a_second_with_its_excerpt(line: Line) -> None:
    line.guest.sendall(b"[   12.300000] fine so far\r\n")
    start = time.monotonic()
    line.guest.sendall(PANIC + b"[   12.345680] CPU: 0 PID: 1\r\n[   12.345690] Call Trace:\r\n")
    with pytest.raises(GuestCrashed) as caught:
        line.reader.wait(10**9, soon())
    assert time.monotonic() - start < AT_ONCE
    assert caught.value.report.title == "panic: Fatal exception"
    assert caught.value.report.excerpt.splitlines() == [
        "[   12.345678] Kernel panic - not syncing: Fatal exception",
        "[   12.345680] CPU: 0 PID: 1",
        "[   12.345690] Call Trace:",
    ]
    assert line.reader.crash == caught.value.report


def test_a_crash_that_never_goes_quiet_is_known_at_once(line: Line) -> None:
    stop = threading.Event()
    start = time.monotonic()

    def print_on() -> None:
        line.guest.sendall(PANIC)
        while not stop.wait(0.01):
            line.guest.sendall(b"[   12.500000] and on and on\r\n")

    printer = threading.Thread(target=print_on)
    printer.start()
    try:
        with pytest.raises(GuestCrashed):
            line.reader.wait(10**9, soon())
        assert time.monotonic() - start < AT_ONCE
    finally:
        stop.set()
        printer.join()


def test_a_crash_without_a_line_end_is_known(line: Line) -> None:
    line.guest.sendall(PANIC.rstrip())
    with pytest.raises(GuestCrashed):
        line.reader.wait(10**9, soon())


def test_a_crash_in_the_last_breath_is_known(line: Line) -> None:
    line.guest.sendall(PANIC.rstrip())
    line.guest.close()
    with pytest.raises(GuestCrashed):
        line.reader.wait(10**9, soon())


def test_settled_waits_for_the_monitors_last_word(line: Line) -> None:
    line.guest.sendall(b"x")
    line.reader.wait(0, soon())
    assert line.reader.settled(soon()) is None
    line.guest.sendall(b"\n" + PANIC.rstrip())
    line.reader.wait(1, soon())
    crash = line.reader.settled(soon())
    assert crash is not None and crash.title == "panic: Fatal exception"


@pytest.mark.parametrize("crashed", [False, True])
def test_a_line_that_never_ends_is_judged_as_it_stands(line: Line, crashed: bool) -> None:
    stop = threading.Event()

    def print_on() -> None:
        line.guest.sendall(PANIC.rstrip() if crashed else b"dots: ")
        while not stop.wait(0.02):
            line.guest.sendall(b".")

    printer = threading.Thread(target=print_on)
    printer.start()
    try:
        line.reader.wait(20, soon())
        start = time.monotonic()
        found = line.reader.settled(soon())
        assert time.monotonic() - start < AT_ONCE
    finally:
        stop.set()
        printer.join()
    assert (found is not None) is crashed


def test_rearmed_it_watches_again(line: Line) -> None:
    line.guest.sendall(PANIC)
    with pytest.raises(GuestCrashed):
        line.reader.wait(10**9, soon())
    line.reader.rearm()
    assert line.reader.crash is None
    assert line.reader.wait(0, soon()) == len(PANIC)
    line.guest.sendall(PANIC)
    with pytest.raises(GuestCrashed) as caught:
        line.reader.wait(10**9, soon())
    assert caught.value.report.offset == len(PANIC)


def test_an_idle_console_costs_nothing(line: Line) -> None:
    line.guest.sendall(b"login: ")
    line.reader.wait(0, soon())
    line.reader.settled(soon())
    assert line.reader._patience() is None


def test_a_guest_that_does_not_read_holds_up_only_the_sender(line: Line) -> None:
    with pytest.raises(DeadlineExceeded):
        line.reader.send(b"z" * (8 << 20), soon(0.2))
    line.guest.sendall(b"still recorded")
    assert line.reader.wait(0, soon()) == 14


def test_a_blocked_sender_learns_of_the_end(line: Line) -> None:
    threading.Timer(0.1, line.guest.close).start()
    with pytest.raises(ConsoleClosed):
        line.reader.send(b"z" * (8 << 20), soon())


def test_a_blocked_sender_is_cancelled(line: Line) -> None:
    cancel = Cancel()
    threading.Timer(0.1, cancel.set).start()
    with pytest.raises(Cancelled):
        line.reader.send(b"z" * (8 << 20), Deadline.after(10, cancel=cancel))


def test_a_waiter_is_cancelled(line: Line) -> None:
    cancel = Cancel()
    threading.Timer(0.1, cancel.set).start()
    with pytest.raises(Cancelled):
        line.reader.wait(0, Deadline.after(10, cancel=cancel))


def test_closing_records_what_was_already_printed(line: Line) -> None:
    line.guest.sendall(b"x" * 100_000)
    line.reader.close()
    assert line.reader.size == 100_000


def test_a_flooding_guest_cannot_keep_it_from_closing(line: Line) -> None:
    line.guest.setblocking(True)

    def flood() -> None:
        try:
            while True:
                line.guest.sendall(b"f" * 65536)
        except OSError:
            pass

    flooder = threading.Thread(target=flood)
    flooder.start()
    line.reader.wait(1 << 20, soon())
    line.reader.close()
    flooder.join(10)
    assert not flooder.is_alive()


def test_a_flood_is_recorded_byte_for_byte(line: Line) -> None:
    """200 MB, with a crash in the last line; 64 KiB of it at a time in memory, checked as a hash."""
    block = b"".join(b"flood %08d %s\r\n" % (n, b"!" * 80) for n in range(700))
    expected = hashlib.sha256()
    total = 0

    def flood() -> None:
        for _ in range(200_000_000 // len(block)):
            line.guest.sendall(block)
        line.guest.sendall(PANIC)
        line.guest.close()

    for _ in range(200_000_000 // len(block)):
        expected.update(block)
        total += len(block)
    expected.update(PANIC)
    start = time.monotonic()
    flooder = threading.Thread(target=flood)
    flooder.start()
    with pytest.raises(GuestCrashed) as caught:
        line.reader.wait(10**12, soon(120))
    seconds = time.monotonic() - start
    flooder.join()
    assert caught.value.report.offset == total
    with line.reader.path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == expected.digest()
    assert Times(line.reader.path).at(total).seconds <= seconds + 1


def test_a_full_disk_is_the_hosts_fault(tmp_path: Path) -> None:
    (tmp_path / "console.log").symlink_to("/dev/full")
    line = Line(tmp_path / "console.log")
    line.guest.sendall(b"something")
    with pytest.raises(InfraError, match="No space left"):
        line.reader.wait(0, soon())
    with pytest.raises(InfraError, match="No space left"):
        line.reader.send(b"x", soon())
    assert line.reader.closed
    line.guest.close()
    line.reader.close()


def test_a_transcript_that_cannot_be_made_is_the_hosts_fault(tmp_path: Path) -> None:
    ours, guest = socket.socketpair()
    with ours, guest, pytest.raises(InfraError, match="cannot record the console"):
        ConsoleReader(ours, tmp_path / "missing" / "console.log", Monitor(()), power_on=0.0)
