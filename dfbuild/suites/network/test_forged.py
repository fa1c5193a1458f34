"""Segments forged in the name of the other end: which of them end a connection (Watson 2004, RFC 5961).

L is the number that the guest expects next, W the window that it last advertised. No window scaling is offered, so
both are exactly what its last segment says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded
from dfbuild.suites.network.conftest import Services
from dfbuild.suites.probe import ProbeError
from dfbuild.wire import Conversation
from dfbuild.wire.frames import Flag, Segment, encode_unreachable
from dfbuild.wire.sequence import advance
from dfbuild.wire.tcp import State

Fact = Callable[[str, object], None]

QUESTION = b"are you there?"
SWEEP = 64
"""Windows on either side of the right one that a blind sweep goes over."""

STAMP = 1 << 20
REMINDERS = 8
"""Times that a connection that has ended is spoken of again."""

HOST_UNREACHABLE, PORT_UNREACHABLE = 1, 3


@pytest.fixture
def echo(services: Services, deadline: Deadline) -> Iterator[Conversation]:
    """A connection that has carried something both ways, and is idle now."""
    with services.connect("echo", deadline) as conversation:
        if not survives(conversation, deadline):
            raise RuntimeError("the connection did not even last until something was forged")
        conversation.connection.received.clear()
        yield conversation


def survives(conversation: Conversation, deadline: Deadline) -> bool:
    """Whether the connection still carries data. Frames keep their order: what was forged came before."""
    conversation.send(QUESTION)
    conversation.wait(lambda c: c.ended or len(c.incoming) >= len(QUESTION), deadline, "an echo or a reset")
    return not conversation.connection.ended and conversation.read(len(QUESTION), deadline) == QUESTION


def forge(services: Services, conversation: Conversation, flags: Flag, offset: int) -> int:
    """Send a segment at L + `offset`; returns L."""
    expected = conversation.connection.send_base
    services.peer.inject(Segment(conversation.flow, flags, advance(expected, offset)))
    return expected


def offset_of(where: str, window: int) -> int:
    """The offset from L of a place in sequence space that has a name."""
    return {
        "exact": 0,
        "next": 1,
        "middle": window // 2,
        "last": window - 1,
        "edge": window,
        "beyond": window + 1,
        "before": -1,
        "far": 1 << 31,
    }[where]


def challenged(conversation: Conversation, expected: int) -> bool:
    """Whether the guest answered what was forged with an empty acknowledgement that says where it really is."""
    return any(
        segment.flags == Flag.ACK and segment.ack == expected and not segment.payload
        for segment in conversation.connection.received
    )


def test_rst_exact(echo: Conversation, services: Services, deadline: Deadline) -> None:
    """A reset at L, which only the other end can know, ends the connection, and the program hears of it."""
    before = services.count("resets", "echo", deadline)
    forge(services, echo, Flag.RST, 0)
    assert not survives(echo, deadline), "the connection goes on after a right reset"
    resets = services.count("resets", "echo", deadline) - before
    assert resets == 1, f"the guest's server saw {resets} resets"


@pytest.mark.parametrize("where", ["next", "middle", "last"])
def test_rst_in_window(where: str, echo: Conversation, services: Services, fact: Fact, deadline: Deadline) -> None:
    """A reset that only hits the window is no proof of who sent it: the connection survives."""
    window = echo.connection.window
    fact("window", window)
    forge(services, echo, Flag.RST, offset_of(where, window))
    assert survives(echo, deadline), (
        f"a reset {offset_of(where, window)} bytes into the window of {window} is taken"
    )


def test_rst_challenged(echo: Conversation, services: Services, deadline: Deadline) -> None:
    """A reset that only hits the window is answered: the other end, if it means it, then sends the right one."""
    expected = forge(services, echo, Flag.RST, 1)
    survives(echo, deadline)
    assert challenged(echo, expected), f"no challenge among {[str(s) for s in echo.connection.received]}"


@pytest.mark.parametrize("where", ["edge", "beyond", "before", "far"])
def test_rst_outside(where: str, echo: Conversation, services: Services, deadline: Deadline) -> None:
    """A reset outside of the window is ignored."""
    window = echo.connection.window
    offset = offset_of(where, window)
    forge(services, echo, Flag.RST, offset)
    assert survives(echo, deadline), (
        f"a reset {offset} bytes from the sequence number that the guest last acknowledged is taken; "
        f"its window is {window}"
    )


def test_rst_zero_window(services: Services, deadline: Deadline) -> None:
    """A right reset is taken even while the window is closed."""
    with services.connect("stall", deadline) as conversation:
        conversation.send(bytes(1 << 20))
        conversation.wait(lambda c: c.window == 0, deadline, "the window to close")
        forge(services, conversation, Flag.RST, 0)
        # A byte that does not fit makes the guest speak: where it stands, or that there is no connection.
        connection = conversation.connection
        byte = Segment(
            connection.flow, Flag.ACK | Flag.PSH, connection.send_base, connection.receive_next, 65535, b"?"
        )
        services.peer.inject(byte)
        with contextlib.suppress(DeadlineExceeded):
            conversation.wait(lambda c: c.ended, deadline.sooner(deadline.remaining() / 3), "a reset")
        assert connection.state is State.RESET, (
            f"the connection goes on after a right reset: {connection.received[-1]}"
        )


def test_rst_time_wait(services: Services, deadline: Deadline) -> None:
    """A reset does not cut short how long the end that closed first remembers the connection (RFC 1337)."""
    with services.connect("status", deadline) as conversation:
        conversation.read_all(deadline)
        conversation.close()
        conversation.wait(lambda c: c.ended, deadline, "the end")
        conversation.connection.received.clear()
        expected = forge(services, conversation, Flag.RST, 0)
        # The other end's last word once more: it is acknowledged once more by who remembers it, or else refused.
        # Acknowledgements of before may still be on their way, but not as many as that.
        received, last = conversation.connection.received, conversation.connection.receive_next
        again = Segment(conversation.flow, Flag.FIN | Flag.ACK, advance(expected, -1), last, 65535)
        for _ in range(REMINDERS):
            before = len(received)
            services.peer.inject(again)
            with contextlib.suppress(DeadlineExceeded):
                patience = deadline.sooner(deadline.remaining() / REMINDERS)
                conversation.wait(lambda c, n=before: len(c.received) > n, patience, "an answer")  # type: ignore[misc]
        refusals = [str(answer) for answer in received if answer.flags & Flag.RST]
        assert received, "nobody answers a FIN that comes again"
        assert not refusals, f"it is forgotten: {refusals[0]}"


def test_stamp_forged(services: Services, deadline: Deadline) -> None:
    """A forged timestamp of the future, on what is long known, does not make the guest drop all that follows as old
    (CAN-2005-0356)."""
    with services.connect("echo", deadline, stamp=STAMP) as conversation:
        connection = conversation.connection
        if connection.stamps is None:
            raise ProbeError("the guest does not take timestamps up")
        if not survives(conversation, deadline):
            raise RuntimeError("the connection did not even last until something was forged")
        stamps = (advance(STAMP, (1 << 31) - 1), connection.stamps[1])
        old = advance(connection.send_base, -len(QUESTION))
        services.peer.inject(
            Segment(conversation.flow, Flag.ACK, old, connection.receive_next, 65535, stamps=stamps)
        )
        conversation.send(QUESTION)
        patience = deadline.sooner(deadline.remaining() / 3)
        with contextlib.suppress(DeadlineExceeded):
            conversation.wait(lambda c: c.ended or bool(c.incoming), patience, "an echo")
        assert connection.incoming, "the guest drops everything since a timestamp was forged"


@pytest.mark.parametrize("where", ["next", "middle", "last"])
def test_syn_in_window(where: str, echo: Conversation, services: Services, deadline: Deadline) -> None:
    """A SYN in the window is as good as a reset to somebody who forges it: the connection survives it too."""
    window = echo.connection.window
    forge(services, echo, Flag.SYN, offset_of(where, window))
    assert survives(echo, deadline), f"a SYN {offset_of(where, window)} bytes into the window of {window} is taken"


def test_syn_challenged(echo: Conversation, services: Services, deadline: Deadline) -> None:
    """A SYN on a connection is answered with where the guest really is."""
    expected = forge(services, echo, Flag.SYN, 1)
    survives(echo, deadline)
    assert challenged(echo, expected), f"no challenge among {[str(s) for s in echo.connection.received]}"


def test_syn_outside(echo: Conversation, services: Services, deadline: Deadline) -> None:
    """A SYN before the window does nothing."""
    forge(services, echo, Flag.SYN, -1)
    assert survives(echo, deadline), "a SYN just before the window ends the connection"


def test_rst_sweep(echo: Conversation, services: Services, fact: Fact, deadline: Deadline) -> None:
    """Resets a window apart, as somebody would send them who knows the ports but not L."""
    window = echo.connection.window
    fact("segments", 2 * SWEEP)
    fact("for-all", -(-(1 << 32) // window))
    for number in range(-SWEEP, SWEEP):
        forge(services, echo, Flag.RST, number * window + window // 2)
    assert survives(echo, deadline), f"one of {2 * SWEEP} resets, each a window of {window} apart, is taken"


@pytest.mark.parametrize("code", [HOST_UNREACHABLE, PORT_UNREACHABLE], ids=["host", "port"])
def test_unreachable(code: int, echo: Conversation, services: Services, deadline: Deadline) -> None:
    """An ICMP message that quotes an established connection is a hint, not an order (RFC 5927, 5.2).

    It quotes a segment that is on its way: one about anything else says nothing of the connection, and is dropped
    before the question comes up (RFC 5927, 4.1).
    """
    peer, flow = services.peer, echo.flow
    with echo.deaf():
        echo.send(QUESTION)
        echo.wait(lambda c: any(s.payload for s in c.received), deadline, "an echo that nobody acknowledges")
        quoted = Segment(flow.reverse, Flag.ACK, echo.connection.receive_next, payload=QUESTION)
        peer.inject_frame(encode_unreachable(quoted, code, flow.source, peer.mac, peer.neighbours[flow.target]))
    assert survives(echo, deadline), f"an ICMP unreachable of code {code} ends the connection"
