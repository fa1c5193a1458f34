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
_SOUND = {
    3 * mbr.SECTOR - 2: mbr.SIGNATURE,  # the third boot sector's, which mformat leaves out
    mbr.SECTOR + 492: b"\xff" * 4,  # FSI_Nxt_Free: no hint where to look; mcopy's is the last one that it took
}
"""Place ▸ what fsck_msdosfs(8) asks for (sbin/fsck_msdosfs/boot.c, fat.c)."""


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
    *above, _ = PROGRAM.split("/")
    run(["mmd", "-i", target, *("::/" + "/".join(above[: n + 1]) for n in range(len(above)))], environment)
    run(["mcopy", "-i", target, program, f"::/{PROGRAM}"], environment)
    with target.open("r+b") as file:
        for place, content in _SOUND.items():
            file.seek(place)
            file.write(content)
