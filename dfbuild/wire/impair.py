"""A bad network on purpose: frames get lost, late, doubled or overtaken, the same way for the same seed."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded
from dfbuild.wire.link import Link


def _never(_number: int, _frame: bytes) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Impairment:
    """What happens to the frames of one direction. Shares are 0 … 1, times are seconds.

    A reordered frame is held back by `reorder_delay` on top; `drop` gets every frame with its number, counted
    from 0, for tests that aim at one frame.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_delay: float = 0.01
    delay: float = 0.0
    jitter: float = 0.0
    drop: Callable[[int, bytes], bool] = _never

    def schedule(self, seed: int) -> Callable[[bytes], tuple[float, ...]]:
        """A function that says of each frame in turn after how many seconds each of its copies is delivered."""
        chance = random.Random(seed)
        numbers = itertools.count()

        def delays(frame: bytes) -> tuple[float, ...]:
            # All dice are thrown for every frame, so that one frame's fate does not move the fates of the others.
            lost, doubled, held = (chance.random() for _ in range(3))
            jitters = chance.random(), chance.random()
            if self.drop(next(numbers), frame) or lost < self.loss:
                return ()
            base = self.delay + (self.reorder_delay if held < self.reorder else 0.0)
            copies = 2 if doubled < self.duplicate else 1
            return tuple(base + self.jitter * jitter for jitter in jitters[:copies])

        return delays


class ImpairedLink:
    """A `Link` over `inner` with impairments of its own for each direction. Use `impaired`."""

    def __init__(self, inner: Link, outward: Impairment, inward: Impairment, seed: int) -> None:
        self._inner = inner
        self._outward, self._inward = outward.schedule(2 * seed), inward.schedule(2 * seed + 1)
        self._order = itertools.count()
        self._coming: list[tuple[float, int, bytes]] = []
        self._going: list[tuple[float, int, bytes]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="wire-impair", daemon=True)
        self._thread.start()

    def send(self, frame: bytes) -> None:
        with self._changed:
            for delay in self._outward(frame):
                heapq.heappush(self._going, (time.monotonic() + delay, next(self._order), frame))
            self._changed.notify()

    def receive(self, deadline: Deadline) -> bytes:
        while True:
            if self._coming and self._coming[0][0] <= time.monotonic():
                return heapq.heappop(self._coming)[2]
            soon = deadline
            if self._coming:
                soon = deadline.sooner(max(0.0, self._coming[0][0] - time.monotonic()))
            try:
                frame = self._inner.receive(soon)
            except DeadlineExceeded:
                deadline.check("a frame from the guest")
                continue
            for delay in self._inward(frame):
                heapq.heappush(self._coming, (time.monotonic() + delay, next(self._order), frame))

    def close(self) -> None:
        """Stop sending; what is under way is lost."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                while self._going and self._going[0][0] <= now:
                    self._inner.send(heapq.heappop(self._going)[2])
                self._changed.wait(self._going[0][0] - now if self._going else None)


@contextlib.contextmanager
def impaired(
    inner: Link, *, outward: Impairment | None = None, inward: Impairment | None = None, seed: int = 0
) -> Iterator[ImpairedLink]:
    """`inner` as a bad network: `outward` is towards the guest, `inward` from it."""
    link = ImpairedLink(inner, outward or Impairment(), inward or Impairment(), seed)
    try:
        yield link
    finally:
        link.close()
