"""The disks that firmware starts DragonFly from, out of a UFS and the boot programs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

from dfbuild.build.dragonfly.data import Hammer2, Image
from dfbuild.errors import BuildFailed
from dfbuild.image import disk, disk64, efidisk, esp
from dfbuild.image.templates import images
from dfbuild.image.ufs import Run

_FIRST = images("dragonfly") / "busmaster.S"


class Disk(Protocol):
    """A disk with a UFS of so many bytes. `readable` is what its programs read beside the step's own files."""

    @property
    def ufs_bytes(self) -> int: ...

    @property
    def readable(self) -> tuple[Path, ...]: ...

    def inputs(self) -> dict[str, Any]:
        """What the content key of an image has to hold of it."""
        ...

    def write(self, tree: Path, ufs: Path, target: Path, epoch: int, run: Run) -> None:
        """Write the raw disk `target`: `tree` has the boot programs, `ufs` is the file system of `ufs_bytes`.

        What it needs meanwhile lies beside `target`. Raises `BuildFailed`.
        """
        ...


def plan(sizes: Image, firmware: str, root: int | None = None) -> Disk:
    """The disk for `firmware`, a root of `root` MiB on it, or of what `sizes` says."""
    kind = Efi if firmware == "uefi" else Bios64 if sizes.label == 64 else Bios
    return kind(root or sizes.root, sizes.swap)


def unfilled(sizes: Image, firmware: str, filled: Hammer2, root: int | None = None) -> Disk:
    """The disk for `firmware` whose UFS is `/boot`, with a place for a HAMMER2 root that nothing is in yet: of so
    many MiB as `root` says, else the release."""
    kind = Efi if firmware == "uefi" else Bios64
    return kind(filled.boot, sizes.swap, root or filled.root)


class Bios:
    """A PC's, with a 32-bit label: see `image.disk`."""

    readable = (_FIRST.parent,)

    def __init__(self, root: int, swap: int) -> None:
        self._layout = disk.Layout.plan(root, swap)

    @property
    def ufs_bytes(self) -> int:
        return self._layout.root_bytes

    def inputs(self) -> dict[str, Any]:
        one = self._layout
        return {
            "layout": [one.slice.start, one.slice.size, one.root.size, one.swap.size if one.swap else 0],
            "first": hashlib.sha256(_FIRST.read_bytes()).hexdigest(),
        }

    def write(self, tree: Path, ufs: Path, target: Path, epoch: int, run: Run) -> None:
        blocks = disk.BootBlocks(
            first=_first(target, run),
            mbr=read(tree, "boot/mbr"),
            slice=read(tree, "boot/boot1") + read(tree, "boot/boot2"),
        )
        disk.write(self._layout, blocks, ufs, target)


class Bios64:
    """A PC's, with a 64-bit label: see `image.disk64`."""

    readable = (_FIRST.parent,)

    def __init__(self, ufs: int, swap: int, hammer2: int = 0) -> None:
        self._layout = disk64.plan(ufs, swap, hammer2)

    @property
    def ufs_bytes(self) -> int:
        return self._layout.ufs_bytes

    def inputs(self) -> dict[str, Any]:
        return {
            "label64": self._layout.numbers,
            "first": hashlib.sha256(_FIRST.read_bytes()).hexdigest(),
        }

    def write(self, tree: Path, ufs: Path, target: Path, epoch: int, run: Run) -> None:
        blocks = disk64.BootBlocks(
            first=_first(target, run),
            mbr=read(tree, "boot/mbr"),
            boot1=read(tree, "boot/boot1_64"),
            boot2=read(tree, "boot/boot2_64"),
        )
        disk64.write(self._layout, blocks, ufs, target)


class Efi:
    """For UEFI firmware: see `image.efidisk`."""

    readable: tuple[Path, ...] = ()

    def __init__(self, ufs: int, swap: int, hammer2: int = 0) -> None:
        self._layout = efidisk.Layout.plan(ufs, swap, hammer2)

    @property
    def ufs_bytes(self) -> int:
        return self._layout.slice.ufs_bytes

    def inputs(self) -> dict[str, Any]:
        return {"gpt": [self._layout.esp, self._layout.slice.numbers], "system": 2}

    def write(self, tree: Path, ufs: Path, target: Path, epoch: int, run: Run) -> None:
        system = target.with_name("system")
        esp.make(find(tree, "boot/boot1.efi"), system, start=self._layout.esp, epoch=epoch, run=run)
        efidisk.write(self._layout, system, ufs, target)
        system.unlink()


def _first(target: Path, run: Run) -> bytes:
    """The code of sector 0, assembled beside `target`."""
    first = target.with_name("first")
    disk.assemble(_FIRST, first, run)
    code = first.read_bytes()
    first.unlink()
    return code


def find(tree: Path, name: str) -> Path:
    """A file of the image. Raises `BuildFailed` where it is missing."""
    if not (tree / name).is_file():
        raise BuildFailed(f"no part of the image has /{name}", component="image")
    return tree / name


def read(tree: Path, name: str) -> bytes:
    """Its content; raises as `find` does."""
    return find(tree, name).read_bytes()
