"""One end of an Ethernet cable: QEMU's `-netdev dgram` over UNIX sockets, one frame a datagram.

QEMU stops reading while its guest has no receive buffers, so nothing is lost on the way in; a sender then waits.
Here a thread does that waiting: `send` never blocks.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from dfbuild.deadline import Deadline
from dfbuild.errors import InfraError
from dfbuild.wire.capture import Capture

_LARGEST = 65536 + 18
_QUEUE = 4096
"""Frames that wait for a guest that does not take them; more are dropped, as a network card would."""
_STUCK = 0.2
"""Seconds after which a blocked send looks up whether it is still wanted."""


class WireBusy(InfraError):
    """Somebody else holds this end of the wire."""


class Ends(Protocol):
    """The cable's ends, as `guest.protocol.WireEnds` has them: `peer` is bound here, frames are sent to `guest`."""

    @property
    def guest(self) -> Path: ...

    @property
    def peer(self) -> Path: ...


class Link(Protocol):
    """Where Ethernet frames go and come from. Sending and receiving may happen in different threads."""

    def send(self, frame: bytes) -> None:
        """Send `frame` in its turn. Never waits; a frame may be lost, as on any Ethernet."""
        ...

    def receive(self, deadline: Deadline) -> bytes:
        """The next frame. Raises `DeadlineExceeded` and `Cancelled`."""
        ...


class WireLink:
    """A `Link` over a bound UNIX datagram socket. `dropped` counts frames that the other end never took."""

    def __init__(self, bound: socket.socket, target: Path, capture: Capture | None = None) -> None:
        self._socket = bound
        self._target = str(target)
        self._capture = capture
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_QUEUE)
        self._closed = threading.Event()
        self._stuck = False
        self.dropped = 0
        # The kernel's own send timeout: the socket stays blocking, so a full queue at the other end is slept on.
        timeout = struct.pack("@ll", 0, int(_STUCK * 1_000_000))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        self._thread = threading.Thread(target=self._run, name="wire-send", daemon=True)
        self._thread.start()

    def send(self, frame: bytes) -> None:
        try:
            self._waiting.put_nowait(frame)
        except queue.Full:
            self.dropped += 1

    def receive(self, deadline: Deadline) -> bytes:
        while True:
            with contextlib.suppress(BlockingIOError):
                frame = self._socket.recv(_LARGEST, socket.MSG_DONTWAIT)
                if self._capture is not None:
                    self._capture.record(frame)
                return frame
            deadline.select(self._socket.fileno(), what="a frame from the guest")

    def close(self) -> None:
        """Send what is waiting unless the other end does not take it, and let go."""
        self._closed.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not (self._closed.is_set() and self._waiting.empty()):
            frame = self._waiting.get()
            if frame is None:  # only wakes
                continue
            if not self._deliver(frame):
                self.dropped += 1
            elif self._capture is not None:
                self._capture.record(frame)

    def _deliver(self, frame: bytes) -> bool:
        while not self._stuck:
            try:
                self._socket.sendto(frame, self._target)
            except BlockingIOError:  # still full after the send timeout
                self._stuck = self._closed.is_set()  # then nor will the rest be taken
            except (ConnectionRefusedError, FileNotFoundError):  # the guest is gone, or not there yet
                return False
            else:
                return True
        return False


def _bind(path: Path) -> socket.socket:
    """A socket bound at `path`; a leftover of a process that ended is replaced."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.connect(str(path))
            raise WireBusy(f"{path} is in use", hint="end the other process that uses this guest's wire")
        path.unlink(missing_ok=True)
        bound.bind(str(path))
    except BaseException:
        bound.close()
        raise
    return bound


@contextlib.contextmanager
def open_wire(ends: Ends, capture: Path | None = None) -> Iterator[WireLink]:
    """Hold the host's end of a guest's wire; frames of both directions go to the pcap file `capture`.

    Frames that the guest sent before are not delivered. Raises `WireBusy`.
    """
    with contextlib.ExitStack() as stack:
        bound = _bind(ends.peer)
        stack.callback(ends.peer.unlink, missing_ok=True)
        recorder = None if capture is None else stack.enter_context(Capture(capture))
        link = WireLink(bound, ends.guest, recorder)
        stack.callback(link.close)
        yield link
