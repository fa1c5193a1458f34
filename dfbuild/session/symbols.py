"""What lies at an address of the guest's kernel: the function, and the line of its source where that is known."""

from __future__ import annotations

import bisect
import functools
import re
import threading
from typing import Any

from dfbuild.errors import InfraError
from dfbuild.model import Symbols
from dfbuild.session import lines

_turn = threading.Lock()
_ADDRESS = re.compile(
    r"(?:(?<![\w=])(?P<cpu>at |[re]ip: |[re]ip = )?|(?<=[0-9a-f])(?P<segment>:))"
    r"(?:0x)?(?P<address>[0-9a-f]{16}|[0-9a-f]{8})\b"
)
"""An address, with what shows that a CPU is there (`0x8:0xffffffff80123456`); others were left to come back to."""


def annotate(text: str, symbols: Symbols) -> str:
    """`text`, behind every address in it of one of the kernel's functions what is there, as far as its line does
    not say so already. Values of registers, after a `=`, are left as they are.

    Raises `InfraError` if the file cannot be read.
    """
    # One at a time: they share the file, and the place in it where it is read.
    with _turn:
        try:
            return _annotated(text, _load(symbols))
        except Exception as error:
            # A patch may put anything there, and the library has its own errors for little of it.
            raise InfraError(f"cannot read the symbols of {symbols.file}: {error!r}") from error


def _annotated(text: str, table: _Table) -> str:
    # A trace begins with the place that the registers name, and says it as if it were left.
    here = {found["address"] for found in _ADDRESS.finditer(text) if found["cpu"] or found["segment"]}

    def told(found: re.Match[str]) -> str:
        # What comes back to an address was called before it, by what may be another line.
        place, line = table.place(int(found["address"], 16), back=0 if found["address"] in here else 1)
        before = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
        words = [] if not place or place in before.split() else [place]
        return " ".join([found[0], *words, *([f"({line})"] if line else [])])

    return _ADDRESS.sub(told, text)


class _Table:
    """The functions of an ELF file, and where it says which lines they came from."""

    def __init__(self, elf: Any, source: str) -> None:
        table = elf.get_section_by_name(".symtab")
        functions = {
            symbol["st_value"]: (symbol.name, symbol["st_size"])
            for symbol in (table.iter_symbols() if table is not None else ())
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_size"]
        }
        self._starts = sorted(functions)
        self._functions = functions
        self._source = f"{source}/"
        self._lines = lines.of(elf)

    def place(self, address: int, *, back: int) -> tuple[str, str]:
        """`function+0x1f`, and `file:line` of what is `back` bytes before it, with that of a header's function if
        one was expanded there; empty where they are not known."""
        # What calls a function that never returns may be its caller's last, and what is behind it another's first.
        there = address - back
        at = bisect.bisect_right(self._starts, there) - 1
        if at < 0:
            return "", ""
        start = self._starts[at]
        name, size = self._functions[start]
        if there >= start + size:
            return "", ""
        own, expanded = (line.removeprefix(self._source) for line in self._lines.line(there, start))
        return f"{name}+{address - start:#x}", f"{own}, in {_short(expanded)}" if expanded else _short(own)


def _short(line: str) -> str:
    """A line of a file of the tree as it is; of one elsewhere, which objects alone have, what includes call it."""
    return "/".join(line.rsplit("/", 2)[-2:]) if line.startswith("/") else line


@functools.lru_cache(maxsize=1)
def _load(symbols: Symbols) -> _Table:
    from elftools.elf.elffile import ELFFile

    # Stays open for the table's life: lines are looked up in it.
    return _Table(ELFFile(symbols.file.open("rb")), symbols.source)
