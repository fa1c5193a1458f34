"""A session that another process holds: its transcript read from disk, everything else by its control socket."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from pathlib import Path

from dfbuild.console.protocol import ConsoleClosed
from dfbuild.console.transcript import read
from dfbuild.deadline import Deadline
from dfbuild.errors import GuestCrashed, InfraError
from dfbuild.guest.protocol import Exit
from dfbuild.model import CrashReport, StageReached
from dfbuild.session.messages import (
    LINE_LIMIT,
    ConsoleState,
    Operation,
    Reply,
    Request,
    dump,
    error_of,
    parse,
    parse_manifest,
)
from dfbuild.session.protocol import Manifest

_GONE = "whoever held this guest is gone, and the guest with it"
_PIECE = 16384
"""Bytes typed with one request."""
_CONNECT_SECONDS = 10.0


def attach(where: Path | Manifest) -> AttachedSession:
    """Attach to a guest that is up, by its manifest or the path of it. Raises `InfraError` if it isn't any more."""
    if isinstance(where, Path):
        try:
            manifest = parse_manifest(where.read_bytes())
        except OSError as error:
            raise InfraError(f"no guest is up at {where}: {error.strerror}") from error
    else:
        manifest = where
    link = _Link(manifest.control)
    first = link.ask("watch", Deadline.after(_CONNECT_SECONDS, what="the guest's holder"))
    return AttachedSession(manifest, link, first.stages)


class _Link:
    """The connection: one thread takes in replies and pushed states, any thread asks."""

    def __init__(self, control: Path) -> None:
        self.changed = threading.Condition()
        self.state = ConsoleState(0, False)
        self.gone = False
        self._replies: dict[int, Reply | None] = {}
        self._last = 0
        self._asking = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(str(control))
        except OSError as error:
            self._socket.close()
            raise InfraError(f"cannot attach by {control}: {_GONE}") from error
        self._thread = threading.Thread(target=self._run, name="attached", daemon=True)
        self._thread.start()

    def ask(self, operation: Operation, deadline: Deadline, data: bytes = b"") -> Reply:
        """Ask and wait for the reply; raises the error that it speaks of."""
        with self.changed:
            self._last += 1
            number = self._last
            self._replies[number] = None
        request = Request(number, operation, deadline.remaining(), base64.b64encode(data).decode())
        try:
            with self._asking:
                self._socket.sendall(dump(request))
            with self.changed:
                # The holder keeps the deadline and answers with what became of it; that takes a moment more.
                late = Deadline.after(deadline.remaining() + 1.0, cancel=deadline.cancel)
                late.wait(self.changed, lambda: self.gone or self._replies[number] is not None, what=deadline.what)
                reply = self._replies[number]
        except OSError as error:
            raise InfraError(_GONE) from error
        finally:
            with self.changed:
                self._replies.pop(number, None)
        if reply is None:
            raise InfraError(_GONE)
        if reply.problem is not None:
            raise error_of(reply.problem)
        return reply

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        try:
            with self._socket.makefile("rb") as lines:
                while line := lines.readline(LINE_LIMIT):
                    self._take(parse(Reply, line))
        except (OSError, InfraError):
            pass  # The same as its end: nothing more can be learnt from it.
        finally:
            with self.changed:
                self.gone = True
                self.changed.notify_all()

    def _take(self, reply: Reply) -> None:
        with self.changed:
            if reply.state is not None:
                self.state = reply.state
            if reply.id in self._replies:
                self._replies[reply.id] = reply
            self.changed.notify_all()


class AttachedConsole:
    """The console of a guest that another process owns. Implements `Console`."""

    def __init__(self, log: Path, link: _Link) -> None:
        self.path = log
        self._link = link

    @property
    def size(self) -> int:
        # When the holder is gone, all that it wrote is what there is.
        return self.path.stat().st_size if self._link.gone else self._link.state.size

    @property
    def closed(self) -> bool:
        return self._link.gone or self._link.state.closed

    @property
    def crash(self) -> CrashReport | None:
        return self._link.state.crash

    def read(self, offset: int, limit: int = 65536) -> bytes:
        return read(self.path, offset, min(limit, self.size - offset))

    def wait(self, offset: int, deadline: Deadline) -> int:
        link = self._link
        with link.changed:
            deadline.wait(
                link.changed,
                lambda: self.closed or self.crash is not None or self.size > offset,
                what="output on the console",
            )
            if self.crash is not None:
                raise GuestCrashed(self.crash)
            if link.state.failure is not None:
                raise error_of(link.state.failure)
            if self.size <= offset:
                raise ConsoleClosed("the guest's console has ended")
            return self.size

    def follow(self, offset: int, deadline: Deadline) -> bool:
        """Wait until there is something beyond `offset`, whatever crashed before it; False at the console's end."""
        link = self._link
        with link.changed:
            deadline.wait(link.changed, lambda: self.closed or self.size > offset, what="output on the console")
            return self.size > offset

    def send(self, data: bytes, deadline: Deadline) -> None:
        if self.closed:
            raise ConsoleClosed("the guest's console has ended")
        for start in range(0, len(data), _PIECE):
            self._link.ask("send", deadline, data[start : start + _PIECE])


class AttachedSession:
    """A `Session` over a guest that another process holds. A context manager: leaving it only lets go."""

    def __init__(self, manifest: Manifest, link: _Link, stages: tuple[StageReached, ...]) -> None:
        self._manifest = manifest
        self._link = link
        self._stages = stages
        self._console = AttachedConsole(manifest.transcript, link)

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def console(self) -> AttachedConsole:
        return self._console

    @property
    def stages(self) -> tuple[StageReached, ...]:
        return self._stages

    def pause(self, deadline: Deadline) -> None:
        self._link.ask("pause", deadline)

    def resume(self, deadline: Deadline) -> None:
        self._link.ask("resume", deadline)

    def reset(self, deadline: Deadline) -> None:
        self._link.ask("reset", deadline)

    def diagnose(self, deadline: Deadline) -> str:
        return self._link.ask("diagnose", deadline).text

    def stop(self, deadline: Deadline) -> Exit:
        how = self._link.ask("stop", deadline).exit
        if how is None:
            raise InfraError("the guest's holder did not say how the guest ended")
        return how

    def close(self) -> None:
        self._link.close()

    def __enter__(self) -> AttachedSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
