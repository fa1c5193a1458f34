"""What dfregress(8) reads and writes: its runlist, and the property list with its results. Pure."""

from __future__ import annotations

import plistlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import PurePosixPath
from xml.parsers.expat import ExpatError

from dfbuild.suites.probe import ProbeError

_TIMEOUT = 300
"""Seconds that a test case has where its line does not say, as in dfregress(8)."""
_LIMIT = re.compile(r"timeout=(\d{1,6})")


class Code(IntEnum):
    """How a test case ended: RESULT_* in usr.bin/dfregress/dfregress.h."""

    TIMEOUT = 1
    SIGNALLED = 2
    NOTRUN = 3
    FAIL = 4
    PASS = 5
    UNKNOWN = 6
    PREFAIL = 7
    POSTFAIL = 8
    BUILDFAIL = 9


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a runlist: the program, below the directory of test cases, and how it is run."""

    program: str
    type: str
    options: tuple[str, ...]
    arguments: tuple[str, ...]

    @property
    def timeout(self) -> int:
        """Seconds that the program may run."""
        found = [int(match[1]) for option in self.options if (match := _LIMIT.fullmatch(option))]
        return found[-1] if found else _TIMEOUT

    def line(self, slower: float) -> str:
        """The line again, for a guest that is `slower` times slower than what it was written for."""
        options = [option for option in self.options if not _LIMIT.fullmatch(option) and option != "defaults"]
        options.append(f"timeout={round(self.timeout * slower)}")
        return " ".join((self.program, self.type, ",".join(options), *self.arguments))


@dataclass(frozen=True, slots=True)
class Result:
    """How one test case ended. `said` is what was printed while it was built and run."""

    code: Code
    status: int
    signal: int
    said: str


def parse(text: str) -> list[Entry]:
    """The entries of a runlist. Raises `ProbeError` for a line that is none."""
    entries = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if len(words) < 3:
            raise ProbeError(f"the runlist has a line that is none: {line!r}")
        program, type, options, *arguments = words
        entries.append(Entry(program, type, tuple(options.split(",")), tuple(arguments)))
    return entries


def names(entries: Sequence[Entry]) -> Mapping[str, Entry]:
    """The entries by name: their directory, and what tells them apart from others there."""
    shared = Counter(PurePosixPath(entry.program).parent for entry in entries)
    found: dict[str, Entry] = {}
    for entry in entries:
        directory = PurePosixPath(entry.program).parent
        words = [*directory.parts, *([PurePosixPath(entry.program).stem] if len(directory.parts) < 2 else [])]
        if shared[directory] > 1:
            words += [PurePosixPath(argument).stem for argument in entry.arguments[-1:]]
        name = "-".join(words).replace("_", "-")  # as checks are called
        while name in found:
            name += "-again"
        found[name] = entry
    return found


def result(plist: bytes) -> Result:
    """What dfregress wrote about its only test case. Raises `ProbeError` for what says nothing of one."""
    try:
        (told,) = plistlib.loads(plist)
        how = told["result"]
        said = "".join(how.get(name, "") for name in ("build_buf", "stdout_buf", "stderr_buf", "sys_buf"))
        return Result(Code(how["result"]), how.get("exit_value", 0), how.get("signal", 0), said)
    except (ExpatError, plistlib.InvalidFileException, ValueError, TypeError, KeyError) as error:
        raise ProbeError(f"dfregress wrote no result: {plist[-200:]!r}") from error
