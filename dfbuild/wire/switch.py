"""A learning Ethernet switch between links: puts several guests, or a guest and a peer, on one network."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded
from dfbuild.wire.link import Link

_HOUR = 3600.0
_HEADER = 14


class MacTable:
    """Where each station was last seen. Guests choose source addresses, so it holds only so many."""

    def __init__(self, limit: int = 1024) -> None:
        self._limit = limit
        self._ports: dict[bytes, int] = {}

    def route(self, port: int, frame: bytes, ports: int) -> list[int]:
        """The ports that `frame`, which came in at `port`, goes out of; learns where its sender is."""
        if len(frame) < _HEADER:
            return []
        target, source = frame[:6], frame[6:12]
        if not source[0] & 1 and (source in self._ports or len(self._ports) < self._limit):
            self._ports[source] = port
        known = None if target[0] & 1 else self._ports.get(target)
        if known is not None:
            return [known] if known != port else []
        return [other for other in range(ports) if other != port]


def _forward(links: Sequence[Link], port: int, table: MacTable, lock: threading.Lock, cancel: Cancel) -> None:
    with contextlib.suppress(Cancelled):
        while True:
            with contextlib.suppress(DeadlineExceeded):
                frame = links[port].receive(Deadline.after(_HOUR, cancel=cancel))
                with lock:
                    for other in table.route(port, frame, len(links)):
                        links[other].send(frame)


@contextlib.contextmanager
def switched(links: Sequence[Link]) -> Iterator[None]:
    """Forward frames between `links` for as long as the context lasts; one thread a link."""
    cancel, table, lock = Cancel(), MacTable(), threading.Lock()
    threads = [
        threading.Thread(target=_forward, args=(links, port, table, lock, cancel), name=f"wire-port-{port}")
        for port in range(len(links))
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        cancel.set()
        for thread in threads:
            thread.join()
