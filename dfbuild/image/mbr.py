"""The first sectors of a PC's disk: boot code and the table of slices, from values to bytes and back. Pure.

Layout: the table lies at 446 in sector 0, four entries of 16 bytes, and 0xAA55 at 510 (DragonFly 1.2,
sys/sys/diskmbr.h). Cylinder, head and sector are what old boot code reads by; the kernel guesses the disk's
geometry from the highest of them (sys/kern/subr_diskmbr.c), so a slice's last sector has to be a cylinder's last.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass

SECTOR = 512
BSD = 0xA5
"""Type of slices that hold a BSD label: 386BSD's, FreeBSD's and DragonFly's."""
CODE = 446
"""Bytes of boot code before the table."""
ENTRIES = 4

SIGNATURE = b"\x55\xaa"
"""The last bytes of a boot sector."""

_ENTRY = struct.Struct("<B3sB3sII")
_ACTIVE = 0x80
_HIGHEST = 1023
"""Cylinder that stands for all that are too far away for 10 bits."""


class BadTable(ValueError):
    """The sector does not hold what it has to."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a BIOS counts a disk's sectors: what SeaBIOS shows of every disk above 504 MB, whatever its size."""

    heads: int = 255
    sectors: int = 63

    @property
    def cylinder(self) -> int:
        """Sectors in a cylinder."""
        return self.heads * self.sectors

    def chs(self, sector: int) -> tuple[int, int, int]:
        """Cylinder, head and sector (from 1) of an absolute sector; the last of cylinder 1023 if it is beyond."""
        cylinder, rest = divmod(sector, self.cylinder)
        if cylinder > _HIGHEST:
            return _HIGHEST, self.heads - 1, self.sectors
        head, low = divmod(rest, self.sectors)
        return cylinder, head, low + 1


BIOS = Geometry()


@dataclass(frozen=True, slots=True)
class Slice:
    """An entry of the table. `start` and `size` are in sectors."""

    start: int
    size: int
    type: int = BSD
    active: bool = False


def sector(code: bytes, slices: Sequence[Slice], geometry: Geometry = BIOS) -> bytes:
    """A boot sector of `code`, of which only what lies before the table is taken, and the table.

    Raises `BadTable` if there are too many slices, if they overlap, or if the code is too long.
    """
    if len(slices) > ENTRIES:
        raise BadTable(f"{len(slices)} slices, and the table holds {ENTRIES}")
    if any(code[CODE:SECTOR].removesuffix(SIGNATURE)) or len(code) > SECTOR:
        raise BadTable(f"{len(code)} bytes of boot code, and {CODE} fit")
    ordered = sorted(slices, key=lambda one: one.start)
    for one in ordered:
        if one.start < 1 or one.size < 1 or one.start + one.size > 1 << 32 or not 0 < one.type < 256:
            raise BadTable(f"not a slice: {one}")
    for one, following in itertools.pairwise(ordered):
        if one.start + one.size > following.start:
            raise BadTable(f"{one} and {following} overlap")
    table = b"".join(_entry(one, geometry) for one in slices)
    return code[:CODE].ljust(CODE, b"\0") + table.ljust(ENTRIES * _ENTRY.size, b"\0") + SIGNATURE


def parse(data: bytes) -> tuple[Slice, ...]:
    """The slices in a boot sector; raises `BadTable` if it is none."""
    if len(data) < SECTOR or data[SECTOR - 2 : SECTOR] != SIGNATURE:
        raise BadTable("no boot sector: 0xAA55 is missing")
    found = []
    for flag, _, kind, _, start, size in _ENTRY.iter_unpack(data[CODE : SECTOR - 2]):
        if flag not in (0, _ACTIVE):
            raise BadTable(f"a slice's flag is {flag:#x}")
        if kind:
            found.append(Slice(start, size, kind, flag == _ACTIVE))
    return tuple(found)


def _entry(one: Slice, geometry: Geometry) -> bytes:
    flag = _ACTIVE if one.active else 0
    first, last = (_packed(geometry.chs(at)) for at in (one.start, one.start + one.size - 1))
    return _ENTRY.pack(flag, first, one.type, last, one.start, one.size)


def _packed(chs: tuple[int, int, int]) -> bytes:
    """Head, then the sector with the cylinder's two highest bits on top, then its other eight."""
    cylinder, head, low = chs
    return bytes((head, low | (cylinder >> 8) << 6, cylinder & 0xFF))
