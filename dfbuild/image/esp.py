"""An EFI system partition: a FAT32 file system with one program, written without root, and alike from alike input.

mtools write it, with the parameters that DragonFly's installer gives to newfs_msdos(8)
(usr.sbin/installer/dfuibe_installer/fn_disk.c).
"""

from __future__ import annotations

import zlib
from pathlib import Path

from dfbuild.image import mbr
from dfbuild.image.ufs import Run

SIZE = 128 << 20
"""Bytes."""
PROGRAM = "EFI/BOOT/BOOTX64.EFI"
"""What firmware of an x86_64 machine starts of a disk that it knows nothing of (UEFI 2.8, 3.5.1.1)."""

_CLUSTER = 2
"""Sectors."""
_THIRD = 3 * mbr.SECTOR - 2
"""Where the third boot sector has its signature, which mformat leaves out and fsck_msdosfs(8) asks for."""


def make(program: Path, target: Path, *, start: int, epoch: int, run: Run) -> None:
    """Write the file system to the sparse file `target`, as it lies from sector `start` of a disk on.

    All in it is dated `epoch`, seconds since 1970; its serial number follows from the program.
    """
    with target.open("xb") as file:
        file.truncate(SIZE)
    sectors = SIZE // mbr.SECTOR
    serial = zlib.crc32(program.read_bytes())
    environment = {"SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC", "MTOOLSRC": "/dev/null"}
    format = [
        "-F", "-c", _CLUSTER, "-T", sectors, "-h", mbr.BIOS.heads, "-s", mbr.BIOS.sectors, "-H", start,
        "-v", "EFI", "-N", f"{serial:08x}",
    ]  # fmt: skip
    run(["mformat", "-i", target, *map(str, format), "::"], environment)
    with target.open("r+b") as file:
        file.seek(_THIRD)
        file.write(mbr.SIGNATURE)
    *above, _ = PROGRAM.split("/")
    run(["mmd", "-i", target, *("::/" + "/".join(above[: n + 1]) for n in range(len(above)))], environment)
    run(["mcopy", "-i", target, program, f"::/{PROGRAM}"], environment)
