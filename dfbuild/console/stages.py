"""Boot stages: what a guest must show, in order, each within its own time. A pure state machine: the caller
tells it the time, in the clock of `time.monotonic()`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dfbuild.console.text import printable
from dfbuild.model import StageReached
from dfbuild.releases.schema import Stage

_LINE = 4096
_SHOWN = 100
"""Characters of the last line that are told: behind it comes where the guest was."""
_WORD = re.compile(rb"[0-9A-Za-z]{2}")


def overwritten(line: bytes) -> bytes:
    """What is left to see of a line with backspaces, by which loaders turn their spinners. Pure."""
    seen = bytearray()
    for byte in line:
        if byte == 0x08:
            del seen[-1:]
        else:
            seen.append(byte)
    return bytes(seen)


@dataclass(frozen=True, slots=True)
class Overdue:
    """The boot has stuck: `stage` was awaited for `waited` seconds; `silent` if nothing at all was printed."""

    stage: str
    waited: float
    silent: bool
    last_line: str

    def __str__(self) -> str:
        last = f"its last line was {self.last_line!r}" if self.last_line else "it never printed a line"
        if self.silent:
            return f"silent for {self.waited:.1f} s before stage {self.stage!r}; {last}"
        return f"stage {self.stage!r} not reached within {self.waited:.1f} s; {last}"


class BootTracker:
    """Follows a boot through its stages. `factor` scales all times, for emulated CPUs."""

    def __init__(self, stages: Sequence[Stage], *, silence: float, power_on: float, factor: float = 1.0) -> None:
        self._stages = [(s.name, re.compile(s.pattern.encode(), re.MULTILINE), s.deadline * factor) for s in stages]
        self._silence = silence * factor
        self._power_on = self._since = self._heard = power_on
        self._carry = b""
        self._lead = 0
        self._last_line = b""
        self.reached: tuple[StageReached, ...] = ()

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of all stages, in order."""
        return tuple(name for name, _, _ in self._stages)

    @property
    def done(self) -> bool:
        return len(self.reached) == len(self._stages)

    @property
    def awaited(self) -> str:
        """The stage that must come next; empty when all are reached."""
        return "" if self.done else self._stages[len(self.reached)][0]

    @property
    def last_line(self) -> str:
        """The last line with a word on it, finished or not, as safe text; else the last one with anything on it."""
        open_line = self._carry[self._lead :].strip()
        telling = open_line if _WORD.search(open_line) or not self._last_line else self._last_line
        return printable(overwritten(telling))[-_SHOWN:]

    def feed(self, chunk: bytes, offset: int, now: float) -> tuple[StageReached, ...]:
        """Take the bytes at `offset`, which follow those taken before; the stages that they reach."""
        self._heard = now
        if self.done:
            return ()
        buffer = self._carry + chunk
        base = offset - len(self._carry)
        before = len(self.reached)
        at = self._lead
        while not self.done:
            name, pattern, _ = self._stages[len(self.reached)]
            match = pattern.search(buffer, at)
            if match is None:
                break
            self.reached += (StageReached(name, now - self._power_on, base + match.start()),)
            self._since = now
            at = match.end()
        self._keep(buffer, at)
        return self.reached[before:]

    def _keep(self, buffer: bytes, consumed: int) -> None:
        """Carry what a pattern may still need: the open line, less what a stage has used."""
        newline = buffer.rfind(b"\n")
        if newline >= 0:
            complete = buffer[max(0, newline - _LINE) : newline].strip()
            last = complete.rpartition(b"\n")[2].strip()
            if last and (_WORD.search(last) or not self._last_line):
                self._last_line = last
        start = max(consumed, newline + 1, len(buffer) - _LINE)
        # One byte more, so that `^` does not match in the middle of a line.
        self._lead = int(start > 0 and buffer[start - 1 : start] != b"\n")
        self._carry = buffer[start - self._lead :]

    def due(self) -> float:
        """The moment at which the boot is overdue if nothing is printed until then; never once all is reached."""
        if self.done:
            return math.inf
        return min(self._since + self._stages[len(self.reached)][2], self._heard + self._silence)

    def expired(self, now: float) -> Overdue | None:
        """Whether the awaited stage is lost at `now`, and how."""
        if now < self.due():
            return None
        silent = self._heard + self._silence <= now and self._silence < self._stages[len(self.reached)][2]
        return Overdue(self.awaited, now - (self._heard if silent else self._since), silent, self.last_line)
