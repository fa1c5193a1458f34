"""What goes over an SSH channel is taken apart right, however it is cut."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.deadline import Deadline
from dfbuild.errors import UsageError
from dfbuild.shell.errors import ShellLost
from dfbuild.shell.exchange import Marks, channel_command, preface, reaper

NONCE = "00112233aabbccdd"
PROCESSES = "busybox ps -A -o pid= -o ppid="


@given(
    st.binary(max_size=300) | st.just(f"{NONCE} {NONCE} 5".encode()),
    st.integers(0, 255),
    st.binary(max_size=20),
    st.lists(st.integers(1, 60), min_size=1),
)
def test_output_and_status_come_out_as_they_went_in(
    output: bytes, status: int, banner: bytes, sizes: list[int]
) -> None:
    stream = banner + f"{NONCE} 4321\n".encode() + output + f"{NONCE} {status}\n".encode() + b"from the background"
    marks = Marks(NONCE)
    got = b""
    turn = 0
    while stream:
        size = sizes[turn % len(sizes)]
        got += marks.feed(stream[:size])
        stream = stream[size:]
        turn += 1
    assert (marks.pid, marks.status, got) == (4321, status, output)


@pytest.mark.parametrize("said", [b" bad\n", b" \n", b" " + b"9" * 5000 + b"\n"])
def test_a_shell_that_does_not_say_its_number_is_lost(said: bytes) -> None:
    with pytest.raises(ShellLost):
        Marks(NONCE).feed(NONCE.encode() + said)


def test_digits_without_end_are_not_kept() -> None:
    marks = Marks(NONCE)
    marks.feed(f"{NONCE} 1\n{NONCE} ".encode())
    for _ in range(3):
        assert len(marks.feed(b"9" * 5000)) >= 5000
    assert marks.feed(f"{NONCE} 4".encode()) == b""
    assert (marks.feed(b"2\n"), marks.status) == (b"", 42)
    with pytest.raises(ShellLost):
        Marks(NONCE).feed(f"{NONCE} {'9' * 5000}".encode())


def test_a_status_that_is_none_is_output() -> None:
    marks = Marks(NONCE)
    stream = f"{NONCE} 1\n{NONCE} {'9' * 5000}\n{NONCE} 0\n".encode()
    assert marks.feed(stream).endswith(b"999\n") and marks.status == 0


def test_output_is_passed_on_before_the_end() -> None:
    marks = Marks(NONCE)
    assert marks.feed(f"{NONCE} 1\n".encode()) == b""
    assert marks.feed(b"x" * 1000) == b"x" * 1000
    assert marks.feed(f"y\n{NONCE[:5]}".encode()) == b"y\n", "what may be the mark waits"
    assert marks.feed(b"z") == f"{NONCE[:5]}z".encode()
    assert marks.status is None


@pytest.mark.parametrize("shell", ["sh", "bash", "busybox sh"])
@pytest.mark.parametrize(
    ("script", "stdin", "output", "status"),
    [
        ("true", b"", b"", 0),
        ("exit 77", b"", b"", 77),
        ("cat", b"\0\xff\n", b"\0\xff\n", 0),
        ("echo 'a  b' \"c%d\\n\" `echo d` $((1 + 1))", b"", None, 0),
        ("kill -9 $$", b"", None, 137),
        ("cat <<E\none\n  two\nE\n", b"", b"one\n  two\n", 0),
        ("echo 'unbalanced", b"", None, 2),
        ("-n", b"", None, 127),
        ("", b"", b"", 0),
    ],
)
def test_a_channels_command_runs_what_the_preface_says(
    shell: str, script: str, stdin: bytes, output: bytes | None, status: int
) -> None:
    argv = [*shell.split(), "-c", channel_command("/usr/bin:/bin")]
    data = preface(NONCE, script.encode()) + stdin
    printed = subprocess.run(argv, input=data, capture_output=True, check=True).stdout
    marks = Marks(NONCE)
    got = marks.feed(printed)
    assert marks.status == status
    if output is not None:
        assert got == output


def test_a_command_too_long_for_an_argument_is_refused() -> None:
    with pytest.raises(UsageError, match="too long"):
        preface(NONCE, b"x" * 70_000)


def test_the_reaper_ends_what_a_process_started() -> None:
    # The second one ignores interrupts, and the third belongs to somebody else.
    script = "sleep 1000 & sh -c \"trap '' INT; sleep 1000; :\" & wait; :"
    parent = subprocess.Popen(["sh", "-c", script])
    bystander = subprocess.Popen(["sleep", "1000"])
    try:
        deadline = Deadline.after(60)
        while len(descendants(parent.pid)) < 3:
            deadline.check("three children")
        with contextlib.ExitStack() as stack:
            children = [os.pidfd_open(pid) for pid in descendants(parent.pid)]
            for child in children:
                stack.callback(os.close, child)
            subprocess.run(["sh", "-c", reaper(parent.pid, PROCESSES)], check=True)
            parent.wait(60)
            for child in children:
                deadline.select(child, what="a child's end")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
        parent.kill()
        parent.wait()


def descendants(pid: int) -> list[int]:
    listing = subprocess.run(PROCESSES.split(), capture_output=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listing.splitlines()]
    # Numbers say nothing of who came first: they begin again at 32768.
    found = [child for child, parent in pairs if parent == pid]
    return [*found, *(further for child in found for further in descendants(child))]
