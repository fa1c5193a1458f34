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
from scapy.layers.inet import IP
from scapy.packet import Raw

from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled
from dfbuild.guest.protocol import WireEnds
from dfbuild.suites.network import test_connections as connections
from dfbuild.suites.network import test_forged as forged
from dfbuild.suites.network.conftest import Services
from dfbuild.suites.probe import ProbeError
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


class Reassembling:
    """The link of a guest that puts fragments together."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._pieces: dict[bytes, list[IP]] = {}

    def send(self, frame: bytes) -> None:
        self._link.send(frame)

    def receive(self, deadline: Deadline) -> bytes:
        while True:
            frame = self._link.receive(deadline)
            if frame[12:14] != b"\x08\0" or not int.from_bytes(frame[20:22], "big") & 0x3FFF:
                return frame
            identity = frame[18:20] + frame[26:34]
            pieces = self._pieces.setdefault(identity, [])
            pieces.append(IP(frame[14:]))
            pieces.sort(key=lambda piece: piece.frag)
            data = b"".join(bytes(piece.payload) for piece in pieces)
            last = pieces[-1]
            if not last.flags.MF and len(data) == last.frag * 8 + len(last.payload):
                del self._pieces[identity]
                return frame[:14] + bytes(IP(src=last.src, dst=last.dst, proto=6) / Raw(data))


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


def forgetful(connection: Connection, segment: Segment) -> list[Segment]:
    """A reset ends the memory of a connection that both have closed."""
    if connection.state is State.CLOSED and segment.flags & Flag.RST:
        connection.state = State.RESET
        return []
    return _plain(connection, segment)


def paws(careful: bool) -> Receive:
    """Drops what has an older timestamp than the last one (RFC 7323, 5). That is taken from anything, or by who is
    `careful` from what comes next."""
    recent: dict[Flow, int] = {}

    def receive(connection: Connection, segment: Segment) -> list[Segment]:
        if segment.stamps is not None:
            stamp = segment.stamps[0]
            if distance(recent.setdefault(connection.flow, stamp), stamp) < 0:
                return [connection._acknowledge()]
            if not careful or segment.seq == connection.receive_next:
                recent[connection.flow] = stamp
        return _plain(connection, segment)

    return receive


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
                try:
                    conversation = listener.accept(self._deadline)
                except WireError:
                    continue
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
            receive: Receive = rfc5961,
            *,
            inward: Impairment | None = None,
            outward: Impairment | None = None,
            obedient: bool = False,
            reassembling: bool = False,
            stamp: int | None = None,
        ) -> Services:
            def either(connection: Connection, segment: Segment) -> list[Segment]:
                ours = connection.flow.source == GUEST
                return receive(connection, segment) if ours else _plain(connection, segment)

            def accept(syn: Segment, iss: int) -> tuple[Connection, list[Segment]]:
                connection, _ = plain_accept(syn, iss)
                connection.stamp = stamp
                connection._meet(syn)
                return connection, [connection._synchronise()]

            plain_accept = Connection.accept
            monkeypatch.setattr(Connection, "accept", accept)
            monkeypatch.setattr(Connection, "receive", either)
            ends = WireEnds(guest=tmp_path / "guest", peer=tmp_path / "peer")
            host = stack.enter_context(open_wire(ends))
            other = stack.enter_context(open_wire(WireEnds(guest=ends.peer, peer=ends.guest)))
            link = stack.enter_context(impaired(other, inward=inward, outward=outward))
            mine = stack.enter_context(Peer(host, HOST, rto=0.2))
            obeying = Obedient(link)
            ear = obeying if obedient else Reassembling(link) if reassembling else link
            theirs = Peer(ear, GUEST, mac="52:54:00:00:00:01", seed=1, rto=0.2)
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
        with pytest.raises(
            AssertionError, match="bytes from the sequence number that the guest last acknowledged is taken"
        ):
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


def test_a_guest_that_forgets_upon_a_reset_is_found(guest: Callable[..., Services], deadline: Deadline) -> None:
    with pytest.raises(AssertionError, match="it is forgotten"):
        forged.test_rst_time_wait(guest(forgetful), deadline)


def test_a_late_acknowledgement_does_not_hide_that_it_is_forgotten(
    guest: Callable[..., Services], deadline: Deadline
) -> None:
    with pytest.raises(AssertionError, match="it is forgotten"):
        forged.test_rst_time_wait(guest(forgetful, outward=Impairment(delay=0.35)), deadline)


def test_a_guest_that_remembers_in_spite_of_a_reset_passes(
    guest: Callable[..., Services], deadline: Deadline
) -> None:
    forged.test_rst_time_wait(guest(), deadline)


def test_a_guest_that_takes_only_stamps_of_what_is_next_passes(
    guest: Callable[..., Services], deadline: Deadline
) -> None:
    forged.test_stamp_forged(guest(paws(careful=True), stamp=5), deadline)


def test_a_guest_that_takes_any_stamp_is_found(guest: Callable[..., Services], deadline: Deadline) -> None:
    with pytest.raises(AssertionError, match="since a timestamp was forged"):
        forged.test_stamp_forged(guest(paws(careful=False), stamp=5), deadline.sooner(3))


def test_a_guest_without_stamps_proves_nothing(guest: Callable[..., Services], deadline: Deadline) -> None:
    with pytest.raises(ProbeError, match="does not take timestamps"):
        forged.test_stamp_forged(guest(), deadline)


@pytest.mark.parametrize("order", ["forwards", "backwards"])
def test_a_guest_that_puts_fragments_together_passes(
    guest: Callable[..., Services], deadline: Deadline, order: str
) -> None:
    connections.test_fragments(order, guest(reassembling=True), deadline)


def test_a_guest_that_loses_fragments_is_found(guest: Callable[..., Services], deadline: Deadline) -> None:
    with pytest.raises(AssertionError, match="8 of 8 connections did not get it"):
        connections.test_fragments("forwards", guest(), deadline.sooner(2))


def refused(limit: int) -> Impairment:
    """No more than so many resets leave the guest."""
    sent: list[int] = []

    def drop(number: int, frame: bytes) -> bool:
        segment = decode(frame)
        if isinstance(segment, Segment) and segment.flags & Flag.RST:
            sent.append(number)
            return len(sent) > limit
        return False

    return Impairment(drop=drop)


def test_a_guest_that_limits_its_refusals_passes(guest: Callable[..., Services], deadline: Deadline) -> None:
    connections.test_refusals_limited(guest(outward=refused(200)), lambda _: "200", ignore, deadline)


def test_a_guest_that_refuses_without_a_limit_is_found(guest: Callable[..., Services], deadline: Deadline) -> None:
    with pytest.raises(AssertionError, match="where 200 a second are allowed"):
        connections.test_refusals_limited(guest(), lambda _: "200", ignore, deadline)


def test_a_guest_that_refuses_nothing_is_found(guest: Callable[..., Services], deadline: Deadline) -> None:
    with pytest.raises(AssertionError, match="nobody answers"):
        connections.test_refusals_limited(guest(outward=refused(0)), lambda _: "200", ignore, deadline)


def storm(services: Services, deadline: Deadline) -> None:
    """The check, with what it holds until it is over."""
    with contextlib.ExitStack() as held:
        connections.test_connect_storm(connections.STORM, services, held, ignore, ignore, deadline)


def test_the_storm_passes_even_over_a_lossy_wire(guest: Callable[..., Services], deadline: Deadline) -> None:
    services = guest(inward=Impairment(loss=0.02))
    storm(services, deadline)
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
        storm(services, deadline.sooner(3))


def test_a_guest_that_refuses_is_found(guest: Callable[..., Services], deadline: Deadline) -> None:
    services = guest()
    services.ports["discard"] = 4711
    with pytest.raises(AssertionError, match=r"256 of 256 connections were lost: .*refused"):
        storm(services, deadline)
