"""Run suites against a guest that is up, in a process of their own, and hear what they find as they find it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dfbuild import process
from dfbuild.deadline import Deadline
from dfbuild.errors import InfraError, UsageError
from dfbuild.suites.events import CheckEvent, EndEvent, Event, ResultEvent, decode

__all__ = ["DIRECTORY", "CheckEvent", "EndEvent", "Event", "ResultEvent", "available", "pytest_argv", "run_suites"]

DIRECTORY = Path(__file__).parent
"""Where the suites lie: `<suite>/test_*.py`, with pytest's settings for all of them."""

_MARGIN = 5.0
"""The suites' own deadline is that many seconds sooner than the one they are killed at, so that they can report."""

_STATUSES = (0, 1, 5)
"""What pytest ends with when it did its work: all as expected, failures, nothing to run."""


def available() -> tuple[str, ...]:
    """The names of all suites."""
    return tuple(sorted(path.parent.name for path in DIRECTORY.glob("*/conftest.py")))


def directories(suites: Sequence[str]) -> tuple[Path, ...]:
    """The directories of `suites`; raises `UsageError` for a suite that there is none of."""
    for suite in suites:
        if suite not in available():
            raise UsageError(f"unknown suite {suite!r}", hint=f"known: {', '.join(available())}")
    return tuple(DIRECTORY / suite for suite in suites)


def pytest_argv(
    manifest_path: Path | str,
    suites: Sequence[str],
    via: str,
    *,
    fd: int | None = None,
    check: str | None = None,
    deadline: float | None = None,
) -> list[str]:
    """The command line of the suites' process. `deadline` is in seconds; `check` a glob over `suite/name`."""
    options = ["--dfbuild-guest", str(manifest_path), "--dfbuild-via", via]
    if fd is not None:
        options += ["--dfbuild-report-fd", str(fd)]
    if check is not None:
        options += ["--dfbuild-check", check]
    if deadline is not None:
        options += ["--dfbuild-deadline", f"{deadline:.3f}"]
    return [
        *(sys.executable, "-m", "pytest"),
        *("-c", str(DIRECTORY / "pytest.ini"), "-p", "dfbuild.suites.plugin", "--color=no", "--tb=short"),
        *options,
        *map(str, directories(suites)),
    ]


def run_suites(
    manifest_path: Path,
    suites: Sequence[str],
    via: str,
    deadline: Deadline,
    on_event: Callable[[Event], None],
    log: Path,
    *,
    check: str | None = None,
) -> int:
    """Run `suites` over `via` and call `on_event` for each check that begins, each result and the end.

    Returns pytest's status: 0, 1 with failures, 5 if `check` matched nothing. What pytest prints is appended
    to `log`. The process dies with this one, and with `deadline`, then raising `DeadlineExceeded` or `Cancelled`.
    Raises `InfraError` if pytest broke instead of testing; a guest that crashes is not that.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    read, write = os.pipe()
    try:
        seconds = max(1.0, deadline.remaining() - _MARGIN)
        argv = pytest_argv(manifest_path, suites, via, fd=write, check=check, deadline=seconds)
        with log.open("ab") as sink:
            child = process.spawn(
                # setpriv(1): the kernel kills the suites when the thread that started them ends.
                ["setpriv", "--pdeathsig", "KILL", "--", *argv],
                cwd=DIRECTORY,
                env=_environment(),
                pass_fds=(write,),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        os.close(write)
        write = -1
        end: EndEvent | None = None
        try:
            for event in _events(read, deadline):
                if isinstance(event, EndEvent):
                    end = event
                on_event(event)
            status = process.wait(child, deadline, what="the suites' end")
        finally:
            if child.returncode is None:
                process.kill_group(child)
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
    if end is None or (status not in _STATUSES and not end.gone):
        raise InfraError(f"the suites broke (pytest status {status})", hint=f"what they printed is in {log}")
    return status


def _events(fd: int, deadline: Deadline) -> Iterator[Event]:
    """The events that come over `fd` until its other end is closed."""
    rest = b""
    while True:
        deadline.select(fd, what="the suites")
        data = os.read(fd, 65536)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield decode(line)


def _environment() -> dict[str, str]:
    """This process's, without what would change pytest, and without plugins that happen to be installed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONUNBUFFERED": "1"}
