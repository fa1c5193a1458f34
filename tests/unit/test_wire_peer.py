"""Links, peers, captures, impairments and the switch: two Python hosts on real datagram sockets."""

from __future__ import annotations

import contextlib
import errno
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap

from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, InfraError
from dfbuild.guest.protocol import WireEnds
from dfbuild.wire import Link, Peer, WireError, WireLink, open_wire
from dfbuild.wire.capture import Capture, NotACapture, read_capture
from dfbuild.wire.frames import Arp, Flag, Flow, Segment, decode, encode_arp, encode_unreachable
from dfbuild.wire.impair import Impairment, impaired
from dfbuild.wire.link import WireBusy
from dfbuild.wire.peer import MAC, Listener
from dfbuild.wire.switch import MacTable, switched
from dfbuild.wire.tcp import State

HOST, GUEST, THIRD = "10.9.0.2", "10.9.0.1", "10.9.0.3"
GUEST_MAC = "52:54:00:00:00:01"


def soon() -> Deadline:
    return Deadline.after(20)


@contextlib.contextmanager
def cable(directory: Path, name: str = "w", capture: Path | None = None) -> Iterator[tuple[WireLink, WireLink]]:
    """The host's end and, where a guest would be, another end of ours."""
    ends = WireEnds(guest=directory / f"{name}-guest", peer=directory / f"{name}-peer")
    with open_wire(ends, capture) as host, open_wire(WireEnds(guest=ends.peer, peer=ends.guest)) as guest:
        yield host, guest


@contextlib.contextmanager
def hosts(host: Link, guest: Link) -> Iterator[tuple[Peer, Peer]]:
    with (
        Peer(host, HOST, seed=1, rto=0.1) as left,
        Peer(guest, GUEST, mac=GUEST_MAC, seed=2, rto=0.1) as right,
    ):
        yield left, right


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Peer, Peer]]:
    with cable(tmp_path) as (host, guest), hosts(host, guest) as peers:
        yield peers


# ── link ──


def test_frames_go_both_ways_in_order(tmp_path: Path) -> None:
    frames = [bytes([number]) * 60 for number in range(200)]
    with cable(tmp_path) as (host, guest):
        for frame in frames:
            host.send(frame)
        assert [guest.receive(soon()) for _ in frames] == frames
        guest.send(b"back" * 15)
        assert host.receive(soon()) == b"back" * 15


def test_the_largest_frame_passes(tmp_path: Path) -> None:
    with cable(tmp_path) as (host, guest):
        host.send(bytes(65550))
        assert len(guest.receive(soon())) == 65550


def test_receive_ends_with_its_deadline(tmp_path: Path) -> None:
    with cable(tmp_path) as (host, _), pytest.raises(DeadlineExceeded, match="frame"):
        host.receive(Deadline.after(0.01))


def test_a_guest_that_is_gone_costs_frames_and_nothing_else(tmp_path: Path) -> None:
    ends = WireEnds(guest=tmp_path / "g", peer=tmp_path / "p")
    with open_wire(ends) as link:
        link.send(b"x" * 60)
    assert link.dropped == 1
    assert not ends.peer.exists()


def test_a_guest_that_takes_nothing_does_not_hold_the_end_up(tmp_path: Path) -> None:
    with cable(tmp_path) as (_, guest):
        for _ in range(5000):
            guest.send(b"x" * 60)
    assert guest.dropped > 4000


def test_a_stale_socket_is_replaced_and_a_live_one_respected(tmp_path: Path) -> None:
    ends = WireEnds(guest=tmp_path / "g", peer=tmp_path / "p")
    with open_wire(ends), pytest.raises(WireBusy), open_wire(ends):
        pass
    ends.peer.touch()
    with open_wire(ends):
        assert ends.peer.is_socket()


# ── capture ──


