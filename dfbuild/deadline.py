"""A point in time by which something must have happened, passed down from whoever set it.

A `Deadline` carries the run's `Cancel` with it, so that Ctrl-C wakes every wait at once. Inner deadlines
are made with `sooner()` and can never outlive the outer one.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from dfbuild.errors import Cancelled, DeadlineExceeded

_LONGEST_POLL = float(2**31 - 1)
"""Milliseconds: poll(2) takes no more."""
_TURN = 0.1
"""Seconds after which one who waits for a lock, which no `Cancel` can wake, looks up."""


class Cancel:
    """A switch that is thrown once. `fileno()` becomes readable then, and subscribers are called."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.RLock()  # a signal handler may set it inside `subscribed`
        self._subscribers: dict[int, Callable[[], None]] = {}
        self._next = 0
        self._set = False

    def set(self) -> None:
        """Throw the switch. Safe from any thread and from a signal handler; idempotent."""
        with self._lock:
            if self._set:
                return
            self._set = True
            subscribers = list(self._subscribers.values())
        os.eventfd_write(self._fd, 1)
        for call in subscribers:
            call()

    @property
    def is_set(self) -> bool:
        return self._set

    def fileno(self) -> int:
        """For selectors: readable once cancelled (the value is never consumed)."""
        return self._fd

    @contextlib.contextmanager
    def subscribed(self, call: Callable[[], None]) -> Iterator[None]:
        """Call `call` on cancellation while inside; at once if it has already happened."""
        with self._lock:
            self._next += 1
            token = self._next
            self._subscribers[token] = call
            already = self._set
        if already:
            call()
        try:
            yield
        finally:
            with self._lock:
                self._subscribers.pop(token, None)

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self._fd)


class Lock(Protocol):
    """What `threading.Lock` and `threading.RLock` make."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...


class Within(Protocol):
    """Gives inner deadlines, as `Deadline.sooner` does."""

    def __call__(self, seconds: float, *, what: str = "") -> Deadline: ...


class Deadline:
    """A monotonic deadline. `what` names what is waited for, for the error's text."""

    __slots__ = ("_at", "cancel", "what")

    def __init__(self, at: float, *, what: str = "", cancel: Cancel | None = None) -> None:
        self._at = at
        self.what = what
        self.cancel = cancel

    @classmethod
    def after(cls, seconds: float, *, what: str = "", cancel: Cancel | None = None) -> Deadline:
        """The deadline `seconds` from now."""
        return cls(time.monotonic() + seconds, what=what, cancel=cancel)

    def sooner(self, seconds: float, *, what: str = "") -> Deadline:
        """An inner deadline: `seconds` from now or this one, whichever comes first."""
        return Deadline(min(self._at, time.monotonic() + seconds), what=what or self.what, cancel=self.cancel)

    def remaining(self) -> float:
        """Seconds left, never negative; 0.0 once cancelled."""
        if self.cancel is not None and self.cancel.is_set:
            return 0.0
        return max(0.0, self._at - time.monotonic())

    @property
    def expired(self) -> bool:
        return self.remaining() <= 0.0

    def check(self, what: str = "") -> None:
        """Raise `Cancelled` or `DeadlineExceeded` if there is no time left."""
        if self.cancel is not None and self.cancel.is_set:
            raise Cancelled("interrupted")
        if self.expired:
            raise DeadlineExceeded(f"timed out waiting for {what or self.what or 'an event'}")

    def wait(self, condition: threading.Condition, predicate: Callable[[], bool], what: str = "") -> None:
        """Wait on a held `condition` until `predicate()`; raises as `check` does. Cancellation wakes it."""

        def wake() -> None:
            # From another thread: a set switch must not have to wait for the next notification.
            with condition:
                condition.notify_all()

        def wake_elsewhere() -> None:
            threading.Thread(target=wake, daemon=True).start()

        with self.cancel.subscribed(wake_elsewhere) if self.cancel else contextlib.nullcontext():
            while not predicate():
                self.check(what)
                condition.wait(self.remaining())

    @contextlib.contextmanager
    def holding(self, lock: Lock, what: str = "") -> Iterator[None]:
        """Hold `lock` inside; raises as `check` does where others do not let go of it."""
        while not lock.acquire(timeout=min(self.remaining(), _TURN)):
            self.check(what)
        try:
            yield
        finally:
            lock.release()

    def select(self, *fds: int, what: str = "") -> list[int]:
        """Wait until one of `fds` is readable and return those that are; raises as `check` does."""
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        cancel_fd = self.cancel.fileno() if self.cancel is not None else -1
        if self.cancel is not None:
            poll.register(cancel_fd, select.POLLIN)
        while True:
            self.check(what)
            found = [fd for fd, _ in poll.poll(min(self.remaining() * 1000, _LONGEST_POLL)) if fd != cancel_fd]
            if found:
                return found
