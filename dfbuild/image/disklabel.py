"""The 32-bit BSD disk label of FreeBSD 4 and DragonFly 1.x, from values to bytes and back. Pure.

Layout: `struct disklabel` in sys/sys/disklabel.h of DragonFly 1.2, on i386 at the beginning of a slice's second
sector. On disk all offsets count from the disk's beginning: partition `c`, which is the slice, says where that is,
and the kernel rejects a label where it does not (`fixlabel`, sys/kern/subr_diskslice.c).
"""

from __future__ import annotations

import functools
import itertools
import operator
import string
import struct
from collections.abc import Mapping
from dataclasses import dataclass

MAGIC = 0x82564557
SECTOR_NUMBER = 1
"""The slice's sector that the label lies in."""
RAW = "c"
"""The partition that is the whole slice."""
SWAP, FFS = 1, 7
"""Partition types."""
ESDI = 5
"""A drive type that boot2 takes for an IDE disk (`ad`); SCSI (4) would be `da`."""
BOOT_AREA = 8192
"""Bytes at the slice's beginning that boot1, label and boot2 lie in (`d_bbsize`), and a superblock's most
(`d_sbsize`)."""
LEAST, MOST = 8, 16
"""Partitions in a label."""

# magic, type, subtype, typename, packname, then 6 of geometry, 2 of spares, acylinders, 4 of timing, 2 more, flags,
# drivedata, spare, magic2, checksum, npartitions, bbsize, sbsize
_HEAD = struct.Struct("<IHH16s16s6I2HI4H3I20x20xIHHII")
_PARTITION = struct.Struct("<IIIBBH")
_CHECKSUM_AT = 136
_LETTERS = string.ascii_lowercase[:MOST]


class BadLabel(ValueError):
    """The bytes are no label, or the values make none."""


@dataclass(frozen=True, slots=True)
class Partition:
    """`offset` and `size` are in sectors, from the disk's beginning. `fragment`, `fragments` (in a block) and
    `group` (cylinders in a group) describe a file system to fsck, where it has lost its own superblock."""

    offset: int
    size: int
    type: int = 0
    fragment: int = 0
    fragments: int = 0
    group: int = 0


@dataclass(frozen=True, slots=True)
class Label:
    """A slice's partitions by letter, and the geometry that its sectors are counted in."""

    partitions: Mapping[str, Partition]
    heads: int = 255
    sectors: int = 63
    type: int = ESDI
    typename: str = ""
    packname: str = "dfbuild"

    @property
    def cylinder(self) -> int:
        """Sectors in a cylinder."""
        return self.heads * self.sectors


def pack(label: Label) -> bytes:
    """The label's bytes with its checksum. Raises `BadLabel` for what the kernel would reject."""
    _check(label)
    count = max(LEAST, 1 + max(_LETTERS.index(letter) for letter in label.partitions))
    unit = label.partitions[RAW].size
    head = _HEAD.pack(
        MAGIC, label.type, 0, label.typename.encode(), label.packname.encode(),
        512, label.sectors, label.heads, unit // label.cylinder, label.cylinder, unit,
        0, 0, 0,
        3600, 1, 0, 0,
        0, 0, 0,
        MAGIC, 0, count, BOOT_AREA, BOOT_AREA,
    )  # fmt: skip
    empty = Partition(0, 0)
    body = bytearray(head)
    for letter in _LETTERS[:count]:
        one = label.partitions.get(letter, empty)
        body += _PARTITION.pack(one.size, one.offset, one.fragment, one.type, one.fragments, one.group)
    struct.pack_into("<H", body, _CHECKSUM_AT, checksum(bytes(body)))
    return bytes(body)


def parse(data: bytes) -> Label:
    """The label at the beginning of `data`; raises `BadLabel` if there is none, or its checksum is wrong."""
    if len(data) < _HEAD.size:
        raise BadLabel(f"{len(data)} bytes are no label")
    (
        magic, kind, _, typename, packname, _, sectors, heads, _, _, _, _, _, _, _, _, _, _, _, _, _,
        magic2, _, count, _, _,
    ) = _HEAD.unpack_from(data)  # fmt: skip
    if (magic, magic2) != (MAGIC, MAGIC):
        raise BadLabel("no label: its magic number is missing")
    if not 0 < count <= MOST or len(data) < _HEAD.size + count * _PARTITION.size:
        raise BadLabel(f"a label with {count} partitions")
    end = _HEAD.size + count * _PARTITION.size
    if checksum(data[:end]) != 0:
        raise BadLabel("the label's checksum is wrong")
    partitions = {
        letter: Partition(offset, size, fstype, fragment, fragments, group)
        for letter, (size, offset, fragment, fstype, fragments, group) in zip(
            _LETTERS, _PARTITION.iter_unpack(data[_HEAD.size : end]), strict=False
        )
        if size
    }
    try:
        names = [name.rstrip(b"\0").decode() for name in (typename, packname)]
    except UnicodeDecodeError as error:
        raise BadLabel("a label with names that are no text") from error
    return Label(partitions, heads, sectors, kind, *names)


def checksum(label: bytes) -> int:
    """All 16-bit words of the label combined by exclusive or: 0 for one that holds its own checksum."""
    return functools.reduce(operator.xor, struct.unpack(f"<{len(label) // 2}H", label), 0)


def _check(label: Label) -> None:
    raw = label.partitions.get(RAW)
    if raw is None or raw.size < 1:
        raise BadLabel(f"partition {RAW}, the whole slice, is missing")
    if not (0 < label.heads < 256 and 0 < label.sectors < 64):
        raise BadLabel(f"no geometry: {label.heads} heads, {label.sectors} sectors")
    for name in (label.typename, label.packname):
        if len(name.encode()) > 16 or "\0" in name:
            raise BadLabel(f"no name for a label: {name!r}")
    taken: list[tuple[int, str]] = []
    for letter, one in label.partitions.items():
        if letter not in _LETTERS:
            raise BadLabel(f"no partition's letter: {letter!r}")
        if one.size < 1 or one.offset < raw.offset or one.offset + one.size > raw.offset + raw.size:
            raise BadLabel(f"partition {letter} is not within the slice")
        if one.offset + one.size >= 1 << 32:
            raise BadLabel(f"partition {letter} ends beyond 2 TB")
        if letter != RAW:
            taken.append((one.offset, letter))
    taken.sort()
    for (_, letter), (begin, following) in itertools.pairwise(taken):
        one = label.partitions[letter]
        if one.offset + one.size > begin:
            raise BadLabel(f"partitions {letter} and {following} overlap")