def test_everybody_reads_our_captures(tmp_path: Path) -> None:
    path = tmp_path / "cell" / "wire.pcap"
    with cable(tmp_path, capture=path) as (host, guest), hosts(host, guest) as (peer, _):
        peer.resolve(GUEST, soon())
    ours, scapys = list(read_capture(path)), [Ether(bytes(packet)) for packet in rdpcap(str(path))]
    assert [record.frame for record in ours] == [bytes(packet) for packet in scapys]
    assert [record.time for record in ours] == pytest.approx(
        [float(packet.time) for packet in rdpcap(str(path))], abs=2e-6
    )
    # Asked again, where the answer took its time.
    assert list(dict.fromkeys(packet.summary() for packet in scapys))[:2] == [
        f"Ether / ARP who has {GUEST} says {HOST}",
        f"Ether / ARP is at {GUEST_MAC} says {GUEST}",
    ]


@given(st.lists(st.binary(max_size=2000), max_size=5), st.floats(0, 2**32 - 1))
def test_captures_are_read_back(tmp_path_factory: pytest.TempPathFactory, frames: list[bytes], now: float) -> None:
    path = tmp_path_factory.mktemp("capture") / "a.pcap"
    with Capture(path) as capture:
        for frame in frames:
            capture.record(frame, now)
    capture.record(b"after the end")
    assert [(r.frame, r.time) for r in read_capture(path)] == [(f, pytest.approx(now, abs=1e-5)) for f in frames]


@pytest.mark.parametrize("cut", [3, 30, 60])
def test_a_capture_that_breaks_off_says_so(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.pcap"
    with Capture(path) as capture:
        capture.record(b"x" * 60)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(NotACapture):
        list(read_capture(path))


# ── peer ──


def test_arp(two: tuple[Peer, Peer]) -> None:
    peer, other = two
    assert peer.resolve(GUEST, soon()) == GUEST_MAC
    assert other.resolve(HOST, soon()) == MAC
    assert peer.neighbours == {GUEST: GUEST_MAC}
    with pytest.raises(DeadlineExceeded, match=r"ARP answer from 10\.9\.0\.9"):
        peer.resolve("10.9.0.9", Deadline.after(0.05))


def test_a_question_is_no_answer(tmp_path: Path) -> None:
    """Who asks makes itself known, but only an answer proves that it answers."""
    with cable(tmp_path) as (host, guest), Peer(host, HOST, rto=0.05) as peer:
        guest.send(encode_arp(Arp(False, GUEST, GUEST_MAC, HOST)))
        peer.wait(lambda: GUEST in peer.neighbours, soon(), "the question")
        with pytest.raises(DeadlineExceeded):
            peer.resolve(GUEST, Deadline.after(0.2))


def test_a_conversation(two: tuple[Peer, Peer]) -> None:
    peer, other = two
    listener = other.listen(7)
    sent = bytes(range(256)) * 600
    with peer.connect(GUEST, 7, soon()) as client, listener.accept(soon()) as server:
        client.send(sent)
        assert server.read(len(sent), soon()) == sent
        client.settle(soon())
        server.send(b"thank you")
        server.close()
        assert client.read_all(soon()) == b"thank you"
        client.close()
        assert server.read_all(soon()) == b""
        client.wait(lambda c: c.ended, soon(), "the end")
        assert client.connection.state is State.CLOSED
    (syn,) = listener.syns
    assert syn.flow == client.flow


def test_a_closed_port_refuses(two: tuple[Peer, Peer]) -> None:
    with pytest.raises(WireError, match="refused"):
        two[0].connect(GUEST, 9, soon())


def test_reading_from_a_connection_that_ends_early(two: tuple[Peer, Peer]) -> None:
    peer, other = two
    listener = other.listen(7)
    client, server = peer.connect(GUEST, 7, soon()), listener.accept(soon())
    server.send(b"abc")
    server.close()
    with pytest.raises(WireError, match="open"):
        client.read(4, soon())
    server.abort()
    client.send(b"too late")
    with pytest.raises(WireError, match="reset"):
        client.settle(soon())


def test_a_forged_reset_hits_and_a_forged_unreachable_does_not(two: tuple[Peer, Peer]) -> None:
    peer, other = two
    listener = other.listen(7)
    client, server = peer.connect(GUEST, 7, soon()), listener.accept(soon())
    quoted = Segment(server.flow, Flag.ACK, server.connection.send_next)
    peer.inject_frame(encode_unreachable(quoted, 1, HOST, MAC, GUEST_MAC))
    client.send(b"still here?")
    assert server.read(11, soon()) == b"still here?"
    client.settle(soon())
    peer.inject(Segment(client.flow, Flag.RST, client.connection.send_base))
    server.wait(lambda c: c.state is State.RESET, soon(), "the reset")


def test_ports_and_sequence_numbers_follow_from_the_seed(tmp_path: Path) -> None:
    def flows(name: str, seed: int) -> list[tuple[int, int]]:
        with cable(tmp_path, name) as (host, _), Peer(host, HOST, seed=seed) as peer:
            started = [peer.start(GUEST, 7) for _ in range(3)]
            return [(one.flow.source_port, one.connection.iss) for one in started]

    assert flows("a", 1) == flows("b", 1) != flows("c", 2)


def test_a_host_that_cannot_take_the_frames_is_no_silent_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Capture, "record", full)
    with cable(tmp_path, capture=tmp_path / "x.pcap") as (host, guest), Peer(host, HOST, rto=0.1) as peer:
        guest.send(encode_arp(Arp(False, GUEST, GUEST_MAC, HOST)))
        with pytest.raises(InfraError, match="No space left"):
            peer.wait(lambda: False, soon(), "anything")


