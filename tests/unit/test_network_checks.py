"""The network suite's checks against guests made of Python: what they must find, they find."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled
from dfbuild.guest.protocol import WireEnds
from dfbuild.suites.network import test_connections as connections
from dfbuild.suites.network import test_forged as forged
from dfbuild.suites.network.conftest import Services
from dfbuild.wire import Conversation, Link, Peer, WireError, open_wire
from dfbuild.wire.frames import Flag, Flow, Segment, decode
from dfbuild.wire.impair import Impairment, impaired
from dfbuild.wire.sequence import distance, within
from dfbuild.wire.tcp import Connection, State

HOST, GUEST = "10.9.0.2", "10.9.0.1"
ECHO, DISCARD, STATUS = 7, 9, 11

Receive = Callable[[Connection, Segment], list[Segment]]
_plain: Receive = Connection.receive


class Obedient:
    """The link of a guest that takes an unreachable for an order, if it is about what is on its way (RFC 5927)."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.peer: Peer | None = None

    def send(self, frame: bytes) -> None:
        self._link.send(frame)

    def receive(self, deadline: Deadline) -> bytes:
        frame = self._link.receive(deadline)
        if frame[12:14] == b"\x08\0" and frame[23] == 1 and frame[34] == 3:
            assert self.peer is not None
            quoted = frame[42:]
            source, target, seq = struct.unpack("!HHI", quoted[20:28])
            flow = Flow(socket.inet_ntoa(quoted[12:16]), source, socket.inet_ntoa(quoted[16:20]), target)
            connection = self.peer._conversations[flow].connection
            if distance(connection.send_base, seq) >= 0 and distance(seq, connection.send_highest) > 0:
                connection.state = State.RESET
        return frame


# ── how a guest may take what is forged ──


def watson(connection: Connection, segment: Segment) -> list[Segment]:
    """As every DragonFly does: what hits the window ends the connection, a SYN too."""
    hit = within(segment.seq, connection.receive_next, connection.room)
    if connection.state is State.OPEN and segment.flags & Flag.SYN and hit:
        return connection.abort()
    return _plain(connection, segment)


def rfc5961(connection: Connection, segment: Segment) -> list[Segment]:
    """Only the exact reset is taken, the others in the window are challenged."""
    hit = within(segment.seq, connection.receive_next, connection.room)
    if connection.state is State.OPEN and segment.flags & Flag.RST and segment.seq != connection.receive_next:
        return [connection._acknowledge()] if hit else []
    return _plain(connection, segment)


def silent(connection: Connection, segment: Segment) -> list[Segment]:
    """Neither reset nor challenge: what is forged is just dropped."""
    if connection.state is State.OPEN and segment.flags & (Flag.RST | Flag.SYN):
        return []
    return _plain(connection, segment)


def credulous(connection: Connection, segment: Segment) -> list[Segment]:
    """As before 1998: any reset is taken, wherever it falls."""
    if connection.state is State.OPEN and segment.flags & (Flag.RST | Flag.SYN):
        return connection.abort()
    return _plain(connection, segment)


class PythonGuest:
    """`netserve` in Python: echo, discard and status."""

    def __init__(self, peer: Peer, cancel: Cancel) -> None:
        self._deadline = Deadline.after(60, cancel=cancel)
        self._lock = threading.Lock()
        self.accepted, self.bytes, self.resets = [0, 0], [0, 0], [0, 0]
        self.threads = [
            threading.Thread(target=self._listen, args=(peer, port, number))
            for number, port in enumerate((ECHO, DISCARD, STATUS))
        ]
        for thread in list(self.threads):
            thread.start()

    def _listen(self, peer: Peer, port: int, number: int) -> None:
        listener = peer.listen(port)
        with contextlib.suppress(Cancelled):
            while True:
                conversation = listener.accept(self._deadline)
                if port == STATUS:
                    conversation.send(self._status())
                    conversation.close()
                    continue
                with self._lock:
                    self.accepted[number] += 1
                    thread = threading.Thread(target=self._serve, args=(conversation, number))
                    self.threads.append(thread)
                thread.start()

    def _serve(self, conversation: Conversation, number: int) -> None:
        with contextlib.suppress(Cancelled):
            try:
                while data := conversation.read_some(1024, self._deadline):
                    with self._lock:
                        self.bytes[number] += len(data)
                    if number == 0:
                        conversation.send(data)
            except WireError:
                with self._lock:
                    self.resets[number] += 1
            conversation.close()

    def _status(self) -> bytes:
        with self._lock:
            lines = [
                f"{name}={values[0]} {values[1]} 0"
                for name, values in (("accepted", self.accepted), ("bytes", self.bytes), ("resets", self.resets))
            ]
        return "\n".join([*lines, "refused=0", "end=ok", ""]).encode()


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(30)


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Services]]:
    """Makes the services of a guest that takes segments in a given way."""
    cancel = Cancel()
    with contextlib.ExitStack() as stack:

        def make(
            receive: Receive = rfc5961, *, inward: Impairment | None = None, obedient: bool = False
        ) -> Services:
            def either(connection: Connection, segment: Segment) -> list[Segment]:
                ours = connection.flow.source == GUEST
                return receive(connection, segment) if ours else _plain(connection, segment)

            monkeypatch.setattr(Connection, "receive", either)
            ends = WireEnds(guest=tmp_path / "guest", peer=tmp_path / "peer")
            host = stack.enter_context(open_wire(ends))
            other = stack.enter_context(open_wire(WireEnds(guest=ends.peer, peer=ends.guest)))
            link = stack.enter_context(impaired(other, inward=inward))
            mine = stack.enter_context(Peer(host, HOST, rto=0.2))
            obeying = Obedient(link)
            theirs = Peer(obeying if obedient else link, GUEST, mac="52:54:00:00:00:01", seed=1, rto=0.2)
            obeying.peer = stack.enter_context(theirs)
            system = PythonGuest(theirs, cancel)
            stack.callback(lambda: [thread.join() for thread in system.threads])
            stack.callback(cancel.set)
            return Services(mine, GUEST, {"echo": ECHO, "discard": DISCARD, "status": STATUS})

        yield make


