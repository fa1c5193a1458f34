"""A disk that a PC's BIOS boots DragonFly 2 and later from: MBR, one slice with a 64-bit label.

- sector 0: switches on the disk controller's bus mastering (images/dragonfly/busmaster.S), and the table
- sector 1: the release's own MBR, with the same table
- sector 2048: the slice: boot1_64, the label behind it, boot2_64 at byte 4096, the partitions from 1 MB on
- the slice ends where a cylinder does

It is as disklabel64(8) writes it (sbin/disklabel64 of DragonFly 5.9).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dfbuild.errors import BuildFailed
from dfbuild.image import disk, disklabel64, mbr
from dfbuild.image.slice64 import MEGABYTE, Slice

_SECTOR = mbr.SECTOR


@dataclass(frozen=True, slots=True)
class BootBlocks:
    """The code that stands outside of the file system: what the BIOS runs first, and of the release's /boot."""

    first: bytes
    mbr: bytes
    boot1: bytes
    boot2: bytes


def plan(ufs: int, swap: int, hammer2: int = 0) -> Slice:
    """The slice for partitions of so many MiB."""
    return Slice.plan(MEGABYTE // _SECTOR, ufs, swap, hammer2, mbr.BIOS.cylinder)


def sectors(layout: Slice, blocks: BootBlocks, content: str) -> dict[int, bytes]:
    """What is written where beside the file system: sector ▸ bytes. All GUIDs follow from `content`.

    Raises `BuildFailed` for boot blocks that do not fit, and for partitions that no label or table can name.
    """
    if len(blocks.boot1) != _SECTOR or not blocks.boot1.endswith(b"\x55\xaa"):
        raise BuildFailed("boot1_64 is no boot sector", component="boot")
    if len(blocks.boot2) > disklabel64.BOOT2_SIZE:
        raise BuildFailed(f"boot2_64 has {len(blocks.boot2)} bytes, {disklabel64.BOOT2_SIZE} fit", component="boot")
    whole = mbr.Slice(layout.start, layout.sectors, active=True)
    try:
        heads = [mbr.sector(one, [whole]) for one in (blocks.first, blocks.mbr)]
        label = layout.label(content)
    except (mbr.BadTable, disklabel64.BadLabel) as error:
        raise BuildFailed(f"the disk's tables: {error}", component="boot") from error
    return {
        0: heads[0],
        1: heads[1],
        layout.start: blocks.boot1,
        layout.start + disklabel64.AT // _SECTOR: label,
        layout.start + disklabel64.BOOT2 // _SECTOR: blocks.boot2,
    }


def write(layout: Slice, blocks: BootBlocks, ufs: Path, target: Path) -> None:
    """Write the disk with the file system in `ufs` to the sparse raw image `target`."""
    disk.require(ufs, layout.ufs_bytes)
    pieces = sectors(layout, blocks, disk.digest(ufs))
    disk.put(target, layout.end * _SECTOR, {layout.ufs_at: ufs}, pieces)
