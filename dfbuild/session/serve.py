"""The control server of a session: a UNIX socket by which other processes share the guest.

Bytes of the console do not go over it: clients read the transcript's file, and are told how far it has grown.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from dfbuild.console.reader import ConsoleReader
from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import DfbuildError, InfraError
from dfbuild.guest.protocol import Exit
from dfbuild.model import StageReached
from dfbuild.session.messages import LINE_LIMIT, ConsoleState, Reply, Request, dump, parse, problem_of

_CLIENTS = 64
_AT_ONCE = 8
"""Requests that one client may have under way."""
_LONGEST = 600.0
"""Seconds that any request may take."""
_PEER = struct.Struct("3i")


class Served(Protocol):
    """What of a session clients can ask for."""

    @property
    def stages(self) -> tuple[StageReached, ...]: ...
    def pause(self, deadline: Deadline) -> None: ...
    def resume(self, deadline: Deadline) -> None: ...
    def reset(self, deadline: Deadline) -> None: ...
    def diagnose(self, deadline: Deadline) -> str: ...
    def stop(self, deadline: Deadline) -> Exit: ...


class ControlServer:
    """Serves `session` on the socket `path`, whose directory is 0700, to processes of this user."""

    def __init__(self, path: Path, session: Served, console: ConsoleReader) -> None:
        """Bind. Raises `InfraError` if that fails."""
        self._session = session
        self._console = console
        self._path = path
        self._clients: set[_Client] = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            path.unlink(missing_ok=True)
            self._socket.bind(str(path))
            path.chmod(0o600)
            self._socket.listen(16)
        except OSError as error:
            self._socket.close()
            raise InfraError(f"cannot serve the guest on {path}: {error.strerror or error}") from error
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(_CLIENTS, thread_name_prefix="control"))
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"control {path.parent.name}", daemon=True)

    def start(self) -> None:
        """Serve from now on, in a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """Cancel what is under way, drop all clients and remove the socket. Idempotent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()
        self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        woken = False

        def grown() -> None:
            # From the console's thread; one call in flight is enough however fast it grows.
            nonlocal woken
            if not woken:
                woken = True
                self._loop.call_soon_threadsafe(wake)

        def wake() -> None:
            nonlocal woken
            woken = False
            for client in self._clients:
                client.changed.set()

        server = await asyncio.start_unix_server(self._accept, sock=self._socket, limit=LINE_LIMIT)
        with self._console.observed(grown):
            await self._closing.wait()
        server.close()
        for client in tuple(self._clients):
            client.farewell()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer: socket.socket = writer.get_extra_info("socket")
        _, uid, _ = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid != os.geteuid() or len(self._clients) >= _CLIENTS:
            writer.close()
            return
        client = _Client(reader, writer, self._session, self._console)
        self._clients.add(client)
        try:
            await client.serve()
        finally:
            self._clients.discard(client)


class _Client:
    """One connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        session: Served,
        console: ConsoleReader,
    ) -> None:
        self.changed = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._writing = asyncio.Lock()
        self._session = session
        self._console = console
        self._cancel = Cancel()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching = False

    def farewell(self) -> None:
        """Tell the last state to a client that watches, as far as it goes without waiting, and drop it."""
        if self._watching:
            self._writer.write(dump(Reply(0, state=self._state())))
        self.drop()

    def drop(self) -> None:
        """End the connection."""
        self._cancel.set()
        self._writer.close()

    async def serve(self) -> None:
        """Answer until the client goes, or says something that is no request."""
        try:
            while line := await self._reader.readline():
                request = parse(Request, line)
                await self._slots.acquire()
                self._spawn(self._answer(request))
        except (ConnectionError, ValueError, InfraError):
            pass  # An over-long line, or nonsense: nothing to answer to.
        finally:
            self.drop()
            for task in self._tasks:
                task.cancel()

    def _spawn(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request) -> None:
        try:
            if request.operation == "watch" and not self._watching:
                self._watching = True
                self._spawn(self._push())
            reply = await asyncio.get_running_loop().run_in_executor(None, self._perform, request)
            await self._write(reply)
        finally:
            self._slots.release()

    async def _push(self) -> None:
        while True:
            await self.changed.wait()
            self.changed.clear()
            await self._write(Reply(0, state=self._state()))

    async def _write(self, reply: Reply) -> None:
        # A client that does not read holds up its own replies, and no other's.
        try:
            async with self._writing:
                self._writer.write(dump(reply))
                await self._writer.drain()
        except ConnectionError:
            self.drop()

    def _state(self) -> ConsoleState:
        console = self._console
        failure = problem_of(console.failure) if console.failure is not None else None
        # `closed` first: the size that is read after it is the last one then.
        closed = console.closed
        return ConsoleState(console.size, closed, console.crash, failure)

    def _perform(self, request: Request) -> Reply:
        """In a thread of its own: carry out one request."""
        deadline = Deadline.after(
            max(0.0, min(request.seconds, _LONGEST)), what=request.operation, cancel=self._cancel
        )
        questions: dict[str, Callable[[], Reply]] = {
            "watch": lambda: Reply(request.id, state=self._state(), stages=self._session.stages),
            "diagnose": lambda: Reply(request.id, text=self._session.diagnose(deadline)),
            "stop": lambda: Reply(request.id, exit=self._session.stop(deadline)),
        }
        orders: dict[str, Callable[[], None]] = {
            "send": lambda: self._console.send(_decode(request.data), deadline),
            "pause": lambda: self._session.pause(deadline),
            "resume": lambda: self._session.resume(deadline),
            "reset": lambda: self._session.reset(deadline),
        }
        try:
            if request.operation in questions:
                return questions[request.operation]()
            orders[request.operation]()
            return Reply(request.id)
        except DfbuildError as error:
            return Reply(request.id, problem=problem_of(error))


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InfraError(f"not base64: {error}") from error
