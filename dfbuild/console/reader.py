"""The owner's end of a console: one thread reads every byte to disk, past the crash monitor and the boot stages.

Everybody else, in this process and in others, reads the transcript by offset and is woken when it grows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dfbuild.console.monitor import Monitor
from dfbuild.console.protocol import ConsoleClosed
from dfbuild.console.stages import BootTracker
from dfbuild.console.transcript import Recorder, excerpt, read
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, GuestCrashed, InfraError
from dfbuild.model import CrashReport

_CHUNK = 1 << 17
_AT_A_TIME = 64
"""Chunks between two looks at whether to end: more than a socket holds."""
_OPEN_LINE = 0.1
"""Seconds without a byte after which an open line is judged as it is."""
_QUIET = 0.2
"""Seconds without a byte after which a crash is taken to have said everything."""
_AT_MOST = 0.6
"""Seconds after the first sign of a crash at which it is made known in any case. The verdict's limit is 1 s."""


_LAST_WORD = 1.0
"""Seconds that a line which does not end is waited for."""


class ConsoleReader:
    """The console of a guest that this process owns. Implements `Console`; any thread may use it.

    A crash is made known together with its excerpt: when the guest has gone quiet, its console has ended, or
    `_AT_MOST` seconds later, whichever comes first.
    """

    def __init__(
        self,
        stream: socket.socket,
        log: Path,
        monitor: Monitor,
        *,
        power_on: float,
        tracker: BootTracker | None = None,
    ) -> None:
        """Record `stream`, which becomes this object's own, in `log`. Raises `InfraError` if that fails."""
        self._stream = stream
        self._monitor = monitor
        self._tracker = tracker
        self._pending: tuple[CrashReport, float] | None = None
        self._crash: CrashReport | None = None
        self._failure: InfraError | None = None
        self._size = 0
        self._closed = False
        self._observers: list[Callable[[], None]] = []
        self._ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._typing = threading.Lock()
        self.changed = threading.Condition()
        """Notified on every growth, crash and end. Guards the tracker."""
        try:
            self._recorder = Recorder(log, power_on)
        except OSError as error:
            raise _cannot_write(log, error) from error
        self.path = log
        stream.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"console {log.parent.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop reading and let go of the stream; what was recorded stays readable. Idempotent."""
        os.eventfd_write(self._ended, 1)
        if self._thread.is_alive():
            self._thread.join()
        self._stream.close()

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self._ended)

    # ── Console ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def size(self) -> int:
        return self._size

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def crash(self) -> CrashReport | None:
        return self._crash

    @property
    def suspicious(self) -> bool:
        """Whether a crash was seen that is about to be made known."""
        return self._pending is not None

    @property
    def failure(self) -> InfraError | None:
        """Why the recording ended before the console did, if so."""
        return self._failure

    def read(self, offset: int, limit: int = 65536) -> bytes:
        return read(self.path, offset, min(limit, self._size - offset))

    def wait(self, offset: int, deadline: Deadline) -> int:
        def woken() -> bool:
            return self._size > offset or self._closed or self._crash is not None

        with self.changed:
            deadline.wait(self.changed, woken, what="output on the console")
            if self._crash is not None:
                raise GuestCrashed(self._crash)
            if self._failure is not None:
                raise self._failure
            if self._size <= offset:
                raise ConsoleClosed("the guest's console has ended")
            return self._size

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Type. A guest that does not read holds this up until the deadline, and nobody else."""
        poll = select.poll()
        poll.register(self._stream, select.POLLOUT)
        poll.register(self._ended, select.POLLIN)
        if deadline.cancel is not None:
            poll.register(deadline.cancel.fileno(), select.POLLIN)
        left = memoryview(data)
        with deadline.holding(self._typing, "others who type"):
            while left:
                deadline.check("the guest to take what was typed")
                if self._closed:
                    raise self._failure or ConsoleClosed("the guest's console has ended")
                try:
                    left = left[self._stream.send(left, socket.MSG_NOSIGNAL) :]
                except BlockingIOError:
                    poll.poll(deadline.remaining() * 1000)
                except OSError as error:
                    raise ConsoleClosed("the guest's console has ended") from error

    # ── for the session ──────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def observed(self, call: Callable[[], None]) -> Iterator[None]:
        """Have `call` called, from the reading thread, after every growth, crash and end. It must be quick."""
        with self.changed:
            self._observers.append(call)
        try:
            yield
        finally:
            with self.changed:
                self._observers.remove(call)

    def settled(self, deadline: Deadline) -> CrashReport | None:
        """The crash, if any, once everything that was printed up to now has been judged: within a second."""
        what = "the crash monitor's last word"
        with self.changed:
            try:
                deadline.sooner(_LAST_WORD).wait(
                    self.changed, lambda: self._closed or not (self.suspicious or self._monitor.unsettled), what
                )
            except DeadlineExceeded:
                deadline.check(what)
                # Who never stops printing is judged by what there is.
                now = time.monotonic()
                self._suspect(self._monitor.settle(), now)
                self._publish(now, force=True)
            return self._crash

    def rearm(self) -> None:
        """Forget the crash and watch again: the guest was reset."""
        with self.changed:
            self._crash = self._pending = None
            self._monitor.rearm()
        self._tell()

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        failure: InfraError | None = InfraError("the console's reader failed", hint="this is a defect of dfbuild")
        try:
            self._read_all()
            failure = None
            with self.changed:
                self._suspect(self._monitor.settle(), time.monotonic())
        except OSError as error:
            failure = _cannot_write(self.path, error)
        finally:
            # Also after a defect: whoever waits must learn that nothing more will come.
            self._recorder.close()
            with self.changed:
                self._failure, self._closed = failure, True
                self._publish(time.monotonic(), force=True)
                self.changed.notify_all()
            os.eventfd_write(self._ended, 1)
            self._tell()

    def _read_all(self) -> None:
        poll = select.poll()
        poll.register(self._stream, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(self._patience())}
            if not ready:
                self._quiet()
                continue
            # When told to end, what has already been printed is still recorded.
            for _ in range(_AT_A_TIME):
                chunk = self._receive()
                if not chunk:
                    break
                self._take(chunk)
            if chunk == b"" or self._ended in ready:
                return

    def _receive(self) -> bytes | None:
        """The next bytes; empty at the end, None if there were none after all."""
        try:
            return self._stream.recv(_CHUNK)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def _patience(self) -> float | None:
        """Milliseconds to wait for a byte before `_quiet` has something to do."""
        if self._pending is not None:
            return max(0.0, min(_QUIET, self._pending[1] + _AT_MOST - time.monotonic())) * 1000
        return _OPEN_LINE * 1000 if self._monitor.unsettled else None

    def _take(self, chunk: bytes) -> None:
        when = time.monotonic()
        offset = self._recorder.size
        self._recorder.append(chunk, when)
        with self.changed:
            self._suspect(self._monitor.feed(chunk, offset), when)
            if self._tracker is not None:
                self._tracker.feed(chunk, offset, when)
            self._size = self._recorder.size
            self._publish(when)
            self.changed.notify_all()
        self._tell()

    def _quiet(self) -> None:
        now = time.monotonic()
        with self.changed:
            if self._pending is None:
                self._suspect(self._monitor.settle(), now)
            else:
                self._publish(now, force=True)
            self.changed.notify_all()
        self._tell()

    def _suspect(self, report: CrashReport | None, now: float) -> None:
        if report is not None:
            self._pending = (report, now)

    def _publish(self, now: float, *, force: bool = False) -> None:
        """Make a pending crash known if its time has come."""
        if self._pending is not None and (force or now >= self._pending[1] + _AT_MOST):
            report, _ = self._pending
            self._pending = None
            with contextlib.suppress(OSError):
                report = dataclasses.replace(report, excerpt=excerpt(self.path, report.offset))
            self._crash = report

    def _tell(self) -> None:
        for call in tuple(self._observers):
            call()


def _cannot_write(log: Path, error: OSError) -> InfraError:
    return InfraError(f"cannot record the console in {log}: {error.strerror}", hint="is the disk full?")
