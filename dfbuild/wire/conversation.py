"""A TCP connection of the peer's, as those use it who call: they wait, read, send and close."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from dfbuild.deadline import Deadline
from dfbuild.errors import DfbuildError
from dfbuild.wire.frames import Segment
from dfbuild.wire.tcp import Connection, State

if TYPE_CHECKING:
    from dfbuild.wire.peer import Peer

_SLOWEST = 8.0
"""Seconds between retransmissions, at most."""


class WireError(DfbuildError):
    """A connection over the wire ended where it should not have: refused, reset, or closed too early."""

    exit_status = 1


def _deafen(connection: Connection, deaf: bool) -> list[Segment]:
    connection.deaf = deaf
    return []


class Conversation:
    """A TCP connection of the peer's, for callers: every method may be used from any one thread at a time."""

    def __init__(self, peer: Peer, connection: Connection) -> None:
        self._peer = peer
        self.connection = connection
        self.flow = connection.flow
        self.retransmissions = 0
        self._patience = peer.rto
        self._due = time.monotonic() + peer.rto
        self._progress: tuple[State, int] = (connection.state, connection.send_base)

    def wait(self, predicate: Callable[[Connection], bool], deadline: Deadline, what: str) -> None:
        """Wait until `predicate(connection)`, which is asked after every frame."""
        self._peer.wait(lambda: predicate(self.connection), deadline, f"{what} ({self.connection.state})")

    def establish(self, deadline: Deadline) -> Self:
        """Wait for the handshake's end. Raises `WireError` if the guest refuses."""
        self.wait(
            lambda c: c.state not in (State.CONNECTING, State.ACCEPTING), deadline, f"port {self.flow.target_port}"
        )
        self._insist(self.connection.state is State.OPEN)
        return self

    def send(self, data: bytes) -> None:
        """Queue `data`; it goes as the guest's window allows."""
        self._peer.act(self, lambda connection: connection.send(data))

    def settle(self, deadline: Deadline) -> None:
        """Wait until the guest has acknowledged all that was sent. Raises `WireError` if the connection ends."""
        self.wait(lambda c: c.ended or not c.outgoing, deadline, "an acknowledgement")
        self._insist(self.connection.state is State.OPEN)

    def read_some(self, limit: int, deadline: Deadline) -> bytes:
        """At least one and up to `limit` bytes; none once the guest has closed its direction.

        Raises `WireError` if the connection is reset.
        """
        self.wait(lambda c: c.ended or c.remote_closed or bool(c.incoming), deadline, "data")
        data = self._take(limit)
        self._insist(bool(data) or self.connection.remote_closed)
        return data

    def read(self, count: int, deadline: Deadline) -> bytes:
        """Exactly `count` bytes. Raises `WireError` if the connection ends before."""
        data = b""
        while len(data) < count:
            chunk = self.read_some(count - len(data), deadline)
            self._insist(bool(chunk))
            data += chunk
        return data

    def read_all(self, deadline: Deadline) -> bytes:
        """What comes until the guest closes its direction. Raises `WireError` if the connection is reset."""
        data = bytearray()
        while chunk := self.read_some(1 << 20, deadline):
            data += chunk
        return bytes(data)

    @contextlib.contextmanager
    def deaf(self) -> Iterator[None]:
        """What the guest sends meanwhile is seen, and not acknowledged: as far as it knows, it is on its way."""
        self._peer.act(self, lambda connection: _deafen(connection, True))
        try:
            yield
        finally:
            self._peer.act(self, lambda connection: _deafen(connection, False))

    def close(self) -> None:
        """Close this direction after all that is queued."""
        self._peer.act(self, Connection.close)

    def abort(self) -> None:
        """Reset the connection, and forget it. Harmless on one that has ended."""
        self._peer.act(self, Connection.abort)
        self._peer.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _take(self, limit: int) -> bytes:
        taken = bytearray()

        def take(connection: Connection) -> list[Segment]:
            data, segments = connection.take(limit)
            taken.extend(data)
            return segments

        self._peer.act(self, take)
        return bytes(taken)

    def _insist(self, fine: bool) -> None:
        if not fine:
            last = self.connection.received[-1] if self.connection.received else "nothing"
            raise WireError(f"the connection is {self.connection.state}; last came {last}")

    # ── the peer's side, under its lock ──

    def progressed(self, now: float) -> None:
        """Restart the retransmission clock if the guest got on."""
        progress = (self.connection.state, self.connection.send_base)
        if progress != self._progress:
            self._progress, self._patience, self._due = progress, self._peer.rto, now + self._peer.rto

    def overdue(self, now: float) -> list[Segment]:
        """What is to be sent again at `now`, each time after a longer silence."""
        if not self.connection.waiting:
            self._due = now + self._patience
        if now < self._due:
            return []
        self._patience = min(_SLOWEST, self._patience * 2)
        self._due = now + self._patience
        segments = self.connection.timeout()
        self.retransmissions += len(segments)
        return segments
