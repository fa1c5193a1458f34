"""Guests that are kept up by name: one background process holds each of them, until it is told to end it.

The holder locks its guest's directory for as long as it lives, so a name is taken exactly as long as there is
somebody to answer for it; what a killed holder leaves behind is recognised by the free lock. There is no daemon
beyond the holders, and `python -m dfbuild.session.keep` is how `up` starts one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dfbuild import process
from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, DfbuildError, InfraError, UsageError
from dfbuild.guest.protocol import Guest, GuestSpec
from dfbuild.model import Cell, Media, StageReached
from dfbuild.releases import Release
from dfbuild.runtime import RUNTIME, runtime_directory
from dfbuild.session.attached import attach
from dfbuild.session.booting import boot
from dfbuild.session.held import CONSOLE_LOG, END_SECONDS, MANIFEST
from dfbuild.session.messages import Problem, dump, error_of, parse, parse_manifest, problem_of
from dfbuild.session.protocol import Manifest
from dfbuild.workspace import Workspace, require_name

HOLDER_LOG = "holder.log"
_LOCK = "lock"
_RUNTIME = "k"
_FOREVER = 1e9
# `struct flock` of fcntl(2). Open file description locks, because they can be asked about without being taken.
_FLOCK = struct.Struct("@hhqqi4x")
_WHOLE_FILE = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Order:
    """What a holder is told on its standard input. `seconds` is how long the boot may take."""

    workspace: Path
    name: str
    release: Release
    cell: Cell
    media: Media
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """What a holder says on its standard output: lines to show, and at last whether the guest is up."""

    said: str = ""
    problem: Problem | None = None
    up: bool = False


def up(
    workspace: Workspace,
    name: str,
    release: Release,
    cell: Cell,
    media: Media,
    deadline: Deadline,
    say: Callable[[str], None],
) -> Manifest:
    """Boot a guest that stays up under `name` when this process has gone; `say` gets its progress in lines.

    Raises `UsageError` if the name is taken or no name, and all that `session.boot` raises.
    """
    directory = require_free(workspace, name)
    directory.mkdir(parents=True, exist_ok=True)
    order = Order(workspace.root, name, release, cell, media, deadline.remaining())
    with (directory / HOLDER_LOG).open("wb") as log:
        holder = process.spawn(
            [sys.executable, "-m", "dfbuild.session.keep"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=directory,
        )
    try:
        assert holder.stdin is not None and holder.stdout is not None
        with holder.stdin, holder.stdout:
            holder.stdin.write(dump(order))
            holder.stdin.close()
            _listen(holder.stdout.fileno(), deadline, say, directory / HOLDER_LOG)
    except BaseException:
        _dismiss(holder)
        raise
    return find(workspace, name)


def require_free(workspace: Workspace, name: str) -> Path:
    """The directory of a guest to be called `name`; raises `UsageError` if the name is taken or no name."""
    directory = _directory(workspace, name)
    if _held(directory):
        raise UsageError(
            f"guest {name!r} is up already", hint=f"`dfbuild guest down {name}`, or choose another name"
        )
    return directory


def find(workspace: Workspace, name: str) -> Manifest:
    """The manifest of the guest that is up under `name`; `UsageError` if there is none."""
    directory = _directory(workspace, name)
    manifest = directory / MANIFEST
    if not _held(directory):
        _clean_up(manifest)
    if not manifest.exists():
        if ended(workspace, name) is not None:
            raise UsageError(
                f"guest {name!r} has ended",
                hint=f"`dfbuild guest console {name}` shows its last words, `dfbuild guest up` starts another",
            )
        others = ", ".join(names(workspace))
        raise UsageError(
            f"no guest is up as {name!r}", hint=f"up are: {others}" if others else "`dfbuild guest up` starts one"
        )
    return parse_manifest(manifest.read_bytes())


def ended(workspace: Workspace, name: str) -> Path | None:
    """What the console of a guest called `name` said that is up no more; None if it is up, or there was none."""
    directory = _directory(workspace, name)
    log = directory / CONSOLE_LOG
    return log if log.is_file() and not _held(directory) else None


def names(workspace: Workspace) -> tuple[str, ...]:
    """The names of the guests that are up."""
    return tuple(sorted(m.parent.name for m in workspace.guests.glob(f"*/{MANIFEST}") if _held(m.parent)))


def manifests(workspace: Workspace) -> Iterator[Manifest]:
    """The manifests of the guests that are up; what ends meanwhile is left out."""
    for name in names(workspace):
        with contextlib.suppress(UsageError, FileNotFoundError):
            yield find(workspace, name)


def down(workspace: Workspace, name: str, deadline: Deadline) -> None:
    """End the guest that is up under `name`, and wait until its holder has gone. Its transcript stays."""
    manifest = find(workspace, name)
    try:
        holder = os.pidfd_open(manifest.owner)
    except ProcessLookupError:
        return
    try:
        try:
            with attach(manifest) as session:
                session.stop(deadline.sooner(END_SECONDS, what=f"the end of guest {name!r}"))
            deadline.select(holder, what=f"the holder of guest {name!r}")
        except (InfraError, DeadlineExceeded):
            # A holder that does not answer: its guest dies with it.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(holder, signal.SIGKILL)
            Deadline.after(END_SECONDS).select(holder, what=f"the holder of guest {name!r}")
    finally:
        os.close(holder)
    (manifest.transcript.parent / MANIFEST).unlink(missing_ok=True)


def hold(order: Order, guest: Guest, cancel: Cancel, report: Callable[[Progress], None]) -> None:
    """The holder's work: boot `guest`, report that it is up, and stay until it has ended or `cancel` is set."""

    deadline = Deadline.after(order.seconds, what=f"guest {order.name!r}", cancel=cancel)
    workspace = Workspace(order.workspace)
    directory = _directory(workspace, order.name)

    def said(stage: StageReached) -> None:
        report(Progress(said=f"{stage.stage} at {stage.seconds:.1f} s"))

    with workspace.in_use(), boot(guest, order.release, order.cell, directory, deadline, said) as session:
        report(Progress(up=True))
        console = session.console
        with console.changed, contextlib.suppress(Cancelled):
            Deadline.after(_FOREVER, cancel=cancel).wait(console.changed, lambda: console.closed)


