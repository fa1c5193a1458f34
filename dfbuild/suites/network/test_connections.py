"""The guest on the wire at all, many connections at once, and what connections carry."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pytest

from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded
from dfbuild.model import Better
from dfbuild.releases.schema import Wire
from dfbuild.session.protocol import Session
from dfbuild.suites.network.conftest import Services
from dfbuild.suites.probe import ProbeError, Probes, integers
from dfbuild.wire import Conversation, Peer
from dfbuild.wire.frames import Flag, Flow, Segment
from dfbuild.wire.tcp import BUFFER, MSS, State

Samples = Callable[..., None]
Fact = Callable[[str, object], None]

STORM = 256
IN_FLIGHT = 64
"""Handshakes at a time: below the shortest queue of a listening socket (128, kern.ipc.somaxconn)."""
QUEUE = 128
"""Where the guest's CPUs wait for those of the host its server may come to accept none for long: what is beyond the
socket's queue is reset."""
WORD = b"sixteen bytes..."

FRAGMENT = 504
"""Bytes of a packet in a fragment: three make a segment."""
EVERYWHERE = range(60000, 60008)
"""The peer's ports, connections from which are all CPUs', however those are dealt out."""

CLOSED_PORT = 1
BATCH = 100
KNOCKS = range(10000, 12000)
"""The peer's ports from which somebody knocks: ten times the limit that the systems come with."""

ROUNDS, MILLISECONDS = 9, 40
"""Nine rounds: what a comparison of a whole matrix needs (results.statistics.samples_needed)."""
MANY = 8
WINDOWS = 3
LEAST_RATIO = 0.25
"""Of what many connections carry together to what one carries: many may cost something, but not most."""


def test_arp(peer: Peer, network: Wire, fact: Fact, deadline: Deadline) -> None:
    """The guest answers for its address."""
    try:
        mac = peer.resolve(network.guest_address, deadline.sooner(10))
    except DeadlineExceeded:
        raise AssertionError(f"nobody answers for {network.guest_address}") from None
    fact("mac", mac)


def test_echo(services: Services, deadline: Deadline) -> None:
    """A connection carries data both ways, more than a window of it, and ends in peace."""
    data = bytes(range(256)) * 400
    with services.connect("echo", deadline) as conversation:
        conversation.send(data)
        conversation.close()
        assert conversation.read_all(deadline) == data
        conversation.wait(lambda connection: connection.ended, deadline, "the end")
        assert conversation.connection.state is State.CLOSED


@pytest.mark.parametrize("order", ["forwards", "backwards"])
def test_fragments(order: str, services: Services, deadline: Deadline) -> None:
    """What comes in IP fragments is put together, and reaches its connection, whichever CPU has that."""
    data = bytes(range(256)) * 16
    with contextlib.ExitStack() as stack:
        conversations = [
            stack.enter_context(services.connect("echo", deadline, source_port=port)) for port in EVERYWHERE
        ]
        stack.enter_context(services.peer.fragmenting(FRAGMENT, backwards=order == "backwards"))
        for conversation in conversations:
            conversation.send(data)
        patience = deadline.sooner(deadline.remaining() / 2)
        with contextlib.suppress(DeadlineExceeded):
            for conversation in conversations:
                conversation.wait(lambda c: c.ended or len(c.incoming) >= len(data), patience, "an echo")
        wrong = [one.flow.source_port for one in conversations if bytes(one.connection.incoming) != data]
    assert not wrong, f"{len(wrong)} of {len(EVERYWHERE)} connections did not get it, those from {wrong}"


def batched(flows: list[Flow], size: int) -> Iterator[list[Flow]]:
    return (flows[at : at + size] for at in range(0, len(flows), size))


def test_refusals_limited(services: Services, ask: Callable[[str], str], fact: Fact, deadline: Deadline) -> None:
    """Whoever knocks at closed doors makes the guest send no more resets in a second than it is set to."""
    limit = integers(ask("reset-limit"), 1)[0]
    if limit <= 0:
        raise ProbeError("the guest is set to send any number of resets")
    knocks = [Flow(services.peer.address, port, services.address, CLOSED_PORT) for port in KNOCKS]
    services.status(deadline)
    services.peer.unclaimed.clear()
    begin = time.monotonic()
    for batch in batched(knocks, BATCH):
        for flow in batch:
            services.peer.inject(Segment(flow, Flag.SYN, 0, window=BUFFER, mss=MSS))
        services.status(deadline)  # Cards lose what comes too thick.
    # A CPU takes frames in their order: those that answer now have seen the knocks.
    for port in EVERYWHERE:
        with services.connect("echo", deadline, source_port=port) as conversation:
            conversation.send(WORD)
            conversation.read(len(WORD), deadline)
    seconds = time.monotonic() - begin
    resets = sum(services.peer.unclaimed[flow] for flow in knocks)
    fact("resets", f"{resets} to {len(knocks)} in {seconds:.2f} s, {limit} a second allowed")
    # A second of the guest's may have begun before, and another have ended behind.
    allowed = limit * (int(seconds) + 2)
    if len(knocks) <= allowed:
        pytest.skip(f"the host is too slow to send more than {limit} a second")
    assert resets > 0, f"nobody answers at port {CLOSED_PORT}"
    assert resets <= allowed, f"{resets} resets in {seconds:.2f} s, where {limit} a second are allowed"


