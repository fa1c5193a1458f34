"""Run a host program to its end under a deadline; nothing it started outlives the call."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dfbuild.deadline import Deadline
from dfbuild.errors import InfraError, MissingTool

_VERSION_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended. `output` is what it printed (empty when it went to a file)."""

    argv: tuple[str, ...]
    status: int
    output: str = ""


def spawn(argv: Sequence[str | Path], **options: object) -> subprocess.Popen[bytes]:
    """`subprocess.Popen` in a process group of its own; a missing program is a `MissingTool`."""
    words = [str(word) for word in argv]
    try:
        return subprocess.Popen(words, start_new_session=True, **options)  # type: ignore[call-overload, no-any-return]
    except FileNotFoundError as error:
        raise MissingTool(
            f"{words[0]} is not installed", hint="`dfbuild doctor` names the package that has it"
        ) from error


def kill_group(process: subprocess.Popen[bytes]) -> int:
    """SIGKILL the process and its group, reap it, and return its status."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def wait(process: subprocess.Popen[bytes], deadline: Deadline, what: str = "") -> int:
    """Wait for the end and return the status; on a passed deadline kill the group and raise."""
    ended = process.poll()
    if ended is not None:
        return ended
    pidfd = os.pidfd_open(process.pid)
    try:
        deadline.select(pidfd, what=what)
        return process.wait()
    finally:
        os.close(pidfd)
        if process.returncode is None:
            kill_group(process)


def run(
    argv: Sequence[str | Path],
    deadline: Deadline,
    *,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
    errors: Path | None = None,
) -> Completed:
    """Run `argv`; standard output and error go to `log` (appended) or into the result, at most 16 MiB of it.

    With `errors` standard error goes there instead (appended).
    """
    words = tuple(str(word) for word in argv)
    # A file, not a pipe: a program that prints more than a pipe holds must not wait for its reader.
    with contextlib.ExitStack() as stack:
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            sink: BinaryIO = stack.enter_context(log.open("ab"))
        else:
            sink = stack.enter_context(tempfile.TemporaryFile())
        complaints = stack.enter_context(errors.open("ab")) if errors is not None else subprocess.STDOUT
        process = spawn(words, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=complaints)
        status = wait(process, deadline, what=words[0])
        output = ""
        if log is None:
            sink.seek(0)
            output = sink.read(16 << 20).decode(errors="replace")
    return Completed(words, status, output)


@functools.cache
def version(program: str) -> str:
    """What `program --version` prints, asked once per process. Raises `MissingTool`, `InfraError`."""
    done = run([program, "--version"], Deadline.after(_VERSION_SECONDS, what=f"{program} --version"))
    if done.status != 0 or not done.output.strip():
        raise InfraError(f"{program} --version says {done.output.strip()!r} with status {done.status}")
    return done.output
