"""A disk that UEFI firmware boots DragonFly from: GPT, an EFI system partition, a slice with a 64-bit label.

The firmware starts boot1.efi of the first partition, and that the loader in the UFS1 of the second
(sys/boot/efi/boot1/ufs_module.c of DragonFly 5.9). To the kernel the two are s0 and s1 (`gptinit`,
sys/kern/subr_diskgpt.c).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from dfbuild.errors import BuildFailed
from dfbuild.image import disk, disklabel64, esp, gpt, mbr
from dfbuild.image.slice64 import MEGABYTE, Slice, identity

LABEL64 = uuid.UUID("3d48ce54-1d16-11dc-8696-01301bb8a9f5")
"""Type of partitions that hold a 64-bit label (sys/sys/gpt.h)."""
_SECTOR = mbr.SECTOR


@dataclass(frozen=True, slots=True)
class Layout:
    """What lies where: sectors of the whole disk."""

    esp: int
    """The first of the EFI system partition."""
    slice: Slice

    @classmethod
    def plan(cls, ufs: int, swap: int, hammer2: int = 0) -> Layout:
        """Partitions of so many MiB."""
        start = MEGABYTE // _SECTOR
        return cls(start, Slice.plan(start + esp.SIZE // _SECTOR, ufs, swap, hammer2))

    @property
    def sectors(self) -> int:
        """With room for the table's copy."""
        return self.slice.end + MEGABYTE // _SECTOR

    def pieces(self, content: str) -> dict[int, bytes]:
        """What is written where beside the file systems: sector ▸ bytes. All GUIDs follow from `content`.

        Raises `BuildFailed` for partitions that no label or table can name.
        """
        one = self.slice
        entries = [
            gpt.Entry(self.esp, esp.SIZE // _SECTOR, gpt.EFI_SYSTEM, identity(content, "esp"), "EFI"),
            gpt.Entry(one.start, one.sectors, LABEL64, identity(content, "slice"), "DragonFly"),
        ]
        try:
            table, label = gpt.sectors(identity(content, "disk"), self.sectors, entries), one.label(content)
        except (gpt.BadTable, disklabel64.BadLabel) as error:
            raise BuildFailed(f"the disk's tables: {error}", component="boot") from error
        return {**table, one.start + disklabel64.AT // _SECTOR: label}


def write(layout: Layout, system: Path, ufs: Path, target: Path) -> None:
    """Write the disk with the EFI system partition `system` and the file system `ufs` to the sparse file `target`.

    Both have to be of the size that is planned.
    """
    disk.require(system, esp.SIZE)
    disk.require(ufs, layout.slice.ufs_bytes)
    content = f"{disk.digest(system)} {disk.digest(ufs)}"
    files = {layout.esp * _SECTOR: system, layout.slice.ufs_at: ufs}
    disk.put(target, layout.sectors * _SECTOR, files, layout.pieces(content))
