"""A disk that a PC boots DragonFly 1.x from: MBR, one slice with a label, a UFS1 root with its boot blocks, swap.

- sector 0: switches on the disk controller's bus mastering (images/dragonfly/busmaster.S), and the table
- sector 1: the release's own MBR, with the same table
- sector 63: the slice: boot1, label, boot2 in its first 8 KB, which are also the root file system's boot area
- behind it partition a, the root, and partition b, swap; the slice ends where a cylinder does
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dfbuild.errors import BuildFailed, UsageError
from dfbuild.image import disklabel, mbr, ufs
from dfbuild.image.ufs import Run

START = 63
"""The slice's first sector: the second track, where fdisk(8) of the time put it."""
_SECTOR = mbr.SECTOR
_MEGABYTE = (1 << 20) // _SECTOR
_DRIVE_CYLINDER = 16 * 63
"""Sectors in what an IDE drive itself calls a cylinder: the ata driver of 1.x sees whole ones only."""


@dataclass(frozen=True, slots=True)
class BootBlocks:
    """The code that stands outside of the file system.

    `first` is what the BIOS runs; `mbr` the release's boot/mbr, which it goes on with; `slice` the release's
    boot/boot1 and boot/boot2 one behind the other.
    """

    first: bytes
    mbr: bytes
    slice: bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """What lies where, in sectors of the whole disk."""

    slice: mbr.Slice
    root: disklabel.Partition
    swap: disklabel.Partition | None

    @classmethod
    def plan(cls, root: int, swap: int = 0, parameters: ufs.Parameters = ufs.NEWFS) -> Layout:
        """A root of `root` MiB and at least `swap` MiB of swap, which gets what is left of the last cylinder."""
        root_sectors = root * _MEGABYTE
        cylinders = -(-(START + root_sectors + swap * _MEGABYTE) // mbr.BIOS.cylinder)
        end = cylinders * mbr.BIOS.cylinder
        left = end - START - root_sectors
        return cls(
            slice=mbr.Slice(START, end - START, active=True),
            root=disklabel.Partition(
                START, root_sectors, disklabel.FFS, parameters.fragment, parameters.block // parameters.fragment
            ),
            swap=disklabel.Partition(START + root_sectors, left, disklabel.SWAP) if swap else None,
        )

    @property
    def root_bytes(self) -> int:
        return self.root.size * _SECTOR

    @property
    def bytes(self) -> int:
        """Of the whole disk."""
        end = self.slice.start + self.slice.size
        return -(-end // _DRIVE_CYLINDER) * _DRIVE_CYLINDER * _SECTOR

    def label(self) -> disklabel.Label:
        partitions = {"a": self.root, disklabel.RAW: disklabel.Partition(self.slice.start, self.slice.size)}
        if self.swap is not None:
            partitions["b"] = self.swap
        return disklabel.Label(partitions, mbr.BIOS.heads, mbr.BIOS.sectors)


def sectors(layout: Layout, blocks: BootBlocks) -> dict[int, bytes]:
    """What is written where beside the file system: sector ▸ bytes.

    Raises `BuildFailed` for boot blocks that do not fit, or that leave no room for the label.
    """
    try:
        label = disklabel.pack(layout.label())
    except disklabel.BadLabel as error:
        raise BuildFailed(f"the disk label: {error}", component="boot") from error
    at = disklabel.SECTOR_NUMBER * _SECTOR
    code = bytearray(blocks.slice)
    if len(code) > disklabel.BOOT_AREA:
        raise BuildFailed(f"boot1 and boot2 have {len(code)} bytes, {disklabel.BOOT_AREA} fit", component="boot")
    if code[_SECTOR - 2 : _SECTOR] != b"\x55\xaa":
        raise BuildFailed("boot1 is no boot sector: 0xAA55 is missing", component="boot")
    if any(code[at : at + len(label)]):
        raise BuildFailed("boot2 leaves no room for the label", component="boot")
    code[at : at + len(label)] = label
    try:
        heads = [mbr.sector(one, [layout.slice]) for one in (blocks.first, blocks.mbr)]
    except mbr.BadTable as error:
        raise BuildFailed(f"the boot sector: {error}", component="boot") from error
    return {0: heads[0], 1: heads[1], layout.slice.start: bytes(code)}


def write(layout: Layout, blocks: BootBlocks, root: Path, target: Path) -> None:
    """Write the disk with the file system in `root` to the sparse raw image `target`."""
    require(root, layout.root_bytes)
    put(target, layout.bytes, {layout.root.offset * _SECTOR: root}, sectors(layout, blocks))


def require(file: Path, size: int) -> None:
    """Raise `BuildFailed` for a file system of another size than planned."""
    if file.stat().st_size != size:
        raise BuildFailed(f"the file system has {file.stat().st_size} bytes, not {size}", component="disk")


def put(target: Path, size: int, files: Mapping[int, Path], sectors: Mapping[int, bytes]) -> None:
    """Write a sparse raw image of `size` bytes: files by the byte that they begin with, the rest by sector."""
    with target.open("xb") as disk:
        disk.truncate(size)
        for at, file in files.items():
            _copy(file, disk.fileno(), at)
        for sector, data in sectors.items():
            disk.seek(sector * _SECTOR)
            disk.write(data)


def digest(file: Path) -> str:
    """SHA-256, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def require_disk(file: Path) -> None:
    """Raise `UsageError` unless a PC could start the raw disk `file`: it begins with a boot sector."""
    with file.open("rb") as opened:
        first = opened.read(_SECTOR)
    try:
        mbr.parse(first)
    except mbr.BadTable as error:
        raise UsageError(f"{file} is no disk: {error}", hint="a compressed one is unpacked first") from error


def convert(raw: Path, target: Path, run: Run) -> None:
    """Make a qcow2 image of a raw one: the same bytes from the same bytes."""
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-m", "1", raw, target], {})


def flatten(overlay: Path, target: Path, run: Run) -> None:
    """Make an image that stands alone of what a guest wrote over another one. It is its owner's: keys are in it."""
    run(["qemu-img", "convert", "-O", "qcow2", "-m", "1", overlay, target], {})
    target.chmod(0o600)


def assemble(source: Path, target: Path, run: Run) -> None:
    """Make a flat binary, loaded at 0x7c00, of 16-bit code in `source`."""
    made = target.with_name(target.name + ".o")
    run(["as", "--32", "-o", made, source], {})
    run(["ld", "-m", "elf_i386", "-e", "start", "-Ttext=0x7c00", "--oformat=binary", "-o", target, made], {})
    made.unlink()


_CHUNK = 1 << 20


def _copy(source: Path, target: int, offset: int) -> None:
    """Copy a file to a place in another one, holes and zeros as holes."""
    nothing = bytes(_CHUNK)
    with source.open("rb") as file:
        at = offset
        while chunk := file.read(_CHUNK):
            if chunk != nothing[: len(chunk)]:
                os.pwrite(target, chunk, at)
            at += len(chunk)
