"""The 64-bit disk label of DragonFly 2 and later, from values to bytes. Pure.

Layout: `struct disklabel64` in sys/sys/disklabel64.h of DragonFly 5.9. It lies at the beginning of its slice, boot1
in the 512 bytes before it; all offsets are in bytes and count from the slice's beginning. What is reserved where is
as the kernel makes a new label (`l64_makevirginlabel`, sys/kern/subr_disklabel64.c).
"""

from __future__ import annotations

import itertools
import string
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from dfbuild.image.disklabel import FFS, SWAP

__all__ = ["FFS", "HAMMER2", "SWAP", "BadLabel", "Label", "Partition", "pack"]

HAMMER2 = 23
"""Type of a partition with that file system (sys/sys/dtype.h); the 32-bit label's time did not know it."""

MAGIC = 0xC4464C59
AT = 512
"""Bytes from the slice's beginning to the label."""
PARTITIONS = 16
BOOT2 = 4096
"""Where boot2 lies: behind a label of 32 partitions."""
BOOT2_SIZE = 32 << 10
ALIGNMENT = 1 << 20
"""Partitions begin at multiples of this, counted from the disk's beginning."""
RESERVED = ALIGNMENT
"""Bytes before the first partition, in a slice that begins at such a multiple."""
BACKUP = 4096
"""Bytes at the slice's end that are kept free for a copy of the label."""

# magic, checksum, alignment, partitions, GUID; size of it all, boot2, first and last byte for partitions, the copy
_HEAD = struct.Struct("<IIII16sQQQQQ64s64x")
_CHECKSUM_AT = 4
# offset, size, type; GUIDs of its type, which disklabel64(8) leaves empty, and of itself
_PARTITION = struct.Struct("<QQB15x16x16s")
_LETTERS = string.ascii_lowercase[:PARTITIONS]


class BadLabel(ValueError):
    """The values make no label."""


@dataclass(frozen=True, slots=True)
class Partition:
    """`offset` and `size` are in bytes, from the slice's beginning."""

    offset: int
    size: int
    type: int
    id: UUID


@dataclass(frozen=True, slots=True)
class Label:
    """A slice of `size` bytes, which begins at a multiple of `ALIGNMENT`, and its partitions by letter."""

    size: int
    id: UUID
    partitions: Mapping[str, Partition]
    packname: str = "dfbuild"

    @property
    def stop(self) -> int:
        """Where the last partition has to end."""
        return (self.size - BACKUP) // ALIGNMENT * ALIGNMENT


def pack(label: Label) -> bytes:
    """The label's bytes with its checksum. Raises `BadLabel` for what the kernel would reject."""
    _check(label)
    body = bytearray(
        _HEAD.pack(
            MAGIC, 0, 4096, PARTITIONS, label.id.bytes_le,
            label.size, BOOT2, RESERVED, label.stop, label.size - BACKUP, label.packname.encode(),
        )
    )  # fmt: skip
    for letter in _LETTERS:
        one = label.partitions.get(letter)
        body += _PARTITION.pack(one.offset, one.size, one.type, one.id.bytes_le) if one else bytes(_PARTITION.size)
    struct.pack_into("<I", body, _CHECKSUM_AT, zlib.crc32(body))
    return bytes(body)


def _check(label: Label) -> None:
    if label.size % 512:
        raise BadLabel(f"{label.size} bytes are no number of sectors")
    if len(label.packname.encode()) > 64 or "\0" in label.packname:
        raise BadLabel(f"no name for a label: {label.packname!r}")
    for letter, one in label.partitions.items():
        if letter not in _LETTERS:
            raise BadLabel(f"no partition's letter: {letter!r}")
        if one.size < 1 or one.size % 512 or one.offset % 512:
            raise BadLabel(f"partition {letter} is no number of sectors")
        if one.offset < RESERVED or one.offset + one.size > label.stop:
            raise BadLabel(f"partition {letter} is not between {RESERVED} and {label.stop}")
    ordered = sorted(label.partitions.items(), key=lambda item: item[1].offset)
    for (letter, one), (following, other) in itertools.pairwise(ordered):
        if one.offset + one.size > other.offset:
            raise BadLabel(f"partitions {letter} and {following} overlap")
