"""What every shell does: on a terminal of this host, undisturbed and not, over SSH, and in a guest over both."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from patience import AT_ONCE
from pty_console import NOISE, PtyConsole
from shell_guest import ShellGuest, booted
from ssh_server import PROCESSES, SshServer

from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, InfraError, UsageError
from dfbuild.model import Cell, Login, Media
from dfbuild.releases.schema import SerialShell as SerialData
from dfbuild.releases.schema import Shell as ShellData
from dfbuild.releases.schema import SshShell as SshData
from dfbuild.shell import Answer, CopyFailed, Shell, ShellLost
from dfbuild.shell.copy import mode_of
from dfbuild.shell.serial import SerialShell
from dfbuild.shell.ssh import SshShell
from dfbuild.workspace import Workspace

FOREIGN = (b"\x80\xff\xc3", b"\xc3\x8a\xe4", b"\xb1", "ключ".encode())
"""Bytes that no kernel of our days prints, but that would hurt."""


@dataclass(frozen=True)
class Way:
    """A way into a machine: opens shells one after the other. `scratch` is a directory there."""

    open: Callable[[], Shell]
    scratch: str
    patience: float = 20.0


def serial_way(stack: ExitStack, home: Path, shell: str, noisy: bool) -> Way:
    console = stack.enter_context(closing(PtyConsole(home, shell.split())))
    data = ShellData(serial=SerialData(directory=str(home)))

    def start() -> Shell:
        serial = SerialShell.open(console, data, Login(), Deadline.after(60))
        if noisy:
            console.disturb(seed=1, foreign=FOREIGN)
        return serial

    return Way(start, str(home))


def ssh_way(stack: ExitStack, home: Path, shell: str) -> Way:
    server = stack.enter_context(closing(SshServer(home, shell)))
    data = ShellData(ssh=SshData(processes=PROCESSES))
    return Way(lambda: SshShell.open(server.address, server.login, data, Deadline.after(20)), str(home))


WAYS = (
    "serial-dash",
    "serial-busybox",
    "serial-bash",
    "serial-noise",
    "ssh",
    pytest.param("guest-serial", marks=pytest.mark.boot),
    pytest.param("guest-ssh", marks=pytest.mark.boot),
)


@pytest.fixture(scope="module")
def guest(
    reference_cell: Cell, reference_media: Media, workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ShellGuest]:
    with booted(reference_cell, reference_media, workspace, tmp_path_factory.mktemp("guest")) as up:
        yield up


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    home = tmp_path_factory.mktemp("home")
    with ExitStack() as stack:
        match request.param:
            case "serial-dash":
                yield serial_way(stack, home, "dash -i", noisy=False)
            case "serial-busybox":
                yield serial_way(stack, home, "busybox sh -i", noisy=False)
            case "serial-bash":
                yield serial_way(stack, home, "bash --norc -i", noisy=False)
            case "serial-noise":
                yield serial_way(stack, home, "dash -i", noisy=True)
            case "ssh":
                yield ssh_way(stack, home, "/bin/sh")
            case via:
                guest: ShellGuest = request.getfixturevalue("guest")
                yield Way(lambda: guest.open(via.removeprefix("guest-")), "/tmp", 90.0)


@pytest.fixture
def shell(way: Way, opened: list[Shell]) -> Shell:
    """One shell for all tests, opened again when a test has lost it."""
    if not opened:
        opened.append(way.open())
    return opened[0]


@pytest.fixture(scope="module")
def opened(way: Way) -> Iterator[list[Shell]]:
    shells: list[Shell] = []
    yield shells
    for shell in shells:
        shell.close()


@pytest.fixture
def run(shell: Shell, way: Way) -> Callable[..., Answer]:
    def run(command: str, stdin: bytes = b"") -> Answer:
        return shell.run(command, Deadline.after(way.patience), stdin=stdin)

    return run


Run = Callable[..., Answer]


@pytest.mark.parametrize("status", [0, 1, 2, 7, 8, 63, 64, 100, 126, 127, 128, 200, 254, 255])
def test_status(run: Run, status: int) -> None:
    assert run(f"exit {status}").status == status


@pytest.mark.parametrize(("signal", "number"), [("KILL", 9), ("TERM", 15), ("SEGV", 11), ("INT", 2)])
def test_status_of_a_command_that_dies_of_a_signal(run: Run, signal: str, number: int) -> None:
    assert run(f"kill -{signal} $$").status == 128 + number


def test_output_is_standard_output_and_error_as_they_came(run: Run) -> None:
    answer = run("echo a; echo b >&2; echo c")
    assert (answer.status, answer.output, answer.text) == (0, b"a\nb\nc\n", "a\nb\nc")


def test_no_output(run: Run) -> None:
    assert run("true").output == b""


@pytest.mark.parametrize("output", ["x", "x\n", "\n", "\n\n\n", " ", "no newline at the end\nx"])
def test_output_is_exact(run: Run, output: str) -> None:
    assert run("cat", output.encode()).output == output.encode()


def test_binary_data_both_ways(run: Run) -> None:
    data = bytes(range(256)) * 8
    assert run("cat", data).output == data


def test_large_output(run: Run, way: Way) -> None:
    answer = run("i=0; while [ $i -lt 500 ]; do echo line $i of five hundred, no two alike; i=$((i+1)); done")
    assert answer.output == b"".join(b"line %d of five hundred, no two alike\n" % i for i in range(500))


def test_output_that_speaks_the_terminals_and_our_own_language(run: Run) -> None:
    data = b"\x03\x04\x1a\x1c\r\n\x1b[2J0a1b2c3d:1:s:0000\n\x8a\xba login: \nPassword: # "
    assert run("cat", data).output == data


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("echo 'a  b' \"c\" d\\ e", b"a  b c d e\n"),
        ("printf '%s|%%\\n' 'x' \"$((1+1))\" `echo y`", b"x|%\n2|%\ny|%\n"),
        ("echo one\necho two", b"one\ntwo\n"),
        ("cat <<'E'\n$HOME `id`\n\ttab '\"\nE\n", b"$HOME `id`\n\ttab '\"\n"),
        ("cat <<E\nend of input ends it", b"end of input ends it"),
        ("printf '\x03\x04\x11\x13\x15\x16\x1a\x1c\x7f'", b"\x03\x04\x11\x13\x15\x16\x1a\x1c\x7f"),
        ("echo 'grüße, κόσμε'", "grüße, κόσμε\n".encode()),
        ("# a comment", b""),
        ("", b""),
        ("   echo blanks   ", b"blanks\n"),
        ("for i in 1 2\ndo\n echo $i\ndone", b"1\n2\n"),
        ("echo '!!' !x", b"!! !x\n"),
    ],
)
def test_any_text_is_a_command(run: Run, command: str, output: bytes) -> None:
    answer = run(command)
    assert answer.output.rstrip(b"\n") == output.rstrip(b"\n")
    assert answer.status == 0


@pytest.mark.parametrize("command", ["echo 'open", 'echo "open', "echo $(", "if true", "}", "cat <", "-n x"])
def test_what_is_no_command_is_an_answer_too(run: Run, command: str) -> None:
    assert run(command).status != 0
    assert run("echo still here").text == "still here"


def test_long_commands(run: Run) -> None:
    words = " ".join(f"word-{number}'{number}'" for number in range(1500))
    answer = run(f"set -- {words}; echo $#; echo $1500")
    assert answer.text.splitlines()[0] == "1500"
    long_line = "x" * 15000
    assert run(f"echo {long_line} | wc -c").text.strip() == "15001"


def test_a_nul_in_a_command_is_the_callers_mistake(run: Run) -> None:
    with pytest.raises(UsageError):
        run("echo \0")
    assert run("echo fine").text == "fine"


def test_commands_do_not_change_the_shell(run: Run) -> None:
    here = run("pwd").text
    run("cd /; x=1; export x; set -e; umask 077; exec 1>&-; exit 5")
    assert run('pwd; echo "$x"; umask').text.splitlines() == [here, "", "0022"]


def test_commands_are_found_in_the_same_places(run: Run) -> None:
    assert run("echo $PATH").text == ShellData().path


def test_standard_input_is_empty_unless_it_is_given(run: Run) -> None:
    assert run("cat; echo end").text == "end"
    assert run("read x; echo $x; cat", b"first\nsecond\n").output == b"first\nsecond\n"


def test_standard_input_need_not_be_read(run: Run) -> None:
    assert run("exit 4", b"x" * 20000).status == 4


def test_what_stays_in_the_background_holds_nobody_up(run: Run) -> None:
    before = time.monotonic()
    answer = run("(sleep 30; echo late) & (sleep 30; echo late >&2) & echo at once")
    assert answer.text == "at once"
    assert time.monotonic() - before < 15
    assert run("echo next").text == "next"


def test_what_the_background_prints_later_goes_into_no_other_answer(run: Run, way: Way) -> None:
    mark = f"{way.scratch}/go"
    late = f"trap '' PIPE; while [ ! -e {mark} ]; do sleep 0.1; done; echo late; echo late >{mark}.done"
    run(f"rm -f {mark}; ({late}) & true")
    answer = run(f"touch {mark}; while [ ! -e {mark}.done ]; do sleep 0.1; done; echo mine; rm -f {mark}*")
    assert answer.text == "mine"


def test_a_deadline_interrupts_the_command(shell: Shell, run: Run, way: Way) -> None:
    pid = f"{way.scratch}/pid"
    with pytest.raises(DeadlineExceeded):
        shell.run(f"echo $$ >{pid}; sleep 3000; sleep 3000", Deadline.after(1.5))
    assert run("echo free").text == "free"
    gone = f"i=0; while kill -0 $(cat {pid}) 2>/dev/null; do sleep 0.1; done; echo gone"
    assert run(gone).text == "gone"


def test_a_deadline_in_the_middle_of_output(shell: Shell, run: Run) -> None:
    with pytest.raises(DeadlineExceeded):
        shell.run("while :; do echo filler filler filler; done", Deadline.after(1.0))
    assert run("echo free").text == "free"


def test_what_was_printed_before_an_interrupt_holds_nobody_up(shell: Shell, run: Run) -> None:
    """8 MB, on a terminal that takes 11 KB a second."""
    with pytest.raises(DeadlineExceeded):
        shell.run("dd if=/dev/zero bs=65536 count=128 2>/dev/null | tr '\\0' x; sleep 3000", Deadline.after(3.0))
    assert run("echo free").text == "free"


def test_an_interrupt_that_is_ignored_does_not_help(shell: Shell, run: Run, way: Way, opened: list[Shell]) -> None:
    with pytest.raises(DeadlineExceeded):
        shell.run("trap '' INT; sleep 40; sleep 40", Deadline.after(1.0))
    try:
        assert shell.run("echo free", Deadline.after(90)).text == "free"
    except ShellLost:
        opened.clear()


def test_cancellation_ends_a_command_at_once(shell: Shell, run: Run) -> None:
    cancel = Cancel()
    begun = threading.Timer(0.5, cancel.set)
    begun.start()
    before = time.monotonic()
    with pytest.raises(Cancelled):
        shell.run("sleep 3000", Deadline.after(60, cancel=cancel))
    assert time.monotonic() - before < AT_ONCE
    assert run("echo free").text == "free"


@pytest.mark.parametrize("mode", [0o600, 0o755, 0o4711])
def test_files_go_there_and_back(shell: Shell, run: Run, way: Way, tmp_path: Path, mode: int) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(bytes(range(256)) * 20)
    source.chmod(mode)
    there = f'{way.scratch}/a file\'s "name" $x'
    shell.put(source, there, Deadline.after(way.patience))
    shell.get(there, back, Deadline.after(way.patience))
    assert back.read_bytes() == source.read_bytes()
    assert back.stat().st_mode & 0o7777 == mode & 0o777, "nothing from a guest runs as somebody else here"
    kept, *_, left = run(f"ls -l {shlex.quote(there)}; ls {way.scratch} | grep -c dfb- || :").text.splitlines()
    assert mode_of(kept.encode()) == mode and left in ("0", "1")
    assert run(f"rm -f {way.scratch}/a*").status == 0


def test_an_empty_file(shell: Shell, way: Way, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.touch()
    shell.put(source, f"{way.scratch}/empty", Deadline.after(way.patience))
    shell.get(f"{way.scratch}/empty", back, Deadline.after(way.patience))
    assert back.read_bytes() == b""


def test_files_that_cannot_be_copied(shell: Shell, run: Run, way: Way, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 5000)
    with pytest.raises(CopyFailed, match="directory"):
        shell.put(source, way.scratch, Deadline.after(way.patience))
    with pytest.raises(CopyFailed):
        shell.put(source, "/nonexistent/directory/file", Deadline.after(way.patience))
    with pytest.raises(CopyFailed, match="no such file"):
        shell.get("/nonexistent/file", tmp_path / "back", Deadline.after(way.patience))
    with pytest.raises(InfraError, match="none"):
        shell.put(tmp_path / "none", f"{way.scratch}/x", Deadline.after(way.patience))
    with pytest.raises(InfraError, match="this machine"):
        shell.get("/etc/passwd", tmp_path / "none" / "back", Deadline.after(way.patience))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert run("echo fine").text == "fine"


def test_a_closed_shell_says_so_and_the_next_one_works(way: Way, opened: list[Shell]) -> None:
    for shell in opened:
        shell.close()
    opened.clear()
    shell = way.open()
    shell.close()
    with pytest.raises(ShellLost):
        shell.run("true", Deadline.after(5))
    again = way.open()
    opened.append(again)
    assert again.run("echo again", Deadline.after(way.patience)).text == "again"


def test_the_noise_would_hurt(tmp_path: Path) -> None:
    """That the disturbed console is one: its noise is between the bytes of a plain command's output."""
    with closing(PtyConsole(tmp_path, ["dash", "-i"])) as console:
        console.disturb(seed=1)
        offset = console.size
        console.send(b"root\r", Deadline.after(5))
        plain = b"for i in 1 2 3 4 5 6 7 8 9; do echo the quick brown fox jumps over the lazy dog; done"
        console.send(plain + b"; echo e''nd\r", Deadline.after(5))
        seen = b""
        while b"end\r\n" not in seen:
            offset = console.wait(offset, Deadline.after(10))
            seen = console.read(0, 1 << 20)
        assert any(message in seen for message in NOISE)
        assert seen.count(b"the quick brown fox jumps over the lazy dog\r\n") < 9