@pytest.fixture
def many(guest: Session) -> int:
    """The connections of a storm."""
    return STORM if guest.manifest.overcommit <= 1 else QUEUE


@pytest.fixture
def held() -> Iterator[contextlib.ExitStack]:
    """Holds connections until the check is over: those that have not ended by then are reset."""
    with contextlib.ExitStack() as stack:
        yield stack


def test_connect_storm(
    many: int,
    services: Services,
    held: contextlib.ExitStack,
    samples: Samples,
    fact: Fact,
    deadline: Deadline,
) -> None:
    """Many connections, all open at once: every one is accepted, and its data read to the last byte."""
    accepted, got = (services.count(counter, "discard", deadline) for counter in ("accepted", "bytes"))
    patience = deadline.sooner(deadline.remaining() / 2, what="all connections")
    begin = time.monotonic()
    conversations = _storm(services, many, held, patience)
    seconds = time.monotonic() - begin
    fact("retransmissions", sum(conversation.retransmissions for conversation in conversations))
    states = Counter(conversation.connection.state for conversation in conversations)
    assert states[State.OPEN] == many, f"{many - states[State.OPEN]} of {many} connections were lost: {states}"
    samples("connects", [many / seconds], unit="1/s", better=Better.HIGHER)
    for conversation in conversations:
        conversation.send(WORD)
        conversation.close()
    open_still = _unfinished(conversations, patience)
    assert not open_still, f"{len(open_still)} of {many} connections did not come to their end"
    accepted = services.count("accepted", "discard", deadline) - accepted
    got = services.count("bytes", "discard", deadline) - got
    assert accepted == many, f"the guest's server accepted {accepted} of {many} connections"
    assert got == many * len(WORD), f"the guest's server read {got} of {many * len(WORD)} bytes"


def _storm(services: Services, many: int, held: contextlib.ExitStack, deadline: Deadline) -> list[Conversation]:
    """Those of `many` connections that were begun by `deadline`; all, unless many of them are stuck."""
    conversations: list[Conversation] = []
    pending: list[Conversation] = []

    def fewer_than(limit: int) -> bool:
        pending[:] = [one for one in pending if one.connection.state is State.CONNECTING]
        return len(pending) < limit

    with contextlib.suppress(DeadlineExceeded):
        for _ in range(many):
            services.peer.wait(lambda: fewer_than(IN_FLIGHT), deadline, "handshakes")
            pending.append(held.enter_context(services.start("discard")))
            conversations.append(pending[-1])
        services.peer.wait(lambda: fewer_than(1), deadline, "handshakes")
    return conversations


def _unfinished(conversations: list[Conversation], deadline: Deadline) -> list[Conversation]:
    """The connections that have not been closed by both ends at `deadline`."""
    with contextlib.suppress(DeadlineExceeded):
        for conversation in conversations:
            conversation.wait(lambda connection: connection.ended, deadline, "the end of a connection")
    return [conversation for conversation in conversations if conversation.connection.state is not State.CLOSED]


Rates = Mapping[int, tuple[float, ...]]


@pytest.fixture(scope="module")
def measure(probe: Probes) -> Callable[[], Rates]:
    """What so many connections over the loopback carry together, in MB/s, round by round."""

    def measured() -> Rates:
        return {count: probe("netrate", count, MILLISECONDS, ROUNDS).numbers("rate", ROUNDS) for count in (1, MANY)}

    return measured


@pytest.fixture(scope="module")
def rates(measure: Callable[[], Rates]) -> Rates:
    """One measurement for all checks."""
    return measure()


@pytest.mark.parametrize("count", [1, MANY])
def test_throughput(count: int, rates: Rates, samples: Samples) -> None:
    """Carries something, and is recorded: how much it ought to be is for the comparison with other runs to say."""
    samples(f"throughput-{count}", rates[count], unit="MB/s", better=Better.HIGHER)
    assert min(rates[count]) > 0, f"{count} connections carried nothing in one of the rounds {rates[count]}"


def test_throughput_scales(rates: Rates, measure: Callable[[], Rates], samples: Samples, guest: Session) -> None:
    """Many connections carry together about as much as one, or more where there are CPUs for them.

    The best rounds of up to WINDOWS measurements are compared: what else the host does can only take from a round,
    and it may take from every round of one count while it leaves the other alone.
    """
    ratio = _ratio(rates)
    for _ in range(WINDOWS - 1):
        if ratio >= LEAST_RATIO:
            break
        ratio = max(ratio, _ratio(measure()))
    samples("throughput-ratio", [ratio], unit="ratio", better=Better.HIGHER)
    if guest.manifest.overcommit > 1:
        pytest.skip(
            "the host has fewer CPUs than the guest: those that wait for one another's locks may not be running"
        )
    assert ratio >= LEAST_RATIO, f"{MANY} connections carry {ratio:.2f} times as much as one"


def _ratio(rates: Rates) -> float:
    return max(rates[MANY]) / max(rates[1])
