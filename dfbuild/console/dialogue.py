"""Type at a console and wait for what it answers: pexpect's search over the one stream of the console.

pexpect is tuned (its defaults search everything again with every 2,000 bytes read, and sleep before each send and
after each read), and reads by offset, so a dialogue never takes a byte away from anybody.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pexpect.spawnbase import SpawnBase

from dfbuild.console.protocol import Console
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, UsageError

READ = 16 * 1024
"""Bytes searched at a time, and the longest that a pattern may match."""
WINDOW = 2 * READ
"""What pexpect searches with each read: the new bytes, and as many before them, lest a pattern be cut in two."""
_UART = 16
"""The FIFO of a 16550: more at once is lost on a real one whose reader is slow."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was waited for. `start` and `end` are its place in the transcript; between `since` and `start` lies
    what was printed before it, from where the last wait had stopped."""

    index: int
    match: re.Match[bytes]
    since: int
    start: int
    end: int


class _Stream(SpawnBase):  # type: ignore[misc]  # pexpect has no types
    """pexpect's view of a console."""

    def __init__(self, console: Console, offset: int) -> None:
        super().__init__(maxread=READ, searchwindowsize=WINDOW)
        self.delaybeforesend = self.delayafterread = None
        self.console = console
        self.offset = offset
        self.deadline = Deadline.after(0.0)
        self._before = BytesIO()

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> bytes:
        """The next bytes, waited for until the deadline of this wait. All errors are the console's own."""
        del timeout
        self.deadline.check()  # a console that never falls silent has no wait in which that could come up
        self.console.wait(self.offset, self.deadline)
        chunk = self.console.read(self.offset, size)
        self.offset += len(chunk)
        # pexpect keeps all that it has read for `before`; a dialogue has the transcript for that.
        if self._before.tell() > 4 * WINDOW:
            kept = self._before.getvalue()[-WINDOW:]
            self._before = BytesIO()
            self._before.write(kept)
        return chunk


class Dialogue:
    """A conversation on `console` that begins at `offset` (now, if it is None). Not for several threads."""

    def __init__(self, console: Console, offset: int | None = None) -> None:
        self.console = console
        self._stream = _Stream(console, console.size if offset is None else offset)

    @property
    def position(self) -> int:
        """The offset behind the last match: what the next wait begins with."""
        return int(self._stream.offset - len(self._stream.buffer))

    def expect(self, patterns: Sequence[str | bytes], deadline: Deadline) -> Heard:
        """Wait for the first of `patterns` (regular expressions over bytes; `^` and `$` are a line's).

        Raises `GuestCrashed` as soon as the console shows a crash, `ConsoleClosed`, `DeadlineExceeded` naming the
        patterns, and `UsageError` for a pattern that is wrong or too long to be found.
        """
        compiled = [_compile(pattern) for pattern in patterns]
        since = self.position
        self._stream.deadline = deadline
        try:
            index = self._stream.expect_list(compiled, timeout=None)
        except DeadlineExceeded as error:
            wanted = " or ".join(pattern.pattern.decode(errors="backslashreplace") for pattern in compiled)
            raise DeadlineExceeded(f"timed out waiting for {wanted!r} on the console", hint=error.hint) from error
        match: re.Match[bytes] = self._stream.match
        end = self.position
        return Heard(index, match, since, end - (match.end() - match.start()), end)

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Type `data` as it is, no more at once than a UART holds."""
        for start in range(0, len(data), _UART):
            self.console.send(data[start : start + _UART], deadline)

    def send_line(self, text: str, deadline: Deadline, *, echo: bool = False) -> None:
        """Type `text` and Return. With `echo` each piece is typed when the guest has echoed the one before, so a
        slow guest loses nothing; only where nothing else prints."""
        data = text.encode()
        for start in range(0, len(data), _UART):
            piece = data[start : start + _UART]
            self.console.send(piece, deadline)
            if echo:
                self.expect([re.escape(piece)], deadline)
        self.console.send(b"\r", deadline)


def _compile(pattern: str | bytes) -> re.Pattern[bytes]:
    raw = pattern.encode() if isinstance(pattern, str) else pattern
    try:
        # The least that it matches. No public interface says so.
        parser: Any = importlib.import_module("re._parser")
        least, _ = parser.parse(raw).getwidth()
        if not 0 < least <= READ:
            raise UsageError(f"pattern {raw[:60]!r} must match between 1 and {READ} bytes at least, not {least}")
        return re.compile(raw, re.MULTILINE)
    except re.error as error:
        raise UsageError(f"pattern {raw[:60]!r} is no regular expression: {error}") from error
