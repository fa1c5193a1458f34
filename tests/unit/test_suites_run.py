"""Starting the suites' process and hearing its end, whatever end that is."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, InfraError, UsageError
from dfbuild.suites import run
from dfbuild.suites.events import CheckEvent, EndEvent, Event, encode
from dfbuild.suites.run import available, pytest_argv, run_suites

SAY = "import os, sys, time; fd = int(sys.argv[1]); say = lambda text: os.write(fd, text); "


@pytest.fixture
def suites(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Runs a Python program in place of pytest; gives the status and the events."""

    def play(program: str, deadline: Deadline | None = None) -> tuple[int, list[Event]]:
        def argv(*_: object, fd: int, **__: object) -> list[str]:
            return [sys.executable, "-c", SAY + program, str(fd)]

        monkeypatch.setattr(run, "pytest_argv", argv)
        events: list[Event] = []
        log = tmp_path / "logs" / "suites.log"
        until = deadline or Deadline.after(20)
        return run_suites(tmp_path / "guest.json", ["security"], "ssh", until, events.append, log), events

    return play


START, END, GONE = encode(CheckEvent("a/b")), encode(EndEvent()), encode(EndEvent("panic"))


@pytest.mark.parametrize("status", [0, 1, 5])
def test_statuses_that_say_that_pytest_did_its_work(suites, tmp_path: Path, status: int) -> None:  # type: ignore[no-untyped-def]
    assert suites(f"print('hello'); say({START!r}); say({END!r}); sys.exit({status})") == (
        status,
        [CheckEvent("a/b"), EndEvent()],
    )
    assert (tmp_path / "logs" / "suites.log").read_text() == "hello\n"


@pytest.mark.parametrize(
    "program",
    [
        "sys.exit(0)",
        f"say({START!r}); sys.exit(1)",
        f"say({END!r}); sys.exit(3)",
        "os.kill(os.getpid(), 9)",
        "say(b'hello\\n')",
        f"say({END[:-3]!r})",
    ],
)
def test_a_broken_pytest_is_our_fault(suites, program: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InfraError):
        suites(program)


def test_not_when_the_guest_is_gone(suites) -> None:  # type: ignore[no-untyped-def]
    assert suites(f"say({GONE!r}); sys.exit(3)") == (3, [EndEvent("panic")])


def test_events_come_in_pieces(suites) -> None:  # type: ignore[no-untyped-def]
    program = f"[say(bytes([byte])) for byte in {START + END!r}]"
    assert suites(program) == (0, [CheckEvent("a/b"), EndEvent()])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_the_deadline_ends_it(suites, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pid = tmp_path / "pid"
    with pytest.raises(DeadlineExceeded):
        suites(f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)", Deadline.after(2.0))
    assert not alive(int(pid.read_text()))


def test_so_does_an_interruption(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cancel = Cancel()
    program = SAY + f"say({START!r}); time.sleep(600)"
    monkeypatch.setattr(run, "pytest_argv", lambda *_, fd, **__: [sys.executable, "-c", program, str(fd)])
    began = time.monotonic()
    with pytest.raises(Cancelled):
        run_suites(
            tmp_path, [], "ssh", Deadline.after(300, cancel=cancel), lambda event: cancel.set(), tmp_path / "log"
        )
    assert time.monotonic() - began < 60


HOLDER = """
import sys
from pathlib import Path
from dfbuild.deadline import Deadline
from dfbuild.suites import run
program = "import os, time; os.write({fd}, b'%d' % os.getpid() + bytes([10])); time.sleep(600)"
run.pytest_argv = lambda *_, fd, **__: [sys.executable, "-c", program.format(fd=fd)]
run._events = lambda fd, deadline: print(run.os.read(fd, 100).decode().strip(), flush=True) or deadline.select(fd)
run.run_suites(Path("guest.json"), [], "ssh", Deadline.after(300), print, Path(sys.argv[1]) / "log")
"""


def test_the_suites_die_with_whoever_runs_them(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as holder:
        assert holder.stdout is not None
        suites = int(holder.stdout.readline())
        end = os.pidfd_open(suites)
        holder.kill()
    Deadline.after(20).select(end, what="the suites' end")
    os.close(end)
    assert not alive(suites)


def test_descriptors_are_given_back(suites) -> None:  # type: ignore[no-untyped-def]
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    suites(f"say({END!r})")
    with pytest.raises(InfraError):
        suites("sys.exit(4)")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_the_command_line() -> None:
    words = pytest_argv("/run/guest.json", ["security"], "serial", fd=7, check="security/nx-*", deadline=12.5)
    assert words[:3] == [sys.executable, "-m", "pytest"]
    assert words[-1].endswith("/suites/security")
    pairs = list(itertools.pairwise(words))
    for pair in (
        ("--dfbuild-guest", "/run/guest.json"),
        ("--dfbuild-via", "serial"),
        ("--dfbuild-report-fd", "7"),
        ("--dfbuild-check", "security/nx-*"),
        ("--dfbuild-deadline", "12.500"),
    ):
        assert pair in pairs


def test_an_unknown_suite() -> None:
    assert {"scheduler", "security"} <= set(available())
    with pytest.raises(UsageError, match="secruity"):
        pytest_argv("guest.json", ["secruity"], "ssh")


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    log = tmp_path / "suites.log"
    with pytest.raises(InfraError, match="broke"):
        run_suites(tmp_path / "guest.json", ["security"], "ssh", Deadline.after(60), lambda event: None, log)
    assert "no guest is up" in log.read_text()
