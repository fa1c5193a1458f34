"""One end of a TCP connection as bookkeeping: segments come in, segments to be sent come out. No clock, no socket.

Deliberately plain: no window scaling and no selective acknowledgements are offered, so that the other end's window
is exactly what its last segment says (the RST checks aim at its edges), and timestamps only where asked for. What
is lost is sent again from the first hole on (go back N).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from enum import StrEnum

from dfbuild.wire.frames import STAMPS_SIZE, Flag, Flow, Segment
from dfbuild.wire.sequence import advance, distance, within

MSS = 1460
LEAST_MSS = 48
"""Sent at a time however little the other side takes, as Linux does (`net.ipv4.tcp_min_snd_mss`)."""
BUFFER = 65535
DEFAULT_MSS = 536
"""What counts when the other end names none (RFC 9293, 3.7.1)."""


class State(StrEnum):
    CONNECTING = "connecting"
    ACCEPTING = "accepting"
    OPEN = "open"
    """Established; `fin_sent` and `remote_closed` say which directions are being closed."""
    CLOSED = "closed"
    """Both ends said goodbye."""
    RESET = "reset"
    REFUSED = "refused"


def refusal(segment: Segment) -> Segment:
    """What a host says to a segment, itself no reset, that belongs to no connection (RFC 9293, 3.10.7.1)."""
    if segment.flags & Flag.ACK:
        return Segment(segment.flow.reverse, Flag.RST, segment.ack)
    return Segment(segment.flow.reverse, Flag.RST | Flag.ACK, 0, advance(segment.seq, segment.length))


@dataclass(slots=True)
class Connection:
    """`flow` is seen from here; `iss` is the first sequence number that this end uses.

    `stamp` is offered as a timestamp (RFC 7323) and, if the other end takes that up, on all segments: for want of a
    clock always the same, which breaks no rule.
    """

    flow: Flow
    iss: int
    stamp: int | None = None
    state: State = State.CONNECTING
    send_base: int = 0
    """First byte that the other end has not acknowledged: its L in the RST checks, once all is acknowledged."""
    send_next: int = 0
    send_highest: int = 0
    window: int = 0
    """What the other end is ready to receive, from `send_base` on: its W in the RST checks."""
    mss: int = DEFAULT_MSS
    receive_next: int = 0
    remote_iss: int = 0
    outgoing: bytearray = field(default_factory=bytearray)
    incoming: bytearray = field(default_factory=bytearray)
    closing: bool = False
    fin_sent: bool = False
    fin_acked: bool = False
    remote_closed: bool = False
    remote_stamp: int | None = None
    """The other end's last timestamp, if both ends use them."""
    deaf: bool = False
    """What comes in is only written down: not acknowledged, not answered."""
    received: deque[Segment] = field(default_factory=lambda: deque(maxlen=64))
    """The last segments that came in, for checks that want to see the answer itself."""

    @classmethod
    def accept(cls, syn: Segment, iss: int) -> tuple[Connection, list[Segment]]:
        """The passive end that `syn` opens, and its answer."""
        connection = cls(syn.flow.reverse, iss, state=State.ACCEPTING)
        connection._begin()
        connection._meet(syn)
        return connection, [connection._synchronise()]

    def open(self) -> list[Segment]:
        """The active end's first segment."""
        self._begin()
        return [self._synchronise()]

    @property
    def ended(self) -> bool:
        return self.state in (State.CLOSED, State.RESET, State.REFUSED)

    @property
    def waiting(self) -> bool:
        """Whether something is to be sent again if the other end stays silent."""
        return not self.ended and (
            self.state is not State.OPEN or bool(self.outgoing) or (self.closing and not self.fin_acked)
        )

    @property
    def stamps(self) -> tuple[int, int] | None:
        """The timestamps that a segment carries now."""
        return None if self.stamp is None or self.remote_stamp is None else (self.stamp, self.remote_stamp)

    @property
    def room(self) -> int:
        """The receive window that this end advertises."""
        return max(0, BUFFER - len(self.incoming))

    def send(self, data: bytes) -> list[Segment]:
        """Queue `data` and send as much as the other end's window takes."""
        self.outgoing += data
        return self._transmit()

    def take(self, limit: int) -> tuple[bytes, list[Segment]]:
        """Up to `limit` received bytes, and the window update if the other end had reason to stop."""
        stuck = self.room < MSS
        data = bytes(self.incoming[:limit])
        del self.incoming[:limit]
        return data, [self._acknowledge()] if stuck and self.room >= MSS and not self.ended else []

    def close(self) -> list[Segment]:
        """Say goodbye after all that is queued."""
        self.closing = True
        return self._transmit()

    def abort(self) -> list[Segment]:
        """Drop the connection; the reset tells the other end, if there is one by now."""
        was, self.state = self.state, State.RESET
        return [] if was in (State.CONNECTING, State.CLOSED, State.RESET, State.REFUSED) else [self._reset()]

    def timeout(self) -> list[Segment]:
        """The other end was silent for too long: what is to be sent again."""
        if not self.waiting:
            return []
        if self.state is not State.OPEN:
            return [self._synchronise()]
        self.send_next, self.fin_sent = self.send_base, False
        again = self._transmit()
        if not again and self.outgoing:  # a closed window: one byte asks whether it is still closed
            again = [self._segment(Flag.ACK | Flag.PSH, self.send_base, bytes(self.outgoing[:1]))]
            self._sent_to(advance(self.send_base, 1))
        return again

    def receive(self, segment: Segment) -> list[Segment]:
        """The other end's `segment` arrived; the answers to it."""
        self.received.append(segment)
        if self.remote_stamp is not None and segment.stamps is not None:
            self.remote_stamp = segment.stamps[0]
        if self.deaf:
            return []
        if self.ended:
            return self._receive_ended(segment)
        if self.state is State.CONNECTING:
            return self._receive_connecting(segment)
        if segment.flags & Flag.RST:
            if segment.seq == self.receive_next or within(segment.seq, self.receive_next, self.room):
                self.state = State.RESET
            return []
        if segment.flags & Flag.SYN:
            if self.state is State.ACCEPTING and segment.seq == self.remote_iss:
                return [self._synchronise()]
            return [self._acknowledge()]
        if not segment.flags & Flag.ACK or distance(self.send_highest, segment.ack) > 0:
            return [self._acknowledge()]
        self._acknowledged(segment)
        answer = [self._acknowledge()] if self._absorb(segment) else []
        if self.fin_acked and self.remote_closed:
            self.state = State.CLOSED
        return self._transmit() + answer

    def _begin(self) -> None:
        self.send_base = self.iss
        self.send_next = self.send_highest = advance(self.iss, 1)

    def _meet(self, syn: Segment) -> None:
        self.remote_iss = syn.seq
        self.receive_next = advance(syn.seq, 1)
        self.window = syn.window
        self.mss = min(MSS, syn.mss or DEFAULT_MSS)
        if self.stamp is not None and syn.stamps is not None:
            self.remote_stamp = syn.stamps[0]
            self.mss -= STAMPS_SIZE
        self.mss = max(self.mss, LEAST_MSS)

    def _receive_connecting(self, segment: Segment) -> list[Segment]:
        right = bool(segment.flags & Flag.ACK) and segment.ack == advance(self.iss, 1)
        if segment.flags & Flag.RST:
            if right:
                self.state = State.REFUSED
            return []
        if segment.flags & Flag.ACK and not right:
            return [refusal(segment)]
        if not segment.flags & Flag.SYN or not right:
            return []
        self._meet(segment)
        self.send_base, self.state = segment.ack, State.OPEN
        return [self._acknowledge(), *self._transmit()]

    def _receive_ended(self, segment: Segment) -> list[Segment]:
        if self.state is State.CLOSED:  # the last acknowledgement may have been lost
            return [self._acknowledge()] if segment.flags & Flag.FIN else []
        return [] if segment.flags & Flag.RST else [refusal(segment)]

    def _acknowledged(self, segment: Segment) -> None:
        """Take note of an acceptable acknowledgement and of the window that comes with it."""
        progress = distance(self.send_base, segment.ack)
        if progress < 0:
            return  # an old segment, overtaken on its way: its window is old too
        if self.state is State.ACCEPTING:
            if progress == 0:
                return
            self.state = State.OPEN
            self.send_base, progress = advance(self.send_base, 1), progress - 1
        if progress == 0 and self.window == 0:
            self.send_next = self.send_base  # what probed the closed window was not taken
        self.window = segment.window
        if progress > len(self.outgoing):
            self.fin_acked = True
        del self.outgoing[:progress]
        self.send_base = segment.ack
        if distance(self.send_next, self.send_base) > 0:
            self.send_next = self.send_base
            self.fin_sent = self.fin_acked

    def _absorb(self, segment: Segment) -> bool:
        """Take the data that fits on; true if the segment wants an acknowledgement."""
        if not segment.length:
            # A keep-alive, or someone who lost track. What lies ahead is not answered: two ends that fill each
            # other's window could go on answering for ever.
            return distance(segment.seq, self.receive_next) > 0
        known = distance(segment.seq, self.receive_next)
        if known < 0 or known >= segment.length or self.remote_closed:
            return True
        fresh = segment.payload[known:]
        taken = fresh[: self.room]
        self.incoming += taken
        self.receive_next = advance(self.receive_next, len(taken))
        if segment.flags & Flag.FIN and len(taken) == len(fresh):
            self.receive_next = advance(self.receive_next, 1)
            self.remote_closed = True
        return True

    def _transmit(self) -> list[Segment]:
        """What may go out now: data up to the window's edge, then the FIN."""
        if self.state is not State.OPEN or self.fin_acked:
            return []
        segments = []
        at = distance(self.send_base, self.send_next)
        limit = min(len(self.outgoing), self.window)
        while at < limit:
            chunk = bytes(self.outgoing[at : min(at + self.mss, limit)])
            segments.append(self._segment(Flag.ACK | Flag.PSH, advance(self.send_base, at), chunk))
            at += len(chunk)
            self._sent_to(advance(self.send_base, at))
        if self.closing and not self.fin_sent and at == len(self.outgoing):
            segments.append(self._segment(Flag.ACK | Flag.FIN, advance(self.send_base, at)))
            self.fin_sent = True
            self._sent_to(advance(self.send_base, at + 1))
        return segments

    def _sent_to(self, seq: int) -> None:
        self.send_next = seq
        if distance(self.send_highest, seq) > 0:
            self.send_highest = seq

    def _synchronise(self) -> Segment:
        if self.state is State.CONNECTING:
            stamps = None if self.stamp is None else (self.stamp, 0)
            return Segment(self.flow, Flag.SYN, self.iss, 0, self.room, mss=MSS, stamps=stamps)
        return replace(self._segment(Flag.SYN | Flag.ACK, self.iss), mss=MSS)

    def _acknowledge(self) -> Segment:
        return self._segment(Flag.ACK, self.send_highest)

    def _reset(self) -> Segment:
        return self._segment(Flag.RST | Flag.ACK, self.send_highest)

    def _segment(self, flags: Flag, seq: int, payload: bytes = b"") -> Segment:
        return Segment(self.flow, flags, seq, self.receive_next, self.room, payload, stamps=self.stamps)
