"""One sandboxed command of a build step, logged by component."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dfbuild import process
from dfbuild.build.complaint import complaint, shown
from dfbuild.build.recipe import Kitchen
from dfbuild.build.store import tail
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed, BuildKilled, HostFull
from dfbuild.image.ufs import Run
from dfbuild.sandbox import Sandbox

_SIGNALLED = 128
_LINE = 4096
"""How much of a line that does not end is kept."""
_BACK = 60
"""Lines from a log's end in which the error that ended it is sought."""
_FULL = ("No space left on device", "Disk quota exceeded")
"""What a program says of ENOSPC and EDQUOT."""

# A guest's CPUs can't wait, a build can. Where sessions are scheduled as groups (sched(7), autogroup) niceness
# counts within one only, and the group has its own. Of those without privileges the kernel takes ten changes a
# second (kernel/sched/autogroup.c); a step that comes too soon after another stays where it is.
_YIELDING = (
    "/bin/sh", "-c", '{ echo 10 >/proc/self/autogroup; } 2>/dev/null; exec /usr/bin/nice -n 10 "$@"', "build",
)  # fmt: skip


def component_log(kitchen: Kitchen, component: str) -> Path:
    """The log of one component of the step, beside the step's own."""
    return kitchen.log.with_name(component.replace("/", "-") + ".log")


def run(
    kitchen: Kitchen,
    sandbox: Sandbox,
    argv: Sequence[str | Path],
    component: str,
    banner: re.Pattern[bytes] | None = None,
) -> None:
    """Run `argv` in `sandbox`, behind guests; the command line and all it prints go to the component's log.

    Of every line that `banner` matches at its beginning, the first group is said as progress. Raises `BuildFailed`,
    with the first error among the last lines, for a status other than 0, `DeadlineExceeded` and `Cancelled`.
    """
    log, line = _begin(kitchen, sandbox, argv, component)
    if banner is None:
        status = process.run(line, kitchen.deadline, log=log).status
    else:
        status = _watched(kitchen, line, log, banner)
    _require(kitchen, status, argv, component, log)


def output(kitchen: Kitchen, sandbox: Sandbox, argv: Sequence[str | Path], component: str) -> str:
    """Run `argv` as `run` does and return what it prints. What it complains of goes to the component's log, what it
    prints to a log of its own."""
    log, line = _begin(kitchen, sandbox, argv, component)
    out = component_log(kitchen, f"{component} output")
    out.unlink(missing_ok=True)
    status = process.run(line, kitchen.deadline, log=out, errors=log).status
    _require(kitchen, status, argv, component, log)
    return out.read_text(errors="surrogateescape")


def _begin(
    kitchen: Kitchen, sandbox: Sandbox, argv: Sequence[str | Path], component: str
) -> tuple[Path, list[str]]:
    """The component's log with the command line in it, and the line that runs it in the sandbox."""
    log = component_log(kitchen, component)
    words = [str(word) for word in argv]
    with log.open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(f"$ {' '.join(words)}\n")
    return log, sandbox.argv([*_YIELDING, *words])


def _require(kitchen: Kitchen, status: int, argv: Sequence[str | Path], component: str, log: Path) -> None:
    """Raise `BuildFailed` unless the command ended well."""
    if status != 0:
        # Jobs beside the one that failed still print behind it, and every make(1) that gives up because of it.
        last = tail(log)
        if any(words in last for words in _FULL):
            raise HostFull(
                f"{component}: the disk is full, see {log}",
                hint=f"`dfbuild clean --work {shlex.quote(str(kitchen.workspace.root))}` makes room",
            )
        why = shown(complaint(tail(log, _BACK))) or f"{argv[0]} ended with status {status}"
        # Of a signal a shell makes 128 and its number, and so does bwrap(1).
        failed = BuildKilled if status < 0 or status > _SIGNALLED else BuildFailed
        raise failed(f"{component}: {why}", component=component, log=log, tail=shown(last))


def _watched(kitchen: Kitchen, argv: Sequence[str], log: Path, banner: re.Pattern[bytes]) -> int:
    """Run `argv`, its output through our hands: into the log, and banners as progress. Returns its status."""
    child = process.spawn(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert child.stdout is not None
    try:
        with log.open("ab") as file, child.stdout as output:
            rest = b""
            for chunk in _chunks(output.fileno(), kitchen.deadline, argv[0]):
                file.write(chunk)
                *lines, rest = (rest[-_LINE:] + chunk).split(b"\n")
                for line in lines:
                    if match := banner.match(line):
                        kitchen.say(match[1].decode(errors="replace").rstrip())
        return process.wait(child, kitchen.deadline, what=argv[0])
    finally:
        if child.returncode is None:
            process.kill_group(child)


def _chunks(fd: int, deadline: Deadline, what: str) -> Iterator[bytes]:
    """What comes from `fd` until its end."""
    while True:
        deadline.select(fd, what=what)
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            return
        yield chunk


def runner(kitchen: Kitchen, *readable: Path) -> Run:
    """Runs programs in a sandbox that may write to the step's directory, and returns what they print."""
    work = kitchen.directory

    def run_one(argv: Sequence[str | Path], environment: Mapping[str, str]) -> str:
        log = component_log(kitchen, str(argv[0]))
        before = log.stat().st_size if log.exists() else 0
        variables = {**environment, "TMPDIR": str(work)}
        run(kitchen, Sandbox(writable=(work,), readable=readable, environment=variables), argv, str(argv[0]))
        with log.open("rb") as file:
            file.seek(before)
            return file.read().decode(errors="replace").partition("\n")[2]  # behind the command line

    return run_one
