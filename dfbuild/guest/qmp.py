"""QMP for threads: qemu.qmp's asyncio client in one loop thread, behind calls that wait under a `Deadline`.

Importing this costs a tenth of a second (asyncio): import it where a guest is started.
"""

from __future__ import annotations

import asyncio
import atexit
import collections
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from qemu.qmp import (
    ConnectError,
    ExecInterruptedError,
    ExecuteError,
    Message,
    QMPClient,
    QMPError,
    Runstate,
    StateError,
)

from dfbuild.deadline import Deadline
from dfbuild.errors import InfraError
from dfbuild.guest.process import HypervisorGone

T = TypeVar("T")

# A hostile guest can cause events for ever; the last ones tell how it ended.
_EVENTS_KEPT = 256
_CLOSE_SECONDS = 1.0


class QmpRefused(InfraError):
    """QEMU answered a command with an error."""


class QmpGone(HypervisorGone):
    """The QMP connection is gone."""


class _Loop:
    """An asyncio loop in a daemon thread that is started at the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="dfbuild-qmp", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def forget(self) -> None:
        """In a forked child there is no thread: start a new one when it is needed."""
        self._lock = threading.Lock()
        self._loop = None

    def close(self) -> None:
        """At the interpreter's exit: end what still runs, lest asyncio complains of it."""
        if self._loop is not None:
            with contextlib.suppress(TimeoutError):  # a busy host's loop; nobody reads the complaint but the user
                self.submit(_cancel_all()).result(_CLOSE_SECONDS)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


_LOOP = _Loop()
os.register_at_fork(after_in_child=_LOOP.forget)
atexit.register(_LOOP.close)


class Qmp:
    """A negotiated QMP connection. Any thread may call; calls pending when QEMU dies fail at once."""

    def __init__(
        self,
        connection: socket.socket,
        deadline: Deadline,
        on_event: Callable[[Qmp, Message], None] = lambda qmp, event: None,
    ) -> None:
        """Negotiate over `connection`, which is taken over. Raises `QmpGone` if QEMU hangs up.

        `on_event` is called for every event in the loop's thread: it may `post`, and must not wait.
        """
        connection.setblocking(False)
        self._on_event = on_event
        self._connection = connection
        self._client = QMPClient("guest")
        self._client.events.event_filter = self._record
        self._events: collections.deque[Message] = collections.deque(maxlen=_EVENTS_KEPT)
        connected = _LOOP.submit(self._client.connect(connection))
        try:
            _result(connected, deadline, "QEMU's QMP greeting")
        finally:
            connected.cancel()  # whatever ended the wait; the library then hangs up
        self._ended = _LOOP.submit(self._serve())

    def execute(self, command: str, deadline: Deadline, **arguments: object) -> Any:
        """Run a QMP command and return what it returns; underscores in argument names become hyphens.

        Raises `QmpRefused`, `QmpGone`, and as `Deadline.check` does; a late answer is then dropped.
        """
        return _result(self.post(command, **arguments), deadline, f"QMP {command}")

    def post(self, command: str, **arguments: object) -> Future[object]:
        """Send a command without waiting."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return _LOOP.submit(self._client.execute(command, named or None))

    def human(self, command: str, deadline: Deadline, cpu: int | None = None) -> str:
        """Run a command of the human monitor, for what QMP does not tell, as seen from `cpu` if one is given."""
        seen = {} if cpu is None else {"cpu_index": cpu}
        return str(self.execute("human-monitor-command", deadline, command_line=command, **seen))

    @property
    def closed(self) -> bool:
        return self._ended.done()

    @property
    def events(self) -> tuple[Message, ...]:
        """The last events, oldest first."""
        return tuple(self._events.copy())

    def drain(self, deadline: Deadline) -> None:
        """After QEMU's end: wait until its last events have been read."""
        _result(self._ended, deadline, "the end of the QMP connection")

    def close(self, deadline: Deadline) -> None:
        """Hang up. Idempotent."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self.drain(deadline)

    def _record(self, event: Message) -> bool:
        """Called in the loop thread for every event; False keeps it out of the library's own endless queue."""
        self._events.append(event)
        self._on_event(self, event)
        return False

    async def _serve(self) -> None:
        """Wait for the connection's end, whoever brought it, and clean up behind it."""
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        with contextlib.suppress(EOFError, OSError, QMPError):
            await self._client.disconnect()


def _result(future: Future[T], deadline: Deadline, what: str) -> T:
    """The future's result or its error in dfbuild's words, under `deadline` and its cancellation."""
    changed = threading.Condition()

    def notify(_: object) -> None:
        with changed:
            changed.notify_all()

    future.add_done_callback(notify)
    with changed:
        deadline.wait(changed, future.done, what)
    try:
        return future.result()
    except ExecuteError as error:
        raise QmpRefused(f"{what}: {error}") from error
    except (ConnectError, ExecInterruptedError, StateError) as error:
        raise QmpGone(f"{what}: QEMU hung up") from error
