"""The guest on the wire at all, many connections at once, and what connections carry."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

import pytest

from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded
from dfbuild.model import Better
from dfbuild.releases.schema import Wire
from dfbuild.suites.network.conftest import Services
from dfbuild.suites.probe import Probes
from dfbuild.wire import Conversation, Peer
from dfbuild.wire.peer import WireError
from dfbuild.wire.tcp import State

Samples = Callable[..., None]
Fact = Callable[[str, object], None]

STORM = 256
IN_FLIGHT = 64
"""Handshakes at a time: below the shortest queue of a listening socket (128, kern.ipc.somaxconn)."""
WORD = b"sixteen bytes..."

ROUNDS = 4
MANY = 8
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


def test_connect_storm(services: Services, samples: Samples, fact: Fact, deadline: Deadline) -> None:
    """Many connections, all open at once: every one is accepted, and its data read to the last byte."""
    accepted, got = (services.count(counter, "discard", deadline) for counter in ("accepted", "bytes"))
    patience = deadline.sooner(20, what="all connections")
    begin = time.monotonic()
    conversations, lost = _storm(services, patience)
    seconds = time.monotonic() - begin
    fact("retransmissions", sum(conversation.retransmissions for conversation in conversations))
    assert not lost, f"{len(lost)} of {STORM} connections were lost; the first: {lost[0]}"
    samples("connects", [STORM / seconds], unit="1/s", better=Better.HIGHER)
    for conversation in conversations:
        conversation.send(WORD)
        conversation.close()
    for conversation in conversations:
        conversation.wait(lambda connection: connection.ended, deadline, "the end of a connection")
    accepted = services.count("accepted", "discard", deadline) - accepted
    got = services.count("bytes", "discard", deadline) - got
    assert accepted == STORM, f"the guest's server accepted {accepted} of {STORM} connections"
    assert got == STORM * len(WORD), f"the guest's server read {got} of {STORM * len(WORD)} bytes"


def _storm(services: Services, deadline: Deadline) -> tuple[list[Conversation], list[str]]:
    """All connections, and why some of them did not come about."""
    conversations: list[Conversation] = []
    waiting: deque[Conversation] = deque()
    lost = []
    while len(conversations) < STORM or waiting:
        if len(conversations) < STORM and len(waiting) < IN_FLIGHT:
            waiting.append(services.start("discard"))
            conversations.append(waiting[-1])
            continue
        try:
            waiting.popleft().establish(deadline)
        except (WireError, DeadlineExceeded) as error:
            lost.append(error.message)
    return conversations, lost


@pytest.fixture(scope="module")
def rates(probe: Probes) -> Mapping[int, tuple[float, ...]]:
    """What so many connections over the loopback carry together, in MB/s, round by round."""
    return {count: probe("netrate", count, 100, ROUNDS).numbers("rate", ROUNDS) for count in (1, MANY)}


@pytest.mark.parametrize("count", [1, MANY])
def test_throughput(count: int, rates: Mapping[int, tuple[float, ...]], samples: Samples) -> None:
    """Carries something, and is recorded: how much it ought to be is for the comparison with other runs to say."""
    samples(f"throughput-{count}", rates[count], unit="MB/s", better=Better.HIGHER)
    assert min(rates[count]) > 0, f"{count} connections carried nothing in one of the rounds {rates[count]}"


def test_throughput_scales(rates: Mapping[int, tuple[float, ...]], samples: Samples) -> None:
    """Many connections carry together about as much as one, or more where there are CPUs for them.

    The best rounds are compared: what else the host does can only take from a round.
    """
    ratio = max(rates[MANY]) / max(rates[1])
    samples("throughput-ratio", [ratio], unit="ratio", better=Better.HIGHER)
    assert ratio >= LEAST_RATIO, f"{MANY} connections carry {ratio:.2f} times as much as one"
