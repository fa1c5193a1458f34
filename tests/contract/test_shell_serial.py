"""What only a console has: a login, others who print, and what others left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from patience import AT_ONCE
from pty_console import MESSAGES, PtyConsole

from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, GuestCrashed, UsageError
from dfbuild.model import Login
from dfbuild.releases.schema import SerialShell as SerialData
from dfbuild.releases.schema import Shell as ShellData
from dfbuild.shell import LoginRefused, ShellLost
from dfbuild.shell.serial import LARGEST_PUT, SerialShell


class CountingConsole(PtyConsole):
    """Remembers what was typed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.typed: list[bytes] = []
        self.hurts: list[tuple[bytes, bytes]] = []
        """What is to be printed otherwise, once each."""
        super().__init__(home, ["dash", "-i"])

    def print(self, data: bytes) -> None:
        for hurt in [pair for pair in self.hurts if pair[0] in data]:
            self.hurts.remove(hurt)
            data = data.replace(*hurt, 1)
        super().print(data)

    def send(self, data: bytes, deadline: Deadline) -> None:
        self.typed.append(data)
        super().send(data, deadline)


@pytest.fixture
def console(tmp_path: Path) -> Iterator[CountingConsole]:
    with closing(CountingConsole(tmp_path)) as console:
        yield console


def log_in(console: CountingConsole, data: ShellData | None = None, login: Login | None = None) -> SerialShell:
    data = data or ShellData(serial=SerialData(directory=str(console.home)))
    return SerialShell.open(console, data, login or Login(), Deadline.after(60))


def soon() -> Deadline:
    return Deadline.after(20)


def test_a_short_command_takes_one_round_trip(console: CountingConsole) -> None:
    shell = log_in(console)
    for command in ("true", "echo hello", "seq 1 100"):
        console.typed.clear()
        shell.run(command, soon())
        assert len(console.typed) == 1


@pytest.mark.parametrize("kind", [b"b\n", b":s:0000"])
@pytest.mark.parametrize("command", ["true", "sleep 3"])
def test_a_line_that_is_hurt_is_asked_for_and_not_waited_for(
    console: CountingConsole, kind: bytes, command: str
) -> None:
    shell = log_in(console)
    line = bytes(byte | 0x80 for byte in kind)
    console.hurts = [(line, b"\xb1" + line), (line, line[:1] + b"\xc3\x8a" + line[1:])]
    assert shell.run(command, soon()).status == 0
    assert shell.run("echo next", soon()).text == "next"


def test_logging_in_while_the_kernel_talks(console: CountingConsole) -> None:
    console.disturb(seed=5, messages=MESSAGES)
    assert log_in(console).run("echo in", soon()).text == "in"


def test_a_user_who_is_not_let_in(console: CountingConsole) -> None:
    with pytest.raises(LoginRefused, match="'mallory'"):
        log_in(console, login=Login(user="mallory", password="x"))


def test_a_password_that_nobody_told_us(console: CountingConsole) -> None:
    with pytest.raises(LoginRefused, match="'mallory'"):
        log_in(console, login=Login(user="mallory"))


def test_a_shell_that_somebody_left_behind(console: CountingConsole) -> None:
    left = log_in(console)
    left.run("true", soon())
    assert log_in(console).run("echo mine", soon()).text == "mine"


def test_a_command_that_somebody_left_running(console: CountingConsole) -> None:
    left = log_in(console)
    with pytest.raises(DeadlineExceeded):
        left.run("trap '' INT QUIT; while :; do sleep 1000; done", Deadline.after(1))
    assert log_in(console).run("echo mine", soon()).text == "mine"


def test_a_login_prompt_with_half_a_name_typed(console: CountingConsole) -> None:
    console.send(b"someb", soon())
    assert log_in(console).run("echo mine", soon()).text == "mine"


def test_a_shell_that_is_logged_in_already(console: CountingConsole) -> None:
    console.send(b"root\r", soon())
    assert log_in(console).run("echo mine", soon()).text == "mine"


def test_short_lines_and_the_tools_of_old_systems(console: CountingConsole, tmp_path: Path) -> None:
    data = ShellData(
        checksum="crc32",
        checksum_command="busybox crc32",
        serial=SerialData(
            encode="busybox uuencode -",
            decode="busybox uudecode -o /dev/stdout",
            coding="uuencode",
            line=250,
            directory=str(tmp_path),
        ),
    )
    console.disturb(seed=3, messages=MESSAGES)
    shell = log_in(console, data)
    console.disturb(seed=3, foreign=(b"\xc3\xa4",))
    content = bytes(range(256)) * 10
    assert shell.run("cat", soon(), stdin=content).output == content
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(content)
    shell.put(source, str(tmp_path / "there"), soon())
    shell.get(str(tmp_path / "there"), back, soon())
    assert back.read_bytes() == content
    assert all(len(line) <= 250 for typed in console.typed for line in typed.split(b"\n"))


def test_nothing_stays_in_the_guest(console: CountingConsole, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    shell = log_in(console, ShellData(serial=SerialData(directory=str(place))))
    shell.run("echo hello; cat", soon(), stdin=b"x")
    assert len(list(place.iterdir())) == 1
    shell.close()
    log_in(console)
    assert list(place.iterdir()) == []


def test_a_file_too_large_for_a_console(console: CountingConsole, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.touch()
    with large.open("r+b") as file:
        file.truncate(LARGEST_PUT + 1)
    with pytest.raises(UsageError, match="too large"):
        log_in(console).put(large, "/tmp/x", soon())


def test_a_deadline_holds_while_the_kernel_floods(console: CountingConsole) -> None:
    shell = log_in(console)
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            console.print(MESSAGES[0] * 100)
            stop.wait(0.001)

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        before = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            shell.run("sleep 1000", Deadline.after(1))
        assert time.monotonic() - before < AT_ONCE
        assert shell.run("echo free", soon()).text == "free"
    finally:
        stop.set()
        flooding.join()


def test_a_crash_ends_the_wait_at_once(console: CountingConsole) -> None:
    shell = log_in(console)
    threading.Timer(0.5, console.panic).start()
    before = time.monotonic()
    with pytest.raises(GuestCrashed, match="panic: test"):
        shell.run("sleep 1000", Deadline.after(60))
    assert time.monotonic() - before < AT_ONCE


def test_the_consoles_end_ends_the_wait_at_once_and_for_good(console: CountingConsole) -> None:
    shell = log_in(console)
    threading.Timer(0.5, console.kill).start()
    before = time.monotonic()
    with pytest.raises(ShellLost):
        shell.run("sleep 1000", Deadline.after(60))
    assert time.monotonic() - before < AT_ONCE
    with pytest.raises(ShellLost):
        shell.run("true", soon())
    shell.close()


def test_a_console_without_a_login(console: CountingConsole) -> None:
    console.kill()
    with pytest.raises(ShellLost):
        log_in(console)
