"""A guest's end, as its console shows it, wakes whoever waits for the guest by another way."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from dfbuild.console.protocol import Console, ConsoleClosed
from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, GuestCrashed, InfraError
from dfbuild.shell.errors import ShellLost

_FOR_EVER = 10 * 365 * 86400.0


class Watch:
    """Watches `console`, if there is one, in a thread of its own until closed. A context manager."""

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._gone = Cancel()
        self._stop = Cancel()
        self._thread: threading.Thread | None = None
        if console is not None:
            self._thread = threading.Thread(target=self._watch, args=(console,), name="shell-watch", daemon=True)
            self._thread.start()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def gone(self) -> bool:
        """The console showed the guest's end."""
        return self._gone.is_set

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @contextlib.contextmanager
    def over(self, deadline: Deadline) -> Iterator[Deadline]:
        """A deadline that also ends with the guest: inside, `GuestCrashed` or `ShellLost` is raised then."""
        either = Cancel()
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._gone.subscribed(either.set))
            if deadline.cancel is not None:
                stack.enter_context(deadline.cancel.subscribed(either.set))
            try:
                yield Deadline.after(deadline.remaining(), what=deadline.what, cancel=either)
            except Cancelled:
                deadline.check()
                self.explain()
                raise

    def explain(self, patience: float = 0.0) -> None:
        """Raise what the console says became of the guest, if it says so within `patience` seconds."""
        if self._console is None:
            return
        with contextlib.suppress(DeadlineExceeded):
            Deadline.after(patience).select(self._gone.fileno())
        if self._console.crash is not None:
            raise GuestCrashed(self._console.crash)
        if self._console.closed or self._gone.is_set:
            raise ShellLost("the guest has ended")

    def _watch(self, console: Console) -> None:
        always = Deadline.after(_FOR_EVER, cancel=self._stop)
        try:
            offset = console.size
            while True:
                offset = console.wait(offset, always)
        except Cancelled:
            return
        except (GuestCrashed, ConsoleClosed, InfraError):
            self._gone.set()