@pytest.fixture
def crowded(two: tuple[Peer, Peer], monkeypatch: pytest.MonkeyPatch) -> tuple[Peer, Peer, Listener]:
    """A host that has room for 20 of everything, a guest that it knows, and where it listens."""
    monkeypatch.setattr("dfbuild.wire.peer._MOST", 20)
    peer, guest = two
    listener = peer.listen(80)
    guest.resolve(HOST, soon())
    return peer, guest, listener


def test_invented_neighbours_and_connections_fill_no_memory(crowded: tuple[Peer, Peer, Listener]) -> None:
    peer, guest, listener = crowded
    known = len(peer.neighbours)
    for number in range(100):
        invented = f"10.9.1.{number}"
        guest.inject_frame(encode_arp(Arp(True, invented, GUEST_MAC, HOST, MAC)))
        guest.inject(Segment(Flow(invented, 1000 + number, HOST, 80), Flag.SYN, 5))
    guest.resolve(HOST, soon())  # answered behind all of them
    assert known < len(peer.neighbours) <= 20
    assert 0 < len(listener.syns) <= 20


def test_a_connection_begun_again_and_again_fills_no_memory(crowded: tuple[Peer, Peer, Listener]) -> None:
    _, guest, listener = crowded
    flow = Flow(GUEST, 1000, HOST, 80)
    for number in range(100):
        guest.inject(Segment(flow, Flag.SYN, number * 10))
        guest.inject(Segment(flow, Flag.RST, number * 10 + 1))
    guest.resolve(HOST, soon())  # answered behind all of them
    assert len(listener.syns) == len(listener.accepted) == 20


def test_a_hundred_connections_at_once(two: tuple[Peer, Peer]) -> None:
    peer, other = two
    listener = other.listen(9)
    peer.resolve(GUEST, soon())
    clients = [peer.start(GUEST, 9) for _ in range(100)]
    for client in clients:
        client.establish(soon())
    servers = [listener.accept(soon()) for _ in clients]
    assert len({server.flow for server in servers}) == 100


# ── impairment ──

impairments = st.builds(
    Impairment,
    loss=st.floats(0, 1),
    duplicate=st.floats(0, 1),
    reorder=st.floats(0, 1),
    delay=st.floats(0, 1),
    jitter=st.floats(0, 1),
)


