"""A disk that UEFI firmware boots DragonFly from: GPT, an EFI system partition, a slice with a 64-bit label.

In the slice partition a is a UFS1 root, partition b swap. The firmware starts boot1.efi of the first partition, and
that the loader in the root of the second (sys/boot/efi/boot1/ufs_module.c of DragonFly 5.9). To the kernel they are
s0 and s1 (`gptinit`, sys/kern/subr_diskgpt.c).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from dfbuild.errors import BuildFailed
from dfbuild.image import disk, disklabel64, esp, gpt, mbr
from dfbuild.image.disklabel64 import FFS, SWAP, Partition

LABEL64 = uuid.UUID("3d48ce54-1d16-11dc-8696-01301bb8a9f5")
"""Type of partitions that hold a 64-bit label (sys/sys/gpt.h)."""
_MEGABYTE = 1 << 20
_SECTOR = mbr.SECTOR
_START = _MEGABYTE // _SECTOR
"""The first partition's: at the first multiple of a megabyte."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What lies where. `root` and `swap` are in MiB, `swap` 0 for none."""

    root: int
    swap: int = 0

    @property
    def esp(self) -> int:
        """The first sector of the EFI system partition."""
        return _START

    @property
    def slice(self) -> int:
        """The first sector of the slice."""
        return self.esp + esp.SIZE // _SECTOR

    @property
    def slice_bytes(self) -> int:
        """With room for the label before, and for its copy behind."""
        return (self.root + self.swap + 1) * _MEGABYTE + disklabel64.RESERVED

    @property
    def root_bytes(self) -> int:
        return self.root * _MEGABYTE

    @property
    def root_at(self) -> int:
        """The byte of the disk that the root file system begins with."""
        return self.slice * _SECTOR + disklabel64.RESERVED

    @property
    def size(self) -> int:
        """Bytes of the whole disk."""
        return self.slice * _SECTOR + self.slice_bytes + _MEGABYTE

    def sectors(self, content: str) -> dict[int, bytes]:
        """What is written where beside the file systems: sector ▸ bytes. All GUIDs follow from `content`."""

        def id(what: str) -> uuid.UUID:
            return uuid.uuid5(uuid.NAMESPACE_OID, f"{content} {what}")

        at = disklabel64.RESERVED
        partitions = {"a": Partition(at, self.root_bytes, FFS, id("root"))}
        if self.swap:
            partitions["b"] = Partition(at + self.root_bytes, self.swap * _MEGABYTE, SWAP, id("swap"))
        label = disklabel64.Label(self.slice_bytes, id("label"), partitions)
        entries = [
            gpt.Entry(self.esp, esp.SIZE // _SECTOR, gpt.EFI_SYSTEM, id("esp"), "EFI"),
            gpt.Entry(self.slice, self.slice_bytes // _SECTOR, LABEL64, id("slice"), "DragonFly"),
        ]
        table = gpt.sectors(id("disk"), self.size // _SECTOR, entries)
        return {**table, self.slice + disklabel64.AT // _SECTOR: disklabel64.pack(label)}


def write(layout: Layout, system: Path, root: Path, target: Path) -> None:
    """Write the disk with the EFI system partition `system` and the file system `root` to the sparse file `target`.

    Both have to be of the size that is planned.
    """
    for file, size in ((system, esp.SIZE), (root, layout.root_bytes)):
        if file.stat().st_size != size:
            raise BuildFailed(f"the file system has {file.stat().st_size} bytes, not {size}", component="disk")
    files = {layout.esp * _SECTOR: system, layout.root_at: root}
    content = " ".join(disk.digest(file) for file in files.values())
    disk.put(target, layout.size, files, layout.sectors(content))
