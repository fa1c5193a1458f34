"""Run one of the suites' C programs in the guest and read what it says."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from dfbuild.deadline import Within
from dfbuild.errors import DfbuildError
from dfbuild.shell.protocol import Answer, Shell

_Number = TypeVar("_Number", int, float)
_LINE = re.compile(r"([a-z][a-z0-9_]*)=([^\r\n]*)")


class ProbeError(DfbuildError):
    """A program of the suites did not say what it is there to say. An error of the check, never a finding."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a program printed: `key=value value ...` lines. Missing and malformed values are `ProbeError`s."""

    program: str
    values: Mapping[str, str]

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def __getitem__(self, key: str) -> str:
        try:
            return self.values[key]
        except KeyError:
            raise ProbeError(f"{self.program} said nothing about {key!r}, only {dict(self.values)!r}") from None

    def one_of(self, key: str, *known: str) -> str:
        """The value of `key`, which must be one of `known`: the findings that prove something."""
        value = self[key]
        if value not in known:
            raise ProbeError(
                f"{self.program}: {key} is {value!r}, which proves nothing ({' or '.join(known)} would)"
            )
        return value

    def numbers(self, key: str, count: int | None = None) -> tuple[float, ...]:
        """The list of `key` as finite numbers, `count` of them if given."""
        return self._list(key, _finite, count)

    def integers(self, key: str, count: int | None = None, *, base: int = 10) -> tuple[int, ...]:
        """The list of `key` as integers in `base`, `count` of them if given."""
        return self._list(key, lambda word: int(word, base), count)

    def _list(self, key: str, convert: Callable[[str], _Number], count: int | None) -> tuple[_Number, ...]:
        text = self[key]
        try:
            values = tuple(convert(word) for word in text.split())
        except ValueError:
            raise ProbeError(f"{self.program}: {key} should be a list of numbers, not {text[:200]!r}") from None
        if not values or (count is not None and len(values) != count):
            raise ProbeError(f"{self.program}: {key} has {len(values)} values instead of {count or 'some'}")
        return values


def _finite(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(word)
    return value


def integers(said: str, count: int | None = None) -> list[int]:
    """What a release's command printed, as integers, `count` of them if given; `ProbeError` for anything else."""
    try:
        found = [int(word) for word in said.split()]
    except ValueError:
        raise ProbeError(f"asked for numbers, the guest said {said[:200]!r}") from None
    if not found or (count is not None and len(found) != count):
        raise ProbeError(f"asked for {count or 'some'} numbers, the guest said {said[:200]!r}")
    return found


def succeeded(answer: Answer) -> str:
    """What a command printed that ended well; `ProbeError` for one that did not."""
    if answer.status != 0:
        raise ProbeError(f"{answer.command!r} ended with status {answer.status}: {answer.text[:200]!r}")
    return answer.text


def parse(program: str, answer: Answer) -> Report:
    """The report in the answer of `program`. Raises `ProbeError` unless it ended well and said `end=ok` last."""
    if answer.status != 0:
        raise ProbeError(f"{program} ended with status {answer.status}: {_tail(answer)}")
    values: dict[str, str] = {}
    for line in answer.text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise ProbeError(f"{program} printed {line[:200]!r}")
        values[match[1]] = match[2]
    if values.pop("end", "") != "ok":
        raise ProbeError(f"{program} did not come to its end: {_tail(answer)}")
    return Report(program, values)


def _tail(answer: Answer) -> str:
    return repr(answer.text[-300:])


@dataclass(frozen=True, slots=True)
class Probes:
    """The programs below `directory` in the guest, run through `shell`."""

    shell: Shell
    directory: str
    within: Within

    def __call__(self, program: str, *arguments: str | int, seconds: float = 60.0) -> Report:
        """Run `program` for at most `seconds`. Raises `ProbeError`, and what `Shell.run` does."""
        words = [f"{self.directory}/{program}", *map(str, arguments)]
        answer = self.shell.run(shlex.join(words), self.within(seconds, what=f"{program} in the guest"))
        return parse(program, answer)