def _clean_up(manifest: Path) -> None:
    """Remove what a killed holder left: its manifest, and its guest's sockets and overlays."""
    with contextlib.suppress(FileNotFoundError, InfraError):
        runtime = parse_manifest(manifest.read_bytes()).control.parent
        # Nothing is removed on the word of a file that does not look like what `main` made.
        if runtime.name.startswith(f"{RUNTIME}{_RUNTIME}-") and runtime.stat().st_uid == os.geteuid():
            shutil.rmtree(runtime, ignore_errors=True)
    manifest.unlink(missing_ok=True)


def _directory(workspace: Workspace, name: str) -> Path:
    return workspace.guests / require_name(name, "a guest")


def _held(directory: Path) -> bool:
    """Whether a holder that is alive has the lock of `directory`."""
    try:
        with (directory / _LOCK).open("rb") as file:
            answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _WHOLE_FILE)
    except FileNotFoundError:
        return False
    return int(_FLOCK.unpack(answer)[0]) != fcntl.F_UNLCK


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / _LOCK).open("ab") as file:
        try:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        except BlockingIOError as error:
            raise UsageError(f"guest {directory.name!r} is up already") from error
        # Of a killed one; its process's number may be anybody's by now, and who asks would believe it.
        _clean_up(directory / MANIFEST)
        yield


def _listen(pipe: int, deadline: Deadline, say: Callable[[str], None], log: Path) -> None:
    """Take in a holder's progress until the guest is up; raises its problem."""
    pending = b""
    while True:
        deadline.select(pipe, what="the guest to come up")
        data = os.read(pipe, 65536)
        if not data:
            raise InfraError("the guest's holder ended before the guest was up", hint=f"its log is {log}")
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            progress = parse(Progress, line)
            if progress.problem is not None:
                raise error_of(progress.problem)
            if progress.up:
                return
            say(progress.said)


def _dismiss(holder: subprocess.Popen[bytes]) -> None:
    """End a holder whose guest did not come up: let it end the guest, then insist."""
    holder.terminate()
    with contextlib.suppress(DeadlineExceeded):  # `wait` has killed it then.
        process.wait(holder, Deadline.after(END_SECONDS + 1, what="the guest's holder"))


def main() -> int:
    """Hold the guest of the order on standard input."""
    from dfbuild.guest import create
    from dfbuild.guest.accel import probe

    cancel = Cancel()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # In a thread: the switch has a lock, which the interrupted code may be holding.
        signal.signal(number, lambda *_: threading.Thread(target=cancel.set).start())
    order = parse(Order, sys.stdin.buffer.read())
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def report(progress: Progress) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(out, dump(progress))
        if progress.up:
            os.close(out)

    workspace = Workspace(order.workspace)
    runtime = runtime_directory(_RUNTIME)
    try:
        with _locked(_directory(workspace, order.name)):
            deadline = Deadline.after(order.seconds, what=f"guest {order.name!r}", cancel=cancel)
            spec = GuestSpec(order.name, order.cell.shape, order.media, runtime)
            hold(order, create(spec, probe(workspace, deadline)), cancel, report)
    except DfbuildError as error:
        report(Progress(problem=problem_of(error)))
        return error.exit_status
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
