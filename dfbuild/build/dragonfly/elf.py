"""What ELF files for i386 and x86-64 say, read by hand: a kernel has 1,500 objects, to be proven in seconds.

Layouts and constants are of the ELF specification, version 1.2, and of ELF-64, version 1.5.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from dfbuild.build.dragonfly.evidence import Made
from dfbuild.errors import BuildFailed

_IDENTITY = struct.Struct("<4sBB")
_SYMTAB, _RELA_TYPE, _NOBITS, _REL_TYPE = 2, 4, 8, 9
_EXECUTABLE = 0x4
_UNDEFINED = 0
_CALL = b"\xe8"
_COMPILER = re.compile(r"GCC: |([A-Z]\w* )?clang version \d")


@dataclass(frozen=True, slots=True)
class _Width:
    """How wide files have what they say. Symbols come in another order in wide ones."""

    machine: int
    header: struct.Struct
    section: struct.Struct
    symbol: struct.Struct
    value: int
    """Where in a symbol its value stands, and where its section does."""
    home: int
    rel: struct.Struct
    rela: struct.Struct
    shift: int
    """In a relocation's information, below the symbol's number."""


_WIDTHS = {
    1: _Width(
        3, struct.Struct("<16xHHIIIIIHHHHHH"), struct.Struct("<IIIIIIIIII"), struct.Struct("<IIIBBH"), 1, 5,
        struct.Struct("<II"), struct.Struct("<IIi"), 8,
    ),
    2: _Width(
        62, struct.Struct("<16xHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ"), 4, 3,
        struct.Struct("<QQ"), struct.Struct("<QQq"), 32,
    ),
}  # fmt: skip
"""By the file's class, its fifth byte."""


@dataclass(frozen=True, slots=True)
class _Section:
    width: _Width
    name: str
    type: int
    flags: int
    address: int
    data: bytes
    size: int
    link: int
    info: int


def objects(path: Path, symbols: Collection[str]) -> Made:
    """The compilers that signed an object, and how often its code refers to each of `symbols` in another object.

    What an object defines itself does not count: libc's part of the stack protector is there whoever uses it. What
    else stands among the compilers' signatures (`#ident`) is left out.
    """
    sections = list(_sections(path))
    made = Made()
    for section in sections:
        if section.name == ".comment":
            words = (text.decode("latin-1") for text in section.data.split(b"\0"))
            made.comments.update(word for word in words if _COMPILER.match(word))
        elif section.type in (_REL_TYPE, _RELA_TYPE) and _of_code(section, sections):
            layout = section.width.rel if section.type == _REL_TYPE else section.width.rela
            table = sections[section.link]
            wanted = {
                number: name
                for number, (name, home) in enumerate(zip(_names(table, sections), _homes(table), strict=True))
                if name in symbols and home == _UNDEFINED
            }
            if wanted:
                counted = Counter(entry[1] >> section.width.shift for entry in _entries(layout, section.data))
                made.references.update(
                    {name: counted[number] for number, name in wanted.items() if counted[number]}
                )
    return made


def whole(path: Path) -> bool:
    """Whether all is there that an ELF file's headers name, which are written last."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        sections = list(_sections(path))
    except BuildFailed:
        return False
    return bool(sections) and all(one.type == _NOBITS or len(one.data) == one.size for one in sections)


def sizes(path: Path) -> dict[str, int]:
    """The sizes of the sections that are in memory when the program runs, by name."""
    return {section.name: section.size for section in _sections(path) if section.flags & 0x2 and section.size}


def contents(path: Path) -> dict[str, bytes]:
    """What is in the same sections at the beginning, by name; those of zeros are empty."""
    return {section.name: section.data for section in _sections(path) if section.flags & 0x2 and section.size}


def calls(path: Path, symbol: str) -> int:
    """How many instructions in `.text` of a linked program call `symbol`; 0 if it has no such symbol.

    Every byte that looks like a call is taken for one if it would reach the symbol, as one in 2³² does by chance.
    """
    sections = list(_sections(path))
    address = next(
        (
            value
            for table in sections
            if table.type == _SYMTAB
            for name, value in zip(_names(table, sections), _values(table), strict=True)
            if name == symbol
        ),
        0,
    )
    if not address:
        return 0
    count = 0
    for text in sections:
        if not text.flags & _EXECUTABLE:
            continue
        at = text.data.find(_CALL)
        while 0 <= at <= len(text.data) - 5:
            (distance,) = struct.unpack_from("<i", text.data, at + 1)
            count += (text.address + at + 5 + distance - address) & 0xFFFFFFFF == 0
            at = text.data.find(_CALL, at + 1)
    return count


def _sections(path: Path) -> Iterator[_Section]:
    data = path.read_bytes()
    try:
        magic, kind, order = _IDENTITY.unpack_from(data)
        width = _WIDTHS.get(kind)
        if magic != b"\x7fELF" or width is None or order != 1:
            raise BuildFailed(f"{path.name} is no ELF file for a PC", component=path.name)
        _, machine, _, _, _, at, _, _, _, _, size, count, strings = width.header.unpack_from(data)
        if machine != width.machine:
            raise BuildFailed(f"{path.name} is no ELF file for a PC", component=path.name)
        raw = [width.section.unpack_from(data, at + number * size) for number in range(count)]
        names = data[raw[strings][4] : raw[strings][4] + raw[strings][5]] if count else b""
        if any(link >= count for _, _, _, _, _, _, link, _, _, _ in raw):
            raise IndexError("a section belongs to one that is not there")
    except (struct.error, IndexError, OverflowError) as error:
        raise BuildFailed(f"{path.name} is not a sound ELF file: {error}", component=path.name) from error
    for name, kind, flags, address, offset, length, link, info, _, _ in raw:
        content = b"" if kind == _NOBITS else data[offset : offset + length]
        yield _Section(width, _string(names, name), kind, flags, address, content, length, link, info)


def _of_code(relocations: _Section, sections: list[_Section]) -> bool:
    return relocations.info < len(sections) and bool(sections[relocations.info].flags & _EXECUTABLE)


def _names(table: _Section, sections: list[_Section]) -> list[str]:
    strings = sections[table.link].data
    return [_string(strings, entry[0]) for entry in _entries(table.width.symbol, table.data)]


def _values(table: _Section) -> list[int]:
    return [entry[table.width.value] for entry in _entries(table.width.symbol, table.data)]


def _homes(table: _Section) -> list[int]:
    """The section that each symbol is defined in."""
    return [entry[table.width.home] for entry in _entries(table.width.symbol, table.data)]


def _entries(layout: struct.Struct, data: bytes) -> Iterator[tuple[int, ...]]:
    return layout.iter_unpack(data[: len(data) - len(data) % layout.size])


def _string(strings: bytes, at: int) -> str:
    end = strings.find(b"\0", at)
    return strings[at : end if end >= 0 else len(strings)].decode("latin-1")
