"""A host on the wire that lives in this process: answers ARP, opens and accepts TCP connections, forges segments.

One thread reads the link; the callers' threads wait on its progress. `seed` decides all that is random, so a run
can be repeated.
"""

from __future__ import annotations

import collections
import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, InfraError
from dfbuild.wire.conversation import Conversation
from dfbuild.wire.frames import Arp, Flag, Flow, Segment, decode, encode_arp, encode_segment, fragments
from dfbuild.wire.link import Link
from dfbuild.wire.tcp import Connection, refusal

_TICK = 0.25
"""Seconds: how finely retransmission is timed."""
_MOST = 16384
"""Neighbours, conversations, and flows with resets that are kept: the guest says how many come."""
MAC = "52:54:00:0a:09:02"


def _whole(frame: bytes) -> list[bytes]:
    return [frame]


class Listener:
    """A port on which the peer accepts. `syns` are the first segments of all that came, in their order."""

    def __init__(self, peer: Peer, port: int) -> None:
        self._peer = peer
        self.port = port
        self.syns: list[Segment] = []
        self.accepted: collections.deque[Conversation] = collections.deque()

    def accept(self, deadline: Deadline) -> Conversation:
        """The next connection, as soon as it is established."""
        self._peer.wait(lambda: bool(self.accepted), deadline, f"a connection to port {self.port}")
        return self.accepted.popleft().establish(deadline)


