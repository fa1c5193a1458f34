"""Shells in a real guest: kernel messages in between, large files, and a guest that dies under a command."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from shell_guest import ShellGuest, booted

from dfbuild.console.protocol import ConsoleClosed
from dfbuild.deadline import Deadline
from dfbuild.errors import GuestCrashed
from dfbuild.model import Cell, Media
from dfbuild.shell import HostKeyMismatch, Shell, ShellLost
from dfbuild.shell.ssh import SshShell
from dfbuild.workspace import Workspace

pytestmark = pytest.mark.boot

LARGE = 100 << 20


@pytest.fixture(scope="module")
def guest(
    reference_cell: Cell, reference_media: Media, workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ShellGuest]:
    with booted(reference_cell, reference_media, workspace, tmp_path_factory.mktemp("guest")) as up:
        yield up


@pytest.fixture
def doomed(
    reference_cell: Cell, reference_media: Media, workspace: Workspace, tmp_path: Path
) -> Iterator[ShellGuest]:
    """A guest that the test may kill."""
    with booted(reference_cell, reference_media, workspace, tmp_path / "guest") as up:
        yield up


def soon() -> Deadline:
    return Deadline.after(60)


def test_commands_while_the_kernel_floods_the_console(guest: ShellGuest) -> None:
    shell = guest.open("serial")
    loud = "dmesg -n 8; (while :; do echo the kernel says something $((n=n+1)) >/dev/kmsg; done) & echo $!"
    pid = shell.run(loud, soon()).text
    try:
        before = guest.session.console.size
        expected = b"".join(b"%d\n" % n for n in range(1, 201))
        for status in (0, 1, 7, 255):
            answer = shell.run(f"seq 1 200; exit {status}", soon())
            assert (answer.status, answer.output) == (status, expected)
        assert shell.run("cat", soon(), stdin=bytes(range(256))).output == bytes(range(256))
        printed = guest.session.console.read(before, 1 << 20)
        assert printed.count(b"the kernel says something") > 20
    finally:
        shell.run(f"kill {pid}; dmesg -n 6", soon())
        shell.close()


def test_every_status(guest: ShellGuest) -> None:
    shell = guest.open("serial")
    assert [shell.run(f"exit {n}", soon()).status for n in range(0, 256, 15)] == list(range(0, 256, 15))
    shell.close()


def test_another_host_key_is_refused(guest: ShellGuest, reference_media: Media) -> None:
    manifest = guest.session.manifest
    assert manifest.ssh is not None
    kind, key, *_ = manifest.login.host_key.split()
    other = replace(manifest.login, host_key=f"{kind} {key[:-4]}{key[-4:].swapcase()}")
    with pytest.raises(HostKeyMismatch):
        SshShell.open(manifest.ssh, other, guest.release.shell, soon())


def test_a_large_file_goes_there_and_back(guest: ShellGuest, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(1 << 20) * (LARGE >> 20))
    source.chmod(0o640)
    shell = guest.open("ssh")
    shell.put(source, "/root/large", Deadline.after(300))
    shell.get("/root/large", back, Deadline.after(300))
    assert back.stat().st_size == LARGE
    assert back.read_bytes() == source.read_bytes()
    assert back.stat().st_mode & 0o777 == 0o640
    shell.run("rm /root/large", soon())
    shell.close()


def test_a_panic_under_a_command_is_known_within_a_second(guest: ShellGuest) -> None:
    """The last test of this guest: both shells wait in it when its kernel panics."""
    trigger = guest.open("ssh")
    results = [outcome(guest.open(via)) for via in ("ssh", "serial")]
    trigger.run("(sleep 1; echo c >/proc/sysrq-trigger) & true", soon())
    seen = moment(lambda: wait_for_end(guest))
    for result in results:
        error, when = result()
        assert isinstance(error, GuestCrashed)
        assert "sysrq" in error.report.title.lower()
        assert when - seen < 1


def test_a_killed_guest_is_known_within_a_second(doomed: ShellGuest) -> None:
    results = [outcome(doomed.open(via)) for via in ("ssh", "serial")]
    doomed.session.stop(soon())
    seen = moment(lambda: wait_for_end(doomed))
    for result in results:
        error, when = result()
        assert isinstance(error, ShellLost)
        assert when - seen < 1


def wait_for_end(guest: ShellGuest) -> None:
    offset = guest.session.console.size
    try:
        while True:
            offset = guest.session.console.wait(offset, soon())
    except (GuestCrashed, ConsoleClosed):
        return


def moment(call: Callable[[], None]) -> float:
    call()
    return time.monotonic()


def outcome(shell: Shell) -> Callable[[], tuple[Exception | None, float]]:
    """Start a command that does not end; the result waits for its error, and says when it came."""
    found: list[tuple[Exception | None, float]] = []

    def run() -> None:
        try:
            shell.run("echo begun; sleep 3000", Deadline.after(300))
            found.append((None, time.monotonic()))
        except (GuestCrashed, ShellLost) as error:
            found.append((error, time.monotonic()))

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> tuple[Exception | None, float]:
        thread.join(60)
        return found[0]

    return result
