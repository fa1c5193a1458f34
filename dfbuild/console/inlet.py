"""Takes a console's bytes off its socket as they come, so that a slow disk never holds up the guest.

That matters beyond speed: QEMU's virtio console drops what its socket does not take at once
(hw/char/virtio-console.c, `flush_buf`), and a socket holds 200 KB, 30 ms of a flood. Only when `HOLDS` bytes wait
for the disk is the guest held up.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque

_CHUNK = 1 << 17
_AT_A_TIME = 32
"""Chunks between two looks at whether to end: more than a socket holds."""
HOLDS = 64 << 20
"""Bytes that may wait to be recorded."""


class Inlet:
    """One thread that receives. One other thread calls `take`."""

    def __init__(self, stream: socket.socket, name: str) -> None:
        """Receive from `stream`, which stays the caller's, once started."""
        self._stream = stream
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._held = 0
        self._changed = threading.Condition()
        self._over = False
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Receive only what has already been sent. What was received can still be taken. Idempotent."""
        os.eventfd_write(self._stop, 1)
        with self._changed:
            self._over = self._over or not self._thread.is_alive()
            self._changed.notify_all()

    def take(self, seconds: float | None) -> tuple[bytes, float] | None:
        """The next bytes and when they came (`time.monotonic()`), waiting at most `seconds`; None if there are
        none by then, no bytes at the end of the stream."""
        with self._changed:
            if not self._waiting and not self._over:
                self._changed.wait(seconds)
            if self._waiting:
                chunk, when = self._waiting.popleft()
                if self._held >= HOLDS:
                    self._changed.notify_all()
                self._held -= len(chunk)
                return chunk, when
            return (b"", time.monotonic()) if self._over else None

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self._stop)

    def _run(self) -> None:
        try:
            self._receive_all()
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _receive_all(self) -> None:
        poll = select.poll()
        poll.register(self._stream, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            for _ in range(_AT_A_TIME):
                chunk = self._receive()
                if chunk == b"":
                    return
                if chunk is None:
                    break
                self._put(chunk)
            if self._stop in ready:
                return

    def _receive(self) -> bytes | None:
        """The next bytes; empty at the end, None if there were none after all."""
        try:
            return self._stream.recv(_CHUNK)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def _put(self, chunk: bytes) -> None:
        with self._changed:
            while self._held >= HOLDS:
                self._changed.wait()
            self._waiting.append((chunk, time.monotonic()))
            self._held += len(chunk)
            self._changed.notify_all()
