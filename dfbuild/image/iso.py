"""An ISO 9660 file system with Rock Ridge that a PC boots: no mount, no root, the same bytes from the same input.

xorriso(1) writes it, told by a file of its own commands what the image's owners and modes are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dfbuild import process
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed, UsageError
from dfbuild.image.manifest import Entry, Kind
from dfbuild.image.ufs import Run
from dfbuild.sandbox import Sandbox

CATALOG = "boot/catalog"
"""Where the catalog of boot programs is seen in the file system."""
_LABEL = re.compile(r"[A-Z0-9_]{1,32}")
"""d-characters (ECMA-119, 7.4.1)."""
_MARK, _MARK_AT = b"CD001", 16 * 2048 + 1
"""What every volume descriptor has, and where the first one has it (ECMA-119, 6.2.1 and 8.1.2)."""


@dataclass(frozen=True, slots=True)
class Volume:
    """`label` is the volume's identifier; `boot` the program that a BIOS starts as it is, without emulating a disk
    (El Torito); `efi` the FAT file system that UEFI firmware starts one from; none if empty; `epoch` the date of
    everything, seconds since 1970."""

    label: str
    boot: str = ""
    efi: str = ""
    epoch: int = 1


def require_cd(file: Path) -> None:
    """Raise `UsageError` unless `file` has an ISO 9660 file system."""
    with file.open("rb") as opened:
        opened.seek(_MARK_AT)
        if opened.read(len(_MARK)) != _MARK:
            raise UsageError(
                f"{file} is no CD: it has no ISO 9660 file system",
                hint="a compressed one is unpacked first",
            )


def commands(volume: Volume, tree: Path, target: Path, entries: Mapping[str, Entry]) -> str:
    """What xorriso reads: `tree` becomes the root of `target`, with owners and modes as in `entries`. Pure.

    Directories and links that are in `entries` only are made. Raises `BuildFailed` for a label that is none, for
    names that its command language cannot express, and for device nodes, which the file system of a system with
    devfs(5) has not.
    """
    return "".join(f"{line}\n" for line in _commands(volume, tree, target, entries))


def _commands(volume: Volume, tree: Path, target: Path, entries: Mapping[str, Entry]) -> Iterator[str]:
    if not _LABEL.fullmatch(volume.label):
        raise BuildFailed(f"{volume.label!r} cannot be a volume's label", component="ISO")
    # Else names with brackets would be patterns.
    yield "-iso_rr_pattern off"
    yield f"-outdev {_quoted(str(target))}"
    yield f"-volid {volume.label}"
    yield f"-volume_date all_file_dates ={volume.epoch}"
    yield "-rockridge on"
    yield "-joliet off"
    yield f"-map {_quoted(str(tree))} /"
    yield "-chown_r 0 / --"
    yield "-chgrp_r 0 / --"
    for name, entry in sorted(entries.items()):
        path = _quoted("/" if name == "." else f"/{name}")
        if entry.kind in (Kind.CHARACTER, Kind.BLOCK):
            raise BuildFailed(f"{name} is a device node", component="ISO")
        here = tree / name
        if not here.is_symlink() and not here.exists():
            made = entry.kind is Kind.LINK
            yield f"-lns {_quoted(entry.link)} {path}" if made else f"-mkdir {path} --"
        if entry.kind is not Kind.LINK:
            yield f"-chmod 0{entry.mode:o} {path} --"
        if entry.uid:
            yield f"-chown {entry.uid} {path} --"
        if entry.gid:
            yield f"-chgrp {entry.gid} {path} --"
    if volume.boot:
        yield f"-boot_image any cat_path={_quoted(f'/{CATALOG}')}"
        yield f"-boot_image any bin_path={_quoted(f'/{volume.boot}')}"
        yield "-boot_image any emul_type=no_emulation"
        yield "-boot_image any load_size=full"
    if volume.boot and volume.efi:
        yield "-boot_image any next"
    if volume.efi:
        yield f"-boot_image any cat_path={_quoted(f'/{CATALOG}')}"
        yield f"-boot_image any efi_path={_quoted(f'/{volume.efi}')}"
    yield "-commit"
    yield "-end"


def _quoted(text: str) -> str:
    for mark in "'\"":
        if mark not in text and "\n" not in text:
            return f"{mark}{text}{mark}"
    raise BuildFailed(f"xorriso has no words for {text!r}", component="ISO")


def make(volume: Volume, tree: Path, target: Path, entries: Mapping[str, Entry], run: Run) -> None:
    """Write the file system to `target`. Raises as `commands` does, and `BuildFailed` if xorriso fails."""
    script = target.with_name(f"{target.name}.commands")
    script.write_text(commands(volume, tree, target, entries), encoding="utf-8", errors="surrogateescape")
    environment = {"SOURCE_DATE_EPOCH": str(volume.epoch)}
    run(["xorriso", "-no_rc", "-report_about", "FAILURE", "-options_from_file", script], environment)
    script.unlink()
    if not target.is_file():
        raise BuildFailed(f"xorriso wrote no {target.name}", component="ISO")


def extract(medium: Path, name: str, target: Path, deadline: Deadline) -> bool:
    """Copy the file `name` of the ISO `medium` to `target`, whose directory is there; returns whether it has one.

    What is no ISO has none. Raises `MissingTool`, and as `deadline` does.
    """
    argv = ["xorriso", "-no_rc", "-osirrox", "on", "-indev", f"stdio:{medium}", "-extract", f"/{name}", str(target)]
    sandbox = Sandbox(writable=(target.parent,), readable=(medium,))
    process.run(sandbox.argv(argv), deadline)
    return target.is_file() and not target.is_symlink()
