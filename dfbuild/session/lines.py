"""From which line of which file an address of a program came: of what its compiler said of it, DWARF or stabs."""

from __future__ import annotations

import bisect
import posixpath
import struct
from typing import Any, Protocol

_STAB = struct.Struct("<IBBHI")
_UNIT, _FUNCTION, _LINE, _SOURCE, _INCLUDED = 0x00, 0x24, 0x44, 0x64, 0x84
"""Types of stabs, of gdb's manual of them: a unit's strings, N_FUN, N_SLINE, N_SO, N_SOL."""


class Lines(Protocol):
    def line(self, address: int, function: int) -> tuple[str, str]:
        """`file:line` of an address in the function that begins at another one, with the file's whole path; empty
        where that is not known.

        Where the line is of a header's function that was expanded there, that one is the second, and the first the
        last line before it that is of the function's own file.
        """
        ...


def of(elf: Any) -> Lines:
    """The lines of an ELF file of pyelftools: what there is. Raises pyelftools' errors."""
    if (stabs := elf.get_section_by_name(".stab")) is not None:
        return Stabs(stabs.data(), elf.get_section_by_name(".stabstr").data())
    return Dwarf(elf.get_dwarf_info()) if elf.has_dwarf_info() else Stabs(b"", b"")


class Dwarf:
    """Of units that `.debug_aranges` has."""

    def __init__(self, info: Any) -> None:
        self._info = info
        self._units = info.get_aranges()

    def line(self, address: int, function: int) -> tuple[str, str]:
        offset = self._units.cu_offset_at_addr(address) if self._units is not None else None
        if offset is None:
            return "", ""
        unit = self._info.get_CU_at(offset)
        program = self._info.line_program_for_CU(unit)
        before = first = own = None
        for entry in program.get_entries() if program is not None else ():
            state = entry.state
            if state is None:
                continue
            if before is not None and before.address < state.address:
                if before.address <= function < state.address:
                    first = before
                if first is not None and before.file == first.file:
                    own = before
                if before.address <= address < state.address:
                    return _told(*(_line(unit, program.header, one) for one in (own or before, before)))
            before = None if state.end_sequence else state
        return "", ""


def _told(own: str, there: str) -> tuple[str, str]:
    return own, "" if own == there else there


def _line(unit: Any, header: Any, state: Any) -> str:
    return f"{_file(unit, header, state.file)}:{state.line}"


def _file(unit: Any, header: Any, number: int) -> str:
    # DWARF 5 counts files and directories from 0, of which the first are the unit's own; those before from 1.
    first = int(header.version < 5)
    file = header.file_entry[number - first]
    directory = header.include_directory[file.dir_index - first] if file.dir_index >= first else b""
    top = unit.get_top_DIE().attributes
    own = top["DW_AT_comp_dir"].value if "DW_AT_comp_dir" in top else b""
    return _path(own, directory, file.name)


class Stabs:
    """Of the sections `.stab` and `.stabstr`."""

    def __init__(self, stabs: bytes, strings: bytes) -> None:
        found: list[tuple[int, str, int]] = []
        names = after = function = 0
        directory, file = b"", ""
        for at, kind, _, number, value in _STAB.iter_unpack(stabs[: len(stabs) - len(stabs) % _STAB.size]):
            if kind == _LINE:
                found.append((function + value, file, number))
            elif kind == _UNIT:
                names, after = after, after + value
            elif kind in (_FUNCTION, _SOURCE, _INCLUDED):
                name = strings[names + at : strings.find(b"\0", names + at)]
                if kind == _FUNCTION:
                    # One without a name closes the function; its value is the function's length.
                    function = value if name else function
                elif kind == _SOURCE and name.endswith(b"/"):
                    directory = name
                elif name:
                    file = _path(directory, name)
        found.sort()
        self._found = found

    def line(self, address: int, function: int) -> tuple[str, str]:
        at, first = self._at(address), self._at(function)
        if at < 0:
            return "", ""
        file = self._found[max(first, 0)][1]
        own = next((one for one in range(at, first - 1, -1) if self._found[one][1] == file), at)
        return _told(*(f"{self._found[one][1]}:{self._found[one][2]}" for one in (own, at)))

    def _at(self, address: int) -> int:
        return bisect.bisect_right(self._found, (address, "\U0010ffff", 0)) - 1


def _path(*parts: bytes) -> str:
    return posixpath.normpath(posixpath.join(*parts)).decode("utf-8", "replace")
