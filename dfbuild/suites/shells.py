"""The shells that the checks use, opened when first used and again after one was lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dfbuild.deadline import Deadline
from dfbuild.shell.errors import ShellLost
from dfbuild.shell.protocol import Answer, Shell

_T = TypeVar("_T")


class LastingShell:
    """A `Shell` that outlives a check which lost it: the next command opens a new one.

    `open` opens one within a deadline. What a command raises is passed on.
    """

    def __init__(self, via: str, open_shell: Callable[[Deadline], Shell]) -> None:
        self.via = via
        self._open = open_shell
        self._shell: Shell | None = None

    def run(self, command: str, deadline: Deadline, *, stdin: bytes = b"") -> Answer:
        return self._with(deadline, lambda shell: shell.run(command, deadline, stdin=stdin))

    def put(self, source: Path, target: str, deadline: Deadline) -> None:
        self._with(deadline, lambda shell: shell.put(source, target, deadline))

    def get(self, source: str, target: Path, deadline: Deadline) -> None:
        self._with(deadline, lambda shell: shell.get(source, target, deadline))

    def close(self) -> None:
        shell, self._shell = self._shell, None
        if shell is not None:
            shell.close()

    def _with(self, deadline: Deadline, use: Callable[[Shell], _T]) -> _T:
        if self._shell is None:
            self._shell = self._open(deadline)
        try:
            return use(self._shell)
        except ShellLost:
            self.close()
            raise
