"""A UFS1 file system from a directory and a manifest: no mount, no root, and the same bytes from the same input.

makefs(8) writes it. What a 1.x kernel asks of one: `version=1` inodes, the magic number 0x011954 in a superblock at
byte 8192, blocks of at most 64 KB and of at least a superblock's size (sys/vfs/ufs/ffs_vfsops.c); the boot area of
8192 bytes before it is left to boot1 and boot2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dfbuild.errors import BuildFailed

Run = Callable[[Sequence[str | Path], Mapping[str, str]], str]
"""Runs a command with more environment and returns what it printed; raises where it fails."""

MAGIC = 0x011954
SUPERBLOCK = 8192
_SIZE = 1376
"""Bytes of a superblock, up to and with its magic number."""
_MAGIC_AT = 1372
# Pointers that the kernel keeps in its copy of the superblock (`fs_ocsp` to `fs_maxcluster`): on disk they mean
# nothing, and makefs leaves its own there, which differ from run to run.
_POINTERS = slice(728, 856)

# Of a cylinder group: its magic number and where it stands; then `cg_ncyl`, `cg_cs.cs_nbfree`, and where the free
# blocks are counted by cylinder, by rotational position, and where the next map begins.
_GROUP_MAGIC, _GROUP_MAGIC_AT = 0x090255, 4
_CYLINDERS_AT, _FREE_AT, _COUNTS_AT = 16, 28, 84


@dataclass(frozen=True, slots=True)
class Parameters:
    """How a file system is laid out. Sizes in bytes: newfs(8) of 1.x takes the same where nothing is said."""

    block: int = 16384
    fragment: int = 2048
    density: int = 8192
    """Bytes for each inode."""
    free: int = 8
    """Per cent kept free."""


NEWFS = Parameters()


@dataclass(frozen=True, slots=True)
class Superblock:
    """What describes a file system: sizes in bytes or, of groups, in fragments."""

    block: int
    fragment: int
    fragments: int
    groups: int
    group_fragments: int
    group_inodes: int
    superblock_at: int
    """Fragments from a group's beginning to its copy of the superblock; the fields after it likewise."""
    group_at: int
    inodes_at: int
    offset: int
    """With `mask`, how far groups are shifted against each other."""
    mask: int
    clean: bool
    inode_format: int
    symlink_length: int

    def group(self, number: int) -> int:
        """The fragment that group `number` begins with (`cgstart`)."""
        return number * self.group_fragments + self.offset * (number & ~self.mask)


def parse(data: bytes) -> Superblock:
    """The superblock at the beginning of `data`; raises ValueError if there is none of UFS1."""
    if len(data) < _SIZE or struct.unpack_from("<I", data, _MAGIC_AT)[0] != MAGIC:
        raise ValueError("no UFS1 superblock")

    def number(at: int) -> int:
        return int(struct.unpack_from("<i", data, at)[0])

    return Superblock(
        block=number(48), fragment=number(52), fragments=number(36), groups=number(44),
        group_fragments=number(188), group_inodes=number(184),
        superblock_at=number(8), group_at=number(12), inodes_at=number(16),
        offset=number(24), mask=number(28),
        clean=data[209] == 1, inode_format=number(1324), symlink_length=number(1320),
    )  # fmt: skip


def make(
    tree: Path,
    manifest: str,
    target: Path,
    *,
    size: int,
    epoch: int,
    run: Run,
    parameters: Parameters = NEWFS,
) -> Superblock:
    """Write the file system of `size` bytes with what `manifest` names of `tree` to the sparse file `target`.

    `size` has to be a multiple of the block size. Raises `BuildFailed` if it does not hold everything.
    """
    if size % parameters.block:
        raise BuildFailed(f"{size} bytes are not a number of blocks", component="file system")
    spec = target.with_name(target.name + ".mtree")
    spec.write_text(manifest, encoding="ascii")
    options = {
        "version": 1, "bsize": parameters.block, "fsize": parameters.fragment, "density": parameters.density,
        "minfree": parameters.free, "optimization": "time",
    }  # fmt: skip
    run(
        [
            "makefs", "-t", "ffs", "-B", "le", "-s", str(size), "-T", str(epoch), "-x", "-F", spec,
            "-o", ",".join(f"{key}={value}" for key, value in options.items()), target, tree,
        ],
        {},
    )  # fmt: skip
    spec.unlink()
    found = scrub(target)
    _count(target, found)
    return found


def scrub(file: Path) -> Superblock:
    """Zero what differs from run to run in all copies of the superblock."""
    with file.open("r+b") as image:
        image.seek(SUPERBLOCK)
        try:
            found = parse(image.read(_SIZE))
        except ValueError as error:
            raise BuildFailed(f"makefs wrote {error}", component="file system") from error
        copies = [(found.group(n) + found.superblock_at) * found.fragment for n in range(found.groups)]
        for at in (SUPERBLOCK, *copies):
            image.seek(at + _MAGIC_AT)
            if image.read(4) != struct.pack("<I", MAGIC):
                raise BuildFailed(f"no copy of the superblock at byte {at}", component="file system")
            image.seek(at + _POINTERS.start)
            image.write(bytes(_POINTERS.stop - _POINTERS.start))
    return found


def _count(file: Path, block: Superblock) -> None:
    """Count free blocks by cylinder and rotational position, as fsck(8) of 1.x does (sbin/fsck/pass5.c).

    makefs makes every group one cylinder with one position, and leaves both counts at 0.
    """
    with file.open("r+b") as image:
        for number in range(block.groups):
            at = (block.group(number) + block.group_at) * block.fragment
            image.seek(at)
            group = image.read(128)
            totals, positions, end = struct.unpack_from("<III", group, _COUNTS_AT)
            (magic,) = struct.unpack_from("<I", group, _GROUP_MAGIC_AT)
            if (magic, positions - totals, end - positions) != (_GROUP_MAGIC, 4, 2):
                raise BuildFailed(f"cylinder group {number} is not as makefs wrote it", component="file system")
            (free,) = struct.unpack_from("<I", group, _FREE_AT)
            image.seek(at + totals)
            image.write(struct.pack("<IH", free, free & 0xFFFF))
            if number == block.groups - 1:
                # What is left over of the last whole group of cylinders, which is nothing.
                image.seek(at + _CYLINDERS_AT)
                image.write(bytes(2))
