"""The bookkeeping of a TCP connection: two ends in one test, with a network between them that hypothesis plays."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfbuild.wire.frames import Flag, Flow, Segment
from dfbuild.wire.sequence import MODULUS, advance, within
from dfbuild.wire.tcp import BUFFER, LEAST_MSS, MSS, Connection, State

FLOW = Flow("10.9.0.2", 40000, "10.9.0.1", 7)


def pair(iss: int = 1000, other: int = 77000) -> tuple[Connection, Connection]:
    """Two ends whose handshake is done."""
    client = Connection(FLOW, iss)
    (syn,) = client.open()
    server, (answer,) = Connection.accept(syn, other)
    (ack,) = client.receive(answer)
    assert server.receive(ack) == []
    return client, server


def exchange(client: Connection, server: Connection, first: list[Segment]) -> None:
    """Carry segments to and fro, losing none, until both ends have nothing to say."""
    pending = first
    while pending:
        segment = pending.pop(0)
        pending += (server if segment.flow == client.flow else client).receive(segment)


def test_handshake() -> None:
    client, server = pair()
    assert (client.state, server.state) == (State.OPEN, State.OPEN)
    assert client.receive_next == server.send_next == 77001
    assert client.mss == server.mss == MSS
    assert not client.waiting
    assert not server.waiting


@given(st.integers(0, MODULUS - 1), st.integers(0, MODULUS - 1))
def test_sequence_numbers_may_wrap_anywhere(iss: int, other: int) -> None:
    client, server = pair(iss, other)
    exchange(client, server, client.send(b"x" * 5000))
    assert server.incoming == b"x" * 5000
    exchange(client, server, client.close())
    exchange(client, server, server.close())
    assert (client.state, server.state) == (State.CLOSED, State.CLOSED)


@pytest.mark.parametrize("mss", [1, 12, 13, 47])
def test_who_takes_next_to_nothing_at_a_time_gets_a_little_more(mss: int) -> None:
    client = Connection(FLOW, 1000, 7)
    client.open()
    answer = Segment(FLOW.reverse, Flag.SYN | Flag.ACK, 77000, 1001, window=1000, mss=mss, stamps=(1, 7))
    client.receive(answer)
    assert len(client.send(bytes(1000))) == -(-1000 // LEAST_MSS)


def test_data_is_cut_to_segments_and_stops_at_the_window() -> None:
    client, server = pair()
    segments = client.send(bytes(2 * BUFFER))
    assert max(len(s.payload) for s in segments) == MSS
    assert sum(len(s.payload) for s in segments) == BUFFER
    exchange(client, server, segments)
    assert (len(server.incoming), server.room, client.window) == (BUFFER, 0, 0)
    data, update = server.take(BUFFER)
    exchange(client, server, update)
    assert len(data) == len(server.incoming) == BUFFER
    assert client.window == 0


def test_a_closed_window_is_probed_and_what_was_not_taken_is_sent_again() -> None:
    client, server = pair()
    exchange(client, server, client.send(bytes(BUFFER) + b"end"))
    (probe,) = client.timeout()
    assert probe.payload == b"e"
    exchange(client, server, [probe])
    assert len(server.incoming) == BUFFER
    _, update = server.take(BUFFER)
    exchange(client, server, update)
    assert server.incoming == b"end"
    assert not client.waiting


def test_refused() -> None:
    client = Connection(FLOW, 5)
    client.open()
    assert client.receive(Segment(FLOW.reverse, Flag.RST | Flag.ACK, 0, 99)) == []
    assert client.state is State.CONNECTING
    client.receive(Segment(FLOW.reverse, Flag.RST | Flag.ACK, 0, 6))
    assert client.state is State.REFUSED


def test_reset_by_the_other_end() -> None:
    client, server = pair()
    (reset,) = server.abort()
    assert within(reset.seq, client.receive_next, client.room)
    client.receive(reset)
    assert client.state is State.RESET
    assert client.timeout() == client.abort() == []


@pytest.mark.parametrize("offset", [-1, BUFFER, 1 << 31])
def test_a_reset_outside_of_the_window_is_ignored(offset: int) -> None:
    client, server = pair()
    stray = Segment(server.flow, Flag.RST, advance(client.receive_next, offset))
    assert client.receive(stray) == []
    assert client.state is State.OPEN


def test_a_stray_syn_is_challenged() -> None:
    client, _ = pair()
    (challenge,) = client.receive(Segment(FLOW.reverse, Flag.SYN, advance(client.receive_next, 10)))
    assert (challenge.flags, challenge.seq, challenge.ack) == (Flag.ACK, client.send_next, client.receive_next)
    assert client.state is State.OPEN


def test_both_ends_may_close_at_once() -> None:
    client, server = pair()
    exchange(client, server, [*client.close(), *server.close()])
    assert (client.state, server.state) == (State.CLOSED, State.CLOSED)


def test_an_end_that_lost_the_last_acknowledgement_gets_it_again() -> None:
    client, server = pair()
    exchange(client, server, client.close())
    (fin,) = server.close()
    client.receive(fin)  # the answer is lost
    assert (client.state, server.state) == (State.CLOSED, State.OPEN)
    exchange(client, server, server.timeout())
    assert server.state is State.CLOSED


@settings(max_examples=150, deadline=None)
@given(
    data=st.tuples(st.binary(max_size=9000), st.binary(max_size=9000)),
    loss=st.floats(0, 0.5),
    seed=st.integers(0, 2**32),
    iss=st.integers(0, MODULUS - 1),
)
def test_all_arrives_whatever_the_network_does(data: tuple[bytes, bytes], loss: float, seed: int, iss: int) -> None:
    """Segments are lost, doubled and shuffled; each side sends, closes, and gets what the other sent."""
    chance = random.Random(seed)
    client, server = Connection(FLOW, iss), None
    flying = client.open()
    got = bytearray(), bytearray()
    said = [False, False]
    for _ in range(20000):
        ends = [end for end in (client, server) if end is not None]
        if server is not None and all(end.state is State.CLOSED for end in ends):
            break
        for number, end in enumerate(ends):
            if end.state is State.OPEN and not said[number]:
                said[number] = True
                flying += end.send(data[number]) + end.close()
            taken, update = end.take(chance.randrange(4000))
            got[number].extend(taken)
            flying += update
        if not flying:
            for end in ends:
                flying += end.timeout()
            continue
        segment = flying.pop(chance.randrange(len(flying)))
        if chance.random() < loss / 2:
            flying.append(segment)
        if chance.random() < loss:
            continue
        if segment.flow != FLOW:
            flying += client.receive(segment)
        elif server is not None:
            flying += server.receive(segment)
        elif segment.flags & Flag.SYN:
            server, answers = Connection.accept(segment, 42)
            flying += answers
    assert server is not None
    for number, end in enumerate((client, server)):
        got[number].extend(end.take(1 << 20)[0])
    assert (bytes(got[1]), bytes(got[0])) == data
    assert (client.state, server.state) == (State.CLOSED, State.CLOSED)


segments = st.builds(
    Segment,
    flow=st.just(FLOW.reverse),
    flags=st.integers(0, 63).map(Flag),
    seq=st.integers(76990, 77100) | st.integers(0, MODULUS - 1),
    ack=st.integers(990, 1100) | st.integers(0, MODULUS - 1),
    window=st.integers(0, 65535),
    payload=st.binary(max_size=100),
    mss=st.none() | st.integers(0, 65535),
)


@given(st.booleans(), st.lists(segments | st.none(), max_size=20))
def test_nothing_a_guest_sends_breaks_the_books(established: bool, coming: list[Segment | None]) -> None:
    client = pair()[0] if established else Connection(FLOW, 1000)
    if not established:
        client.open()
    client.send(b"y" * 3000)
    for segment in coming:
        client.timeout() if segment is None else client.receive(segment)
        assert len(client.incoming) <= BUFFER
        assert within(client.send_next, client.send_base, len(client.outgoing) + 2)
