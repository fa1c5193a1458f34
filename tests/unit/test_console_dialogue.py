"""Dialogues: what is waited for is found, over any amount of noise, and a crash ends the wait."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfbuild.console.dialogue import READ, Dialogue
from dfbuild.console.monitor import Monitor
from dfbuild.console.protocol import ConsoleClosed
from dfbuild.console.reader import ConsoleReader
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, GuestCrashed, UsageError
from dfbuild.releases import load


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[ConsoleReader, socket.socket]]:
    ours, guest = socket.socketpair()
    crashes = load("reference").console.crashes
    reader = ConsoleReader(ours, tmp_path / "console.log", Monitor(crashes), power_on=time.monotonic())
    reader.start()
    yield reader, guest
    guest.close()
    reader.close()


def soon(seconds: float = 10.0) -> Deadline:
    return Deadline.after(seconds)


def test_ask_and_answer(pair: tuple[ConsoleReader, socket.socket]) -> None:
    console, guest = pair
    dialogue = Dialogue(console, 0)
    guest.sendall(b"\r\nhost login: ")
    heard = dialogue.expect(["Password:", r"^(\w+) login: "], soon())
    assert (heard.index, heard.match[1]) == (1, b"host")
    assert (heard.since, heard.start, heard.end) == (0, 2, 14)
    assert dialogue.position == 14
    dialogue.send_line("root", soon())
    assert guest.recv(100) == b"root\r"
    guest.sendall(b"root\r\n# ")
    heard = dialogue.expect([b"# "], soon())
    assert console.read(heard.since, heard.start - heard.since) == b"root\r\n"


def test_two_matches_in_one_read_are_two_answers(pair: tuple[ConsoleReader, socket.socket]) -> None:
    console, guest = pair
    dialogue = Dialogue(console, 0)
    guest.sendall(b"one two one two")
    console.wait(14, soon())
    assert [dialogue.expect(["one", "two"], soon()).start for _ in range(4)] == [0, 4, 8, 12]


def test_a_console_that_never_falls_silent_outlives_no_deadline(
    pair: tuple[ConsoleReader, socket.socket],
) -> None:
    console, guest = pair

    def print_on() -> None:
        with contextlib.suppress(OSError):
            while True:
                guest.sendall(b"and on and on\r\n" * 1000)

    threading.Thread(target=print_on, daemon=True).start()
    with pytest.raises(DeadlineExceeded, match="never"):
        Dialogue(console, 0).expect(["never"], soon(0.5))


def test_it_begins_now_unless_told(pair: tuple[ConsoleReader, socket.socket]) -> None:
    console, guest = pair
    guest.sendall(b"# ")
    console.wait(1, soon())
    dialogue = Dialogue(console)
    with pytest.raises(DeadlineExceeded, match="'# '"):
        dialogue.expect(["# "], soon(0.05))
    guest.sendall(b"# ")
    assert dialogue.expect(["# "], soon()).start == 2


def test_a_late_answer_is_still_heard_after_a_missed_deadline(pair: tuple[ConsoleReader, socket.socket]) -> None:
    console, guest = pair
    dialogue = Dialogue(console)
    guest.sendall(b"ans")
    console.wait(0, soon())
    with pytest.raises(DeadlineExceeded):
        dialogue.expect(["answer"], soon(0.05))
    guest.sendall(b"wer")
    assert dialogue.expect(["answer"], soon()).start == 0


def test_a_crash_ends_it(pair: tuple[ConsoleReader, socket.socket]) -> None:
    console, guest = pair
    guest.sendall(b"[    1.000000] Kernel panic - not syncing: x\r\n")
    with pytest.raises(GuestCrashed):
        Dialogue(console).expect(["never"], soon())


def test_the_end_ends_it(pair: tuple[ConsoleReader, socket.socket]) -> None:
    console, guest = pair
    guest.sendall(b"bye")
    guest.close()
    with pytest.raises(ConsoleClosed):
        Dialogue(console, 0).expect(["never"], soon())


def test_a_long_match_across_reads_is_found_behind_much_noise(pair: tuple[ConsoleReader, socket.socket]) -> None:
    console, guest = pair
    dialogue = Dialogue(console, 0)
    noise = b"noise and more noise\r\n" * 500_000
    answer = b"<" + b"a" * (READ - 2) + b">"
    threading.Thread(target=guest.sendall, args=(noise + answer + b"tail",), daemon=True).start()
    heard = dialogue.expect([rb"<a{%d}>" % (READ - 2)], soon(60))
    assert heard.start == len(noise)
    assert dialogue._stream._before.tell() < 1 << 20


def test_typing_is_paced_by_the_echo(pair: tuple[ConsoleReader, socket.socket]) -> None:
    console, guest = pair
    text = "echo a line that is longer than a UART's FIFO"
    pieces = []

    def terminal() -> None:
        while not pieces or not pieces[-1].endswith(b"\r"):
            pieces.append(guest.recv(4096))
            guest.sendall(pieces[-1])

    echo = threading.Thread(target=terminal)
    echo.start()
    Dialogue(console).send_line(text, soon(), echo=True)
    echo.join(10)
    assert b"".join(pieces) == text.encode() + b"\r"
    assert max(map(len, pieces)) <= 17


@pytest.mark.parametrize("pattern", ["", "a*", f"x{{{READ + 1}}}", "("])
def test_patterns_that_cannot_work_are_refused(pair: tuple[ConsoleReader, socket.socket], pattern: str) -> None:
    with pytest.raises(UsageError, match="pattern"):
        Dialogue(pair[0]).expect([pattern], soon())
