"""A slice with a 64-bit label: partition a is a root file system, partition b swap."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from dfbuild.image import disklabel64, mbr
from dfbuild.image.disklabel64 import FFS, SWAP, Partition

MEGABYTE = 1 << 20
_SECTOR = mbr.SECTOR


def identity(content: str, what: str) -> uuid.UUID:
    """A GUID for one thing on a disk: the same for the same `content`, else distinct."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{content} {what}")


@dataclass(frozen=True, slots=True)
class Slice:
    """It begins with sector `start` of the disk, at a multiple of a megabyte, and has `sectors`.

    `root` and `swap` are in MiB, `swap` 0 for none.
    """

    start: int
    sectors: int
    root: int
    swap: int

    @classmethod
    def plan(cls, start: int, root: int, swap: int, unit: int = 1) -> Slice:
        """The smallest that ends at a multiple of `unit` sectors, counted from the disk's beginning."""
        # Before the partitions lie label and boot2, behind them is room for the label's copy.
        needed = disklabel64.RESERVED + (root + swap + 1) * MEGABYTE
        end = -(-(start + needed // _SECTOR) // unit) * unit
        return cls(start, end - start, root, swap)

    @property
    def end(self) -> int:
        """The sector behind it."""
        return self.start + self.sectors

    @property
    def root_bytes(self) -> int:
        return self.root * MEGABYTE

    @property
    def root_at(self) -> int:
        """The byte of the disk that the root begins with."""
        return self.start * _SECTOR + disklabel64.RESERVED

    def label(self, content: str) -> bytes:
        """The label, for the slice's second sector. Its GUIDs follow from `content`."""
        at = disklabel64.RESERVED
        partitions = {"a": Partition(at, self.root_bytes, FFS, identity(content, "root"))}
        if self.swap:
            swap = Partition(at + self.root_bytes, self.swap * MEGABYTE, SWAP, identity(content, "swap"))
            partitions["b"] = swap
        return disklabel64.pack(disklabel64.Label(self.sectors * _SECTOR, identity(content, "label"), partitions))
