"""The crash monitor: sees every byte once, and knows a crash by the release's signatures.

It judges whole lines, so the verdict depends on what was printed and not on how the bytes were cut into chunks.
A line that is still open is judged by `settle()`, for whoever knows that nothing more is coming. A line longer
than `WINDOW` bytes is judged in windows that overlap by half; a signature has to fit into one half.

A literal search over the chunk decides whether any regular expression is tried at all: `bytes.find` runs at
memory speed, and a console hardly ever shows one of the literals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dfbuild.console.text import printable
from dfbuild.errors import UsageError
from dfbuild.model import CrashReport
from dfbuild.releases.schema import Crash

WINDOW = 4096
_HALF = WINDOW // 2
_TITLE_LIMIT = 200


@dataclass(frozen=True, slots=True)
class _Signature:
    crash: Crash
    literal: bytes
    pattern: re.Pattern[bytes]


def _compile(crash: Crash) -> _Signature:
    literal = crash.literal.encode()
    if not 0 < len(literal) <= _HALF or b"\n" in literal:
        raise UsageError(f"crash signature {crash.name!r}: its literal must be 1 to {_HALF} bytes of one line")
    try:
        pattern = re.compile(crash.pattern.encode(), re.MULTILINE)
        crash.title.format(*[""] * (pattern.groups + 1))
    except (re.error, IndexError, KeyError, ValueError) as error:
        raise UsageError(f"crash signature {crash.name!r}: {error}") from error
    return _Signature(crash, literal, pattern)


class Monitor:
    """Finds the first crash in a stream of bytes. Among the signatures of one line the one listed first wins."""

    def __init__(self, crashes: Sequence[Crash]) -> None:
        self._signatures = [_compile(crash) for crash in crashes]
        # The open line. Its first `_lead` bytes (0 or 1) are only there so that `^` does not match behind them.
        self._carry = b""
        self._lead = 0
        self._end = 0
        self._settled = True
        self._found: CrashReport | None = None

    @property
    def unsettled(self) -> bool:
        """Whether there is an open line that only `settle()` would judge, and has not."""
        return not self._settled and self._found is None and len(self._carry) > self._lead

    def rearm(self) -> None:
        """Forget what was found and the open line: the guest starts anew."""
        self._found, self._carry, self._lead = None, b"", 0

    def feed(self, chunk: bytes, offset: int) -> CrashReport | None:
        """Take the bytes at `offset`, which follow those taken before; the first crash, the one time it is seen."""
        self._end = offset + len(chunk)
        self._settled = False
        if self._found is not None:
            return None
        if b"\n" not in chunk and len(self._carry) + len(chunk) <= WINDOW:
            self._carry += chunk
            return None
        buffer = self._carry + chunk if self._carry else chunk
        base = self._end - len(buffer)
        suspects = [signature for signature in self._signatures if signature.literal in buffer]
        if suspects:
            self._found = self._judge(suspects, buffer, base, self._lead, closed=False)
        self._keep(buffer)
        return self._found

    def settle(self) -> CrashReport | None:
        """Judge the open line as if it ended here; what comes later is still judged together with it."""
        if not self.unsettled:
            return None
        self._settled = True
        self._found = self._judge(
            self._signatures, self._carry, self._end - len(self._carry), self._lead, closed=True
        )
        return self._found

    def _keep(self, buffer: bytes) -> None:
        """Carry the open line, less the windows of it that have been judged."""
        newline = buffer.rfind(b"\n")
        start, lead = (newline + 1, 0) if newline >= 0 else (self._lead, self._lead)
        while len(buffer) - start > WINDOW:
            start, lead = start + _HALF, 1
        self._carry, self._lead = buffer[start - lead :], lead

    def _judge(
        self, suspects: Sequence[_Signature], buffer: bytes, base: int, start: int, *, closed: bool
    ) -> CrashReport | None:
        """The first crash in `buffer`, whose first line begins at index `start`; by place, then by rank."""
        found = [
            (window, rank, signature, match)
            for rank, signature in enumerate(suspects)
            for window, match in [_first(signature, buffer, start, closed=closed)]
            if match is not None
        ]
        if not found:
            return None
        window, _, signature, match = min(found, key=lambda each: each[:2])
        crash = signature.crash
        groups = [printable(group or b"").strip() for group in (match[0], *match.groups())]
        return CrashReport(
            title=crash.title.format(*groups)[:_TITLE_LIMIT],
            signature=crash.name,
            verdict=crash.verdict,
            offset=base + window,
        )


def _first(signature: _Signature, buffer: bytes, start: int, *, closed: bool) -> tuple[int, re.Match[bytes] | None]:
    """The first window of `buffer` in which `signature` matches, and the match."""
    at = start
    while (at := buffer.find(signature.literal, at)) >= 0:
        begin = max(start, buffer.rfind(b"\n", start, at) + 1)
        end = buffer.find(b"\n", at)
        for low, high in _windows(begin, end if end >= 0 else len(buffer), open_end=end < 0 and not closed):
            if signature.literal in buffer[low:high] and (match := signature.pattern.search(buffer, low, high)):
                return low, match
        if end < 0:
            break
        at = end
    return -1, None


def _windows(begin: int, end: int, *, open_end: bool) -> Iterator[tuple[int, int]]:
    """What of the line between two indices is to be judged; of an open line only windows that cannot grow."""
    while end - begin > WINDOW:
        yield begin, begin + WINDOW
        begin += _HALF
    if not open_end:
        yield begin, end
