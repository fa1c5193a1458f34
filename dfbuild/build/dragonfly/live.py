"""A bootable CD with the live system, as the tree's own nrelease makes it, and with a serial console.

What lies on the medium, each over what is named before it: world and kernel (`parts`), the configuration of a
system on a disk once more where the data says it is kept (`etc.hdd`), the loaders, the tree's skeleton of a live
system, and the files of `images/dragonfly/live`. Owners and modes are as those of a disk. UEFI firmware starts the
loader, which reads the CD by itself: no boot1.efi comes before it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfbuild.build import step
from dfbuild.build.dragonfly import data, disks, part, within
from dfbuild.build.recipe import LIVE, Kitchen, Recipe
from dfbuild.errors import BuildFailed
from dfbuild.image import disk, dragonfly, esp, iso, manifest
from dfbuild.model import StepKind
from dfbuild.releases import Release
from dfbuild.source import Tree
from dfbuild.workspace import remove

EFI = "boot/efiboot.img"
"""What UEFI firmware finds the loader in, as nrelease calls it."""
_LOADER = "boot/loader.efi"


def skeleton(release: Release, tree: Tree) -> Recipe:
    """A part of an image: what the tree has to lie over a world to make it a live system."""
    own = data.iso(release)

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        target = kitchen.directory / part.ROOT
        ignore = shutil.ignore_patterns(*own.without)
        shutil.copytree(tree.path / own.skeleton, target, symlinks=True, ignore=ignore)
        for path in target.rglob("*"):
            if not path.is_symlink():
                # As its key has it: whose checkout it is from makes no difference.
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        return {"files": sum(path.is_file() for path in target.rglob("*"))}

    inputs = {"tree": tree.hash_of((own.skeleton,)), "without": list(own.without), "form": 1}
    steady = within.steady(tree, (own.skeleton,), make)
    return Recipe(StepKind.WORLD, "live skeleton", inputs, steady, minutes=5)


def recipe(
    release: Release, name: str, parts: Sequence[Recipe], over: Sequence[Recipe], tunables: Mapping[str, str]
) -> Recipe:
    """`live.iso` of `parts`, the world first, with `over` laid over what is kept of them for a disk's system.

    `tunables` are what the loader tells the kernel. Facts: files, bytes, SHA-256. Raises `UsageError` where the
    release has no live system.
    """
    own, epoch = data.iso(release), data.of(release).image.epoch
    files = dragonfly.live(release.title, tunables)
    volume = iso.Volume(label(release.name), own.boot, EFI, epoch)

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        work = kitchen.directory
        tree, target = work / "tree", work / LIVE
        kitchen.say("laying out the live system")
        below, above = kitchen.needs[: len(parts)], kitchen.needs[len(parts) :]
        logs = [part.lay(need.path, tree) for need in below]
        for source, copy in own.kept.items():
            keep(tree, source, copy)
        text = kept("\n".join(logs), own.kept)
        logs = [part.lay(need.path, tree) for need in above]
        for path, content in files.items():
            part.replace(tree, path, content)
        text = "\n".join([text, *logs])
        run = step.runner(kitchen)
        esp.make_small(disks.find(tree, _LOADER), tree / EFI, epoch=epoch, run=run)
        entries = manifest.scan(tree, manifest.parse_log(text, part.names(tree)))
        kitchen.say(f"writing {len(entries)} files")
        iso.make(volume, tree, target, entries, run)
        remove(tree)
        return {"files": len(entries), "bytes": target.stat().st_size, "sha256": disk.digest(target)}

    inputs = {
        "release": release.name,
        "volume": dataclasses.astuple(volume),
        "kept": own.kept,
        "files": {path: hashlib.sha256(content).hexdigest() for path, content in files.items()},
        "form": 2,
    }
    return Recipe(StepKind.IMAGE, f"{name} live", inputs, make, needs=(*parts, *over), minutes=15)


def followed(release: Release) -> Release:
    """`release` as its live system boots: by the stages of that. Pure; raises `UsageError` where it has none."""
    own = data.iso(release)
    changed = {"stages": own.stages, "silence": own.silence}
    return release.model_copy(update={"console": release.console.model_copy(update=changed)})


def label(release: str) -> str:
    """The volume's label, for the name of a release. Pure."""
    return re.sub(r"[^A-Z0-9]", "_", f"DRAGONFLY_{release.upper()}")[:32]


def keep(tree: Path, source: str, copy: str) -> None:
    """Put a copy of a directory of `tree` into it, files by hard links. Raises `BuildFailed` if it is missing."""
    if not (tree / source).is_dir():
        raise BuildFailed(f"no part of the image has /{source}", component="ISO")
    shutil.copytree(tree / source, tree / copy, symlinks=True, copy_function=os.link)


def kept(log: str, directories: Mapping[str, str]) -> str:
    """An installation's log with all that it says of `directories` said of their copies as well. Pure."""
    lines = log.splitlines()
    said = []
    for line in lines:
        path, _, words = line.partition(" ")
        for source, copy in directories.items():
            if path == f"./{source}" or path.startswith(f"./{source}/"):
                said.append(f"./{copy}{path[len(source) + 2 :]} {words}")
    return "".join(f"{line}\n" for line in [*lines, *said])
