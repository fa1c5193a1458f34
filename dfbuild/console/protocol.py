"""What the users of a console can do, whether the guest belongs to this process or to another one."""

from __future__ import annotations

from typing import Protocol

from dfbuild.deadline import Deadline
from dfbuild.errors import GuestError
from dfbuild.model import CrashReport


class ConsoleClosed(GuestError):
    """The guest's end of the console is gone, and with it the guest."""


class Console(Protocol):
    """A guest's console: everything it ever printed, by byte offset, and a way to type.

    Reading is always by offset into the transcript, so any number of readers go at their own pace and
    none can steal from another.
    """

    @property
    def size(self) -> int:
        """Bytes printed so far."""
        ...

    @property
    def closed(self) -> bool:
        """True once the guest's end of the console is gone; what was printed stays readable."""
        ...

    @property
    def crash(self) -> CrashReport | None:
        """The first crash that was seen, if any."""
        ...

    def read(self, offset: int, limit: int = 65536) -> bytes:
        """Up to `limit` bytes from `offset`; empty if there are none yet. Never waits."""
        ...

    def wait(self, offset: int, deadline: Deadline) -> int:
        """Wait until there is something beyond `offset` and return the size.

        Raises `GuestCrashed` as soon as a crash was seen, `ConsoleClosed` at the end of the stream,
        `DeadlineExceeded` and `Cancelled`.
        """
        ...

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Type. Raises `ConsoleClosed`."""
        ...
