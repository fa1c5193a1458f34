"""From whatever is on a guest's console to a shell prompt: what was seen. Pure functions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from dfbuild.releases.schema import SerialShell
from dfbuild.shell.agent import READY
from dfbuild.shell.frames import HELLO, heard


class Seen(StrEnum):
    LOGIN = "login"
    PASSWORD = "password"
    PROMPT = "prompt"
    AGENT = "agent"
    """An agent that somebody left behind."""
    READY = "ready"
    """Our loader is at work."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """The release's patterns, compiled."""

    patterns: tuple[tuple[Seen, re.Pattern[bytes]], ...]

    @classmethod
    def of(cls, data: SerialShell) -> Prompts:
        return cls(
            (
                (Seen.LOGIN, re.compile(data.login.encode())),
                (Seen.PASSWORD, re.compile(data.password.encode())),
                (Seen.PROMPT, re.compile(data.prompt.encode())),
            )
        )

    def last(self, text: bytes) -> Seen | None:
        """What the console waits for, after printing `text`: the prompt that comes last in it."""
        words = heard(text).split(b"\n")
        if READY in words:
            return Seen.READY
        if HELLO in words:
            return Seen.AGENT
        ends = [
            (match.end(), -rank, seen)
            for rank, (seen, pattern) in enumerate(self.patterns)
            for match in pattern.finditer(text)
        ]
        return max(ends)[2] if ends else None

    def asks(self, text: bytes) -> bool:
        """Whether the last line of `text` is a login prompt. One with more behind it may be anything's words."""
        return dict(self.patterns)[Seen.LOGIN].search(text.rpartition(b"\n")[2]) is not None