def ignore(*_: object, **__: object) -> None:
    """For checks that record facts and samples."""


def check(function: Callable[..., Any], services: Services, deadline: Deadline, *arguments: str | int) -> None:
    """Run a check of forged segments on a fresh connection that has carried data."""
    wanted = function.__code__.co_varnames[: function.__code__.co_argcount]
    with services.connect("echo", deadline) as echo:
        assert forged.survives(echo, deadline)
        echo.connection.received.clear()
        known = {"echo": echo, "services": services, "deadline": deadline, "fact": ignore}
        function(*arguments, **{name: value for name, value in known.items() if name in wanted})


IN_WINDOW = ("next", "middle", "last")
OUTSIDE = ("edge", "beyond", "before", "far")


def test_a_guest_that_follows_rfc_5961_passes(guest: Callable[..., Services], deadline: Deadline) -> None:
    services = guest(rfc5961)
    for where in IN_WINDOW:
        check(forged.test_rst_in_window, services, deadline, where)
        check(forged.test_syn_in_window, services, deadline, where)
    for where in OUTSIDE:
        check(forged.test_rst_outside, services, deadline, where)
    for function in (
        forged.test_rst_exact,
        forged.test_rst_challenged,
        forged.test_rst_sweep,
        forged.test_syn_challenged,
        forged.test_syn_outside,
    ):
        check(function, services, deadline)
    for code in (forged.HOST_UNREACHABLE, forged.PORT_UNREACHABLE):
        check(forged.test_unreachable, services, deadline, code)


def test_a_guest_that_watson_can_reset_is_found(guest: Callable[..., Services], deadline: Deadline) -> None:
    services = guest(watson)
    for where in IN_WINDOW:
        with pytest.raises(AssertionError, match="into the window"):
            check(forged.test_rst_in_window, services, deadline, where)
        with pytest.raises(AssertionError, match="into the window"):
            check(forged.test_syn_in_window, services, deadline, where)
    for function in (forged.test_rst_challenged, forged.test_rst_sweep, forged.test_syn_challenged):
        with pytest.raises(AssertionError):
            check(function, services, deadline)
    check(forged.test_rst_exact, services, deadline)
    for where in OUTSIDE:
        check(forged.test_rst_outside, services, deadline, where)


def test_a_guest_that_obeys_an_unreachable_is_found(guest: Callable[..., Services], deadline: Deadline) -> None:
    services = guest(obedient=True)
    for code in (forged.HOST_UNREACHABLE, forged.PORT_UNREACHABLE):
        with pytest.raises(AssertionError, match=f"code {code} ends the connection"):
            check(forged.test_unreachable, services, deadline, code)


def test_a_guest_that_takes_any_reset_is_found(guest: Callable[..., Services], deadline: Deadline) -> None:
    services = guest(credulous)
    for where in OUTSIDE:
        with pytest.raises(AssertionError, match="from L"):
            check(forged.test_rst_outside, services, deadline, where)
    with pytest.raises(AssertionError, match="just before"):
        check(forged.test_syn_outside, services, deadline)


def test_a_guest_that_takes_no_reset_and_says_nothing_is_found(
    guest: Callable[..., Services], deadline: Deadline
) -> None:
    services = guest(silent)
    for function in (forged.test_rst_exact, forged.test_rst_challenged, forged.test_syn_challenged):
        with pytest.raises(AssertionError):
            check(function, services, deadline)
    check(forged.test_rst_in_window, services, deadline, "next")


def test_the_storm_passes_even_over_a_lossy_wire(guest: Callable[..., Services], deadline: Deadline) -> None:
    services = guest(inward=Impairment(loss=0.02))
    connections.test_connect_storm(connections.STORM, services, ignore, ignore, deadline)
    connections.test_echo(services, deadline)


def test_a_guest_that_loses_one_connection_for_good_is_found(
    guest: Callable[..., Services], deadline: Deadline
) -> None:
    ports: list[int] = []

    def one_port(_: int, frame: bytes) -> bool:
        """All frames of the hundredth connection."""
        segment = decode(frame)
        if not isinstance(segment, Segment):
            return False
        if segment.flow.source_port not in ports:
            ports.append(segment.flow.source_port)
        return ports.index(segment.flow.source_port) == 100

    services = guest(inward=Impairment(drop=one_port))
    with pytest.raises(AssertionError, match="1 of 256 connections were lost"):
        connections.test_connect_storm(connections.STORM, services, ignore, ignore, deadline.sooner(3))


def test_a_guest_that_refuses_is_found(guest: Callable[..., Services], deadline: Deadline) -> None:
    services = guest()
    services.ports["discard"] = 4711
    with pytest.raises(AssertionError, match=r"256 of 256 connections were lost: .*refused"):
        connections.test_connect_storm(connections.STORM, services, ignore, ignore, deadline)