class Peer:
    """The host `address` on `link`. Use as a context manager."""

    def __init__(self, link: Link, address: str, *, mac: str = MAC, seed: int = 0, rto: float = 1.0) -> None:
        self.address, self.mac, self.rto = address, mac, rto
        self._link = link
        self._random = random.Random(seed)
        self._ready = threading.Condition()
        self._cancel = Cancel()
        self.neighbours: dict[str, str] = {}
        """MACs by address, of all that asked or answered."""
        self._answers: collections.Counter[str] = collections.Counter()
        self._conversations: dict[Flow, Conversation] = {}
        self._listeners: dict[int, Listener] = {}
        self._cut: Callable[[bytes], list[bytes]] = _whole
        self.unclaimed: collections.Counter[Flow] = collections.Counter()
        """Resets that came for no connection of the peer's, by their flows as it sees them."""
        self._port = self._random.randrange(20000, 60000)
        self._broken: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="wire-peer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cancel.set()
        self._thread.join()

    # ── for callers ──

    def resolve(self, address: str, deadline: Deadline) -> str:
        """The MAC of `address`, asked for by ARP every `rto` seconds until an answer comes."""
        before = self._answers[address]
        while True:
            deadline.check(f"an ARP answer from {address}")
            self._link.send(encode_arp(Arp(False, self.address, self.mac, address)))
            with contextlib.suppress(DeadlineExceeded), self._ready:
                self._await(lambda: self._answers[address] > before, deadline.sooner(self.rto), "an ARP answer")
                return self.neighbours[address]

    def start(
        self, address: str, port: int, *, source_port: int | None = None, stamp: int | None = None
    ) -> Conversation:
        """Send the first segment of a connection to a neighbour that is known, and don't wait."""
        with self._ready:
            if source_port is None:
                source_port = self._next_port(address, port)
            flow = Flow(self.address, source_port, address, port)
            connection = Connection(flow, self._random.getrandbits(32), stamp)
            conversation = Conversation(self, connection)
            self._conversations[connection.flow] = conversation
            self._send(connection.open())
            return conversation

    def connect(
        self,
        address: str,
        port: int,
        deadline: Deadline,
        *,
        source_port: int | None = None,
        stamp: int | None = None,
    ) -> Conversation:
        """A connection that is established. Raises `WireError` if it is refused."""
        if address not in self.neighbours:
            self.resolve(address, deadline)
        return self.start(address, port, source_port=source_port, stamp=stamp).establish(deadline)

    def listen(self, port: int) -> Listener:
        """Accept connections to `port` from now on."""
        with self._ready:
            return self._listeners.setdefault(port, Listener(self, port))

    def inject(self, segment: Segment) -> None:
        """Send `segment` as it is, whoever its flow says it is from, past all bookkeeping."""
        with self._ready:
            self._send([segment])

    def inject_frame(self, frame: bytes) -> None:
        """Send any frame at all: one that scapy built, for instance."""
        self._link.send(frame)

    @contextlib.contextmanager
    def fragmenting(self, size: int, *, backwards: bool = False) -> Iterator[None]:
        """Meanwhile all that is sent goes in IP fragments of `size` bytes, the last one first if `backwards`."""

        def cut(frame: bytes) -> list[bytes]:
            pieces = fragments(frame, size)
            return pieces[::-1] if backwards else pieces

        with self._ready:
            self._cut = cut
        try:
            yield
        finally:
            with self._ready:
                self._cut = _whole

    def wait(self, predicate: Callable[[], bool], deadline: Deadline, what: str) -> None:
        """Wait until `predicate()`, which is asked after every frame."""
        with self._ready:
            self._await(predicate, deadline, what)

    def _await(self, predicate: Callable[[], bool], deadline: Deadline, what: str) -> None:
        """The same for who has the lock. Raises `InfraError` if nothing is received any more."""
        deadline.wait(self._ready, lambda: self._broken is not None or predicate(), what)
        if self._broken is not None:
            raise InfraError(f"the wire's peer broke: {self._broken}") from self._broken

    def act(self, conversation: Conversation, action: Callable[[Connection], list[Segment]]) -> None:
        """Do something with a connection, and send what comes of it."""
        with self._ready:
            self._send(action(conversation.connection))
            conversation.progressed(time.monotonic())

    def forget(self, conversation: Conversation) -> None:
        with self._ready:
            self._conversations.pop(conversation.flow, None)

    # ── the thread ──

    def _run(self) -> None:
        try:
            self._receive_all()
        except Cancelled:
            pass
        except Exception as error:  # noqa: BLE001 - who waits for a frame is to know that none comes
            with self._ready:
                self._broken = error
                self._ready.notify_all()

    def _receive_all(self) -> None:
        tick = min(_TICK, self.rto / 2)
        next_tick = time.monotonic() + tick
        while True:
            frame = None
            with contextlib.suppress(DeadlineExceeded):
                frame = self._link.receive(Deadline(next_tick, cancel=self._cancel))
            now = time.monotonic()
            with self._ready:
                if frame is not None:
                    self._receive(frame, now)
                    self._ready.notify_all()
                if now >= next_tick:
                    for conversation in list(self._conversations.values()):
                        self._send(conversation.overdue(now))
                    next_tick = now + tick

    def _receive(self, frame: bytes, now: float) -> None:
        match decode(frame):
            case Arp() as arp:
                if arp.source in self.neighbours or len(self.neighbours) < _MOST:  # Guests choose who they are.
                    self.neighbours[arp.source] = arp.source_mac
                    self._answers[arp.source] += arp.answer
                if not arp.answer and arp.target == self.address:
                    answer = Arp(True, self.address, self.mac, arp.source, arp.source_mac)
                    self._link.send(encode_arp(answer))
            case Segment() as segment if segment.flow.target == self.address:
                self._receive_segment(segment, now)
            case _:
                pass

    def _receive_segment(self, segment: Segment, now: float) -> None:
        conversation = self._conversations.get(segment.flow.reverse)
        opens = segment.flags & (Flag.SYN | Flag.ACK | Flag.RST) == Flag.SYN
        listener = self._listeners.get(segment.flow.target_port)
        if opens and listener is not None and (conversation is None or conversation.connection.ended):
            if max(len(self._conversations), len(listener.syns)) >= _MOST:
                return  # As any server with a full queue.
            connection, answers = Connection.accept(segment, self._random.getrandbits(32))
            self._conversations[connection.flow] = conversation = Conversation(self, connection)
            listener.syns.append(segment)
            listener.accepted.append(conversation)
            self._send(answers)
        elif conversation is not None:
            self._send(conversation.connection.receive(segment))
            conversation.progressed(now)
        elif segment.flags & Flag.RST:
            if segment.flow.reverse in self.unclaimed or len(self.unclaimed) < _MOST:
                self.unclaimed[segment.flow.reverse] += 1
        else:
            self._send([refusal(segment)])

    def _next_port(self, address: str, port: int) -> int:
        while True:
            self._port = self._port + 1 if self._port < 65535 else 20000
            if Flow(self.address, self._port, address, port) not in self._conversations:
                return self._port

    def _send(self, segments: list[Segment]) -> None:
        for segment in segments:
            target = self.neighbours.get(segment.flow.target)
            if target is not None:
                for frame in self._cut(encode_segment(segment, self.mac, target)):
                    self._link.send(frame)
