"""What a shell in a guest can do, over whatever it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from dfbuild.deadline import Deadline


@dataclass(frozen=True, slots=True)
class Answer:
    """A command that ended in the guest. `output` is standard output and standard error as they came."""

    command: str
    status: int
    output: bytes

    @property
    def text(self) -> str:
        """The output as text, without the last newline."""
        return self.output.decode(errors="replace").removesuffix("\n")


class Shell(Protocol):
    """Runs POSIX sh commands as the login user. One command at a time; not for several threads.

    Everything raises `ShellLost` when the way to the guest is gone, `GuestCrashed` when the console showed
    why, and `DeadlineExceeded`; after the latter the shell is usable again or says `ShellLost`.
    """

    via: str
    """`serial` or `ssh`."""

    def run(self, command: str, deadline: Deadline, *, stdin: bytes = b"") -> Answer:
        """Run `command` to its end. A status other than 0 is an answer, not an error."""
        ...

    def put(self, source: Path, target: str, deadline: Deadline) -> None:
        """Copy a host file to `target` in the guest, mode included, and verify its checksum."""
        ...

    def get(self, source: str, target: Path, deadline: Deadline) -> None:
        """Copy a guest file to `target` on the host and verify its checksum.

        It keeps its permissions, but for set-uid and the like: what a guest says of that is not ours to believe.
        """
        ...

    def close(self) -> None: ...


@runtime_checkable
class StreamingShell(Shell, Protocol):
    """A `Shell` that tells what a command prints as it comes. The console's has it whole, behind the end."""

    def stream(self, command: str, deadline: Deadline, sink: Callable[[bytes], object]) -> int:
        """Run `command` to its end, its output, however much, going to `sink`; its status. Raises as `run` does."""
        ...
