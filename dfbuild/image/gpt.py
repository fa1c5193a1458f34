"""A GUID partition table, from values to bytes. Pure.

Layout: UEFI 2.8, chapter 5: a protective MBR in sector 0, the header in 1, the entries in 2 to 33; the same once
more at the disk's end, the entries first. All numbers are little-endian, GUIDs with their first three fields so.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from dfbuild.image import mbr

ENTRIES = 128
"""That there is room for: the least that the specification allows, and the most that DragonFly reads
(`gptinit`, sys/kern/subr_diskgpt.c)."""
EFI_SYSTEM = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
"""Type of the partition that firmware takes a boot program from."""

_PROTECTIVE = 0xEE
_SECTOR = mbr.SECTOR
# signature, revision, header's size and checksum, nothing; where the header lies, where its copy, the first and the
# last sector for partitions; the disk's GUID; where the entries begin, how many, the size of one, their checksum
_HEADER = struct.Struct("<8sIII4xQQQQ16sQIII")
_CHECKSUM_AT = 16
# type, GUID, first and last sector, attributes, name
_ENTRY = struct.Struct("<16s16sQQQ72s")
_TABLE = ENTRIES * _ENTRY.size // _SECTOR
"""Sectors of entries."""

FIRST = 2 + _TABLE
"""The first sector that a partition may have."""
BEHIND = 1 + _TABLE
"""Sectors at the disk's end that none may have."""


class BadTable(ValueError):
    """The values make no table."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A partition of `size` sectors from `start` on. `id` is its own GUID."""

    start: int
    size: int
    type: UUID
    id: UUID
    name: str = ""


def sectors(disk: UUID, size: int, entries: Sequence[Entry]) -> dict[int, bytes]:
    """The table of the disk `disk` of `size` sectors, in the order of `entries`: sector ▸ bytes.

    Raises `BadTable` where entries overlap or lie outside of the disk, and for names that are too long.
    """
    _check(size, entries)
    table = b"".join(map(_entry, entries)).ljust(_TABLE * _SECTOR, b"\0")
    last = size - 1
    whole = mbr.Slice(1, min(last, 0xFFFFFFFF), _PROTECTIVE)
    return {
        0: mbr.sector(b"", [whole]),
        1: _header(disk, here=1, other=last, entries=2, size=size, table=table),
        2: table,
        last - _TABLE: table,
        last: _header(disk, here=last, other=1, entries=last - _TABLE, size=size, table=table),
    }


def _header(disk: UUID, *, here: int, other: int, entries: int, size: int, table: bytes) -> bytes:
    header = bytearray(
        _HEADER.pack(
            b"EFI PART", 0x10000, _HEADER.size, 0, here, other, FIRST, size - BEHIND - 1,
            disk.bytes_le, entries, ENTRIES, _ENTRY.size, zlib.crc32(table),
        )
    )  # fmt: skip
    struct.pack_into("<I", header, _CHECKSUM_AT, zlib.crc32(header))
    return bytes(header).ljust(_SECTOR, b"\0")


def _entry(one: Entry) -> bytes:
    name = one.name.encode("utf-16-le")
    return _ENTRY.pack(one.type.bytes_le, one.id.bytes_le, one.start, one.start + one.size - 1, 0, name)


def _check(size: int, entries: Sequence[Entry]) -> None:
    if len(entries) > ENTRIES:
        raise BadTable(f"{len(entries)} partitions, and the table holds {ENTRIES}")
    if not FIRST + BEHIND < size < 1 << 64:
        raise BadTable(f"no table fits on a disk of {size} sectors")
    for one in entries:
        if one.size < 1 or one.start < FIRST or one.start + one.size > size - BEHIND:
            raise BadTable(f"not a partition of a disk of {size} sectors: {one}")
        if len(one.name.encode("utf-16-le")) > 72:
            raise BadTable(f"more than 36 characters: {one.name!r}")
        if not one.type.int:
            raise BadTable(f"without a type: {one}")
    if len({one.id for one in entries}) < len(entries):
        raise BadTable("two partitions with one GUID")
    for one, following in itertools.pairwise(sorted(entries, key=lambda one: one.start)):
        if one.start + one.size > following.start:
            raise BadTable(f"{one} and {following} overlap")