@given(impairments, st.integers(), st.integers(0, 50))
def test_schedules_are_repeatable_and_bounded(impairment: Impairment, seed: int, count: int) -> None:
    first, second = impairment.schedule(seed), impairment.schedule(seed)
    for _ in range(count):
        delays = first(b"")
        assert delays == second(b"")
        assert len(delays) <= 2
        latest = impairment.delay + impairment.jitter + impairment.reorder_delay
        assert all(impairment.delay <= delay <= latest for delay in delays)


@given(st.floats(0, 1), st.integers())
def test_more_loss_takes_more_of_the_same(loss: float, seed: int) -> None:
    """A frame that passes at a loss rate passes at every lower one: fates do not depend on one another."""
    harsh, mild = Impairment(loss=loss).schedule(seed), Impairment(loss=loss / 2).schedule(seed)
    fates = [(harsh(b""), mild(b"")) for _ in range(100)]
    assert all(passes_gently for passes_harshly, passes_gently in fates if passes_harshly)


def test_shares_are_about_what_was_asked() -> None:
    schedule = Impairment(loss=0.2, duplicate=0.1).schedule(7)
    copies = [len(schedule(b"")) for _ in range(10000)]
    assert copies.count(0) == pytest.approx(2000, abs=200)
    assert copies.count(2) == pytest.approx(800, abs=150)


def test_no_impairment_is_none() -> None:
    assert Impairment().schedule(3)(b"x") == (0.0,)


def test_data_survives_a_bad_network(tmp_path: Path) -> None:
    bad = Impairment(loss=0.1, duplicate=0.1, reorder=0.1, jitter=0.001)
    sent = bytes(range(256)) * 60
    with (
        cable(tmp_path) as (host, guest),
        impaired(host, outward=bad, inward=bad, seed=5) as link,
        hosts(link, guest) as (peer, other),
    ):
        listener = other.listen(7)
        client = peer.connect(GUEST, 7, soon())
        server = listener.accept(soon())
        client.send(sent)
        client.close()
        assert server.read_all(soon()) == sent
        assert client.retransmissions > 0


def test_the_first_syn_can_be_dropped_on_purpose(tmp_path: Path) -> None:
    numbers = itertools.count()

    def first_syn(_: int, frame: bytes) -> bool:
        segment = decode(frame)
        return isinstance(segment, Segment) and bool(segment.flags & Flag.SYN) and next(numbers) == 0

    with (
        cable(tmp_path) as (host, guest),
        impaired(host, outward=Impairment(drop=first_syn)) as link,
        hosts(link, guest) as (peer, other),
    ):
        other.listen(7)
        assert peer.connect(GUEST, 7, soon()).retransmissions == 1


# ── switch ──


def test_the_switch_learns() -> None:
    a, b, everybody = b"\x02aaaaa", b"\x02bbbbb", b"\xff" * 6
    table = MacTable(limit=2)
    assert table.route(0, everybody + a + b"\x08\x00", 3) == [1, 2]
    assert table.route(1, a + b + b"\x08\x00", 3) == [0]
    assert table.route(0, b + a + b"\x08\x00", 3) == [1]
    assert table.route(2, a + b"\x02ccccc" + b"\x08\x00", 3) == [0]
    assert table.route(0, b"\x02ccccc" + a + b"\x08\x00", 3) == [1, 2]  # the table was full
    assert table.route(1, b + a + b"\x08\x00", 3) == []  # back where it came from: the station has moved
    assert table.route(1, b"short", 3) == []


def test_three_hosts_on_a_switch(tmp_path: Path) -> None:
    with (
        cable(tmp_path, "a") as (port_a, a),
        cable(tmp_path, "b") as (port_b, b),
        cable(tmp_path, "c") as (port_c, c),
        switched([port_a, port_b, port_c]),
        hosts(a, b) as (left, right),
        Peer(c, THIRD, mac="52:54:00:00:00:03", seed=3) as third,
    ):
        listener = third.listen(7)
        for peer, data in ((left, b"from the left"), (right, b"from the right")):
            with peer.connect(THIRD, 7, soon()) as client, listener.accept(soon()) as server:
                client.send(data)
                assert server.read(len(data), soon()) == data
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("wire-")]
