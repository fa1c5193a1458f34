"""The shells that checks use: opened when first used, again after one was lost, and saying who uses them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dfbuild.deadline import Deadline
from dfbuild.shell.errors import ShellLost
from dfbuild.shell.protocol import Answer, Shell

_T = TypeVar("_T")


class Marks:
    """Says in the guest's own log which check begins and which one has ended, if the release knows a `command`.

    A mark rides on the first command of its check: one of its own would cost as much as most checks.
    """

    def __init__(self, command: str | None) -> None:
        self._command = command
        self._open = ""
        self._next = ""

    def begin(self, check: str) -> None:
        """From now on it is `check` that uses the guest; nobody if empty."""
        self._next = check

    def take(self) -> str:
        """The command that has to be run before the next one; empty if there is nothing to say."""
        if self._command is None or self._next == self._open:
            return ""
        words = [f"end {self._open}"] * bool(self._open) + [f"start {self._next}"] * bool(self._next)
        self._open = self._next
        return self._command.replace("{mark}", shlex.quote(f"dfbuild: {', '.join(words)}"))


class LastingShell:
    """A `Shell` that outlives a check which lost it: the next command opens a new one.

    `open_shell` opens one within a deadline. What a command raises is passed on.
    """

    def __init__(self, via: str, open_shell: Callable[[Deadline], Shell], marks: Marks) -> None:
        self.via = via
        self._open = open_shell
        self._marks = marks
        self._shell: Shell | None = None

    def run(self, command: str, deadline: Deadline, *, stdin: bytes = b"") -> Answer:
        mark = self._marks.take()
        line = f"{mark}\n{command}" if mark else command
        answer = self._with(deadline, lambda shell: shell.run(line, deadline, stdin=stdin))
        return Answer(command, answer.status, answer.output)

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


class Shells:
    """One lasting shell for each way into the guest. `open_shell` is told which and until when; `mark` is a
    release's command of that name.
    """

    def __init__(self, open_shell: Callable[[str, Deadline], Shell], mark: str | None = None) -> None:
        self._open = open_shell
        self._shells: dict[str, LastingShell] = {}
        self.marks = Marks(mark)

    def __getitem__(self, via: str) -> LastingShell:
        """The shell over `via` (`serial`, `ssh`), which is not opened before it is used."""
        if via not in self._shells:
            self._shells[via] = LastingShell(via, lambda deadline: self._open(via, deadline), self.marks)
        return self._shells[via]

    def finish(self, via: str, deadline: Deadline) -> None:
        """Say that the last check has ended."""
        self.marks.begin("")
        mark = self.marks.take()
        if mark:
            self[via].run(mark, deadline)

    def close(self) -> None:
        for shell in self._shells.values():
            shell.close()
