"""A file system that UEFI firmware starts a program from, written without root, and alike from alike input: FAT.

mtools write it: an EFI system partition of a disk with the parameters that DragonFly's installer gives to
newfs_msdos(8) (usr.sbin/installer/dfuibe_installer/fn_disk.c), and what a CD has in place of one.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from dfbuild.image import mbr
from dfbuild.image.ufs import Run

SIZE = 128 << 20
"""Bytes."""
PROGRAM = "EFI/BOOT/BOOTX64.EFI"
"""What firmware of an x86_64 machine starts of a disk that it knows nothing of (UEFI 2.8, 3.5.1.1)."""

_CLUSTER = 2
"""Sectors."""
_TRACK = 32
"""Sectors of which there is a whole number on a CD's: 16 KB."""
_NO_TABLE = {446: bytes(64)}
"""mformat leaves a partition table in the boot sector, with the whole file system as a partition. The firmware then
starts the loader from that, which knows its CD by El Torito's own (sys/boot/efi/libefi/efipart.c)."""
_ROOM = 4
"""Tracks, for boot sector, tables and directories."""
_SOUND = {
    3 * mbr.SECTOR - 2: mbr.SIGNATURE,  # the third boot sector's, which mformat leaves out
    mbr.SECTOR + 492: b"\xff" * 4,  # FSI_Nxt_Free: no hint where to look; mcopy's is the last one that it took
}
"""Place ▸ what fsck_msdosfs(8) asks for (sbin/fsck_msdosfs/boot.c, fat.c)."""


def make(program: Path, target: Path, *, start: int, epoch: int, run: Run) -> None:
    """Write the file system to the sparse file `target`, as it lies from sector `start` of a disk on: FAT32.

    All in it is dated `epoch`, seconds since 1970; its serial number follows from the program.
    """
    format: list[str | int] = ["-F", "-c", _CLUSTER, "-h", mbr.BIOS.heads, "-s", mbr.BIOS.sectors, "-H", start]
    _write(program, target, SIZE // mbr.SECTOR, format, epoch, run)
    _put(target, _SOUND)


def make_small(program: Path, target: Path, *, epoch: int, run: Run) -> None:
    """The same as large as it has to be, for a CD: what El Torito calls an image. All as for `make`, but FAT12."""
    tracks = -(-program.stat().st_size // (_TRACK * mbr.SECTOR)) + _ROOM
    _write(program, target, tracks * _TRACK, ["-h", 1, "-s", _TRACK], epoch, run)
    _put(target, _NO_TABLE)


def _put(target: Path, pieces: Mapping[int, bytes]) -> None:
    with target.open("r+b") as file:
        for place, content in pieces.items():
            file.seek(place)
            file.write(content)


def _write(program: Path, target: Path, sectors: int, format: Sequence[str | int], epoch: int, run: Run) -> None:
    with target.open("xb") as file:
        os.posix_fallocate(file.fileno(), 0, sectors * mbr.SECTOR)  # mcopy(1) says nothing of a full disk
    serial = zlib.crc32(program.read_bytes())
    environment = {"SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC", "MTOOLSRC": "/dev/null"}
    whole = [*format, "-T", sectors, "-v", "EFI", "-N", f"{serial:08x}"]
    run(["mformat", "-i", target, *map(str, whole), "::"], environment)
    *above, _ = PROGRAM.split("/")
    run(["mmd", "-i", target, *("::/" + "/".join(above[: n + 1]) for n in range(len(above)))], environment)
    run(["mcopy", "-i", target, program, f"::/{PROGRAM}"], environment)
