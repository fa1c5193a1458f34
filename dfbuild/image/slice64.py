"""A slice with a 64-bit label.

Partition a is a UFS, which boot programs read: the root, or `/boot` where the root is in partition d, HAMMER2, as
the tree's own installer lays a disk out (usr.sbin/installer). Partition b is swap.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from dfbuild.image import disklabel64, mbr
from dfbuild.image.disklabel64 import FFS, HAMMER2, SWAP, Partition

MEGABYTE = 1 << 20
_SECTOR = mbr.SECTOR


def identity(content: str, what: str) -> uuid.UUID:
    """A GUID for one thing on a disk: the same for the same `content`, else distinct."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{content} {what}")


@dataclass(frozen=True, slots=True)
class Slice:
    """It begins with sector `start` of the disk, at a multiple of a megabyte, and has `sectors`.

    `ufs`, `swap` and `hammer2` are in MiB, the latter two 0 for none.
    """

    start: int
    sectors: int
    ufs: int
    swap: int
    hammer2: int = 0

    @classmethod
    def plan(cls, start: int, ufs: int, swap: int, hammer2: int = 0, unit: int = 1) -> Slice:
        """The smallest that ends at a multiple of `unit` sectors, counted from the disk's beginning."""
        # Before the partitions lie label and boot2, behind them is room for the label's copy.
        needed = disklabel64.RESERVED + (ufs + swap + hammer2 + 1) * MEGABYTE
        end = -(-(start + needed // _SECTOR) // unit) * unit
        return cls(start, end - start, ufs, swap, hammer2)

    @property
    def end(self) -> int:
        """The sector behind it."""
        return self.start + self.sectors

    @property
    def ufs_bytes(self) -> int:
        return self.ufs * MEGABYTE

    @property
    def ufs_at(self) -> int:
        """The byte of the disk that partition a begins with."""
        return self.start * _SECTOR + disklabel64.RESERVED

    @property
    def numbers(self) -> list[int]:
        """All that there is to know of it."""
        return [self.start, self.sectors, self.ufs, self.swap, *([self.hammer2] if self.hammer2 else [])]

    def label(self, content: str) -> bytes:
        """The label, for the slice's second sector. Its GUIDs follow from `content`."""
        at = disklabel64.RESERVED
        partitions = {}
        # What is called root here is partition a: with another word all GUIDs that were ever written would change.
        for letter, size, type, what in (
            ("a", self.ufs, FFS, "root"), ("b", self.swap, SWAP, "swap"), ("d", self.hammer2, HAMMER2, "hammer2"),
        ):  # fmt: skip
            if size:
                partitions[letter] = Partition(at, size * MEGABYTE, type, identity(content, what))
            at += size * MEGABYTE
        return disklabel64.pack(disklabel64.Label(self.sectors * _SECTOR, identity(content, "label"), partitions))
