"""The world that the tree's own make(1) builds in a guest, with the compilers there, beside the cross-built one.

`make buildworld` and `installworld` run in a cross-built guest that has the whole tree on its disk. Where the
release has HAMMER2 the objects lie on a second disk, which the guest formats: the UFS written here is too small.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dfbuild.build.bench import Machine, Workbench
from dfbuild.build.dragonfly import data, elf, hammer2, native, part, world
from dfbuild.build.dragonfly.layout import OBJ
from dfbuild.build.recipe import DISK, Kitchen, Recipe
from dfbuild.errors import BuildFailed
from dfbuild.model import Disk, Login, Media, StepKind, Variant
from dfbuild.releases import Release
from dfbuild.releases.schema import Protection
from dfbuild.source import Tree

ROOT = 1900
"""MiB of the root file system of the guest that builds. makefs writes none of 2 GB."""
OBJECTS = 12288
"""MiB of the disk for the objects, where there is one. What is not written costs next to nothing."""

_CONF = "/etc/make.conf"
_MADE, _TAR = OBJ / "native", OBJ / "native.tgz"
_MINUTES = 72 * 60.0
_TOLD = 40
"""Of the programs that differ so many are named."""


def sources(tree: Tree) -> Recipe:
    """A part of an image: the whole tree as it is at `/usr/src`, for the system that it was written on."""
    return native.placed("sources", tree, tuple(world.top(tree.path)), (), {})


def recipe(
    release: Release,
    variant: Variant,
    protection: Protection,
    builder: Recipe,
    objects: Recipe | None,
    cross: Recipe,
    login: Login,
    machine: Machine,
) -> Recipe:
    """The world of `variant`, built in a guest of the image `builder`; `cross` is the same world, cross-built.

    A part of an image with those regular files of `cross` that the guest has made as well. `objects` is an image
    with a place for HAMMER2, if the guest has to format one. Facts: seconds; `programs`, as `compare` has it;
    `missing`, the first of the programs that the guest has not made.
    Raises `BuildFailed` if `make` fails in the guest.
    """
    names, memory = native.environment(release, variant.toolchain), native.memory(release)
    known = release.toolchains[variant.toolchain].known(protection.flags)
    conf = world.make_conf(known, data.world(release).unprotected)
    disk = hammer2.nth(data.of(release).image.disks[release.own_shape.disk], 1)
    needs = (builder, *((objects,) if objects is not None else ()), cross)

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        *disks, crossed = kitchen.needs
        media = Media(disks=tuple(Disk(one.path / DISK) for one in disks), login=login)
        packed, text = kitchen.directory / "native.tgz", kitchen.directory / "make.conf"
        text.write_text(conf)
        kitchen.say("booting a guest to build in")
        with machine(release, variant, media, memory, kitchen) as shell:
            if not native.begun(shell, kitchen.deadline):
                shell.put(text, _CONF, kitchen.deadline)
                if objects is not None:
                    _do(kitchen, shell, f"newfs_hammer2 -f /dev/{disk}s1d && mount -t hammer2 /dev/{disk}s1d {OBJ}")
            command = f"make buildworld && mkdir -p {_MADE} && make installworld DESTDIR={_MADE}"
            seconds = native.build(kitchen, shell, "world", names, command)
            kitchen.say("fetching what was installed")
            # Both would not find room on the small root.
            _do(kitchen, shell, f"rm -rf {OBJ}/usr && cd {_MADE} && tar -czf {_TAR} .")
            shell.get(str(_TAR), packed, kitchen.deadline)
        root = crossed.path / part.ROOT
        taken = take(packed, root, kitchen.directory / part.ROOT)
        for left in (packed, text):
            left.unlink()
        native.log(crossed, taken, kitchen.directory / part.LOG)
        # Configuration is none of installworld's; what is missing of programs would be.
        missing = sorted(name for name in set(_files(root)) - set(taken) if _text(root / name) is not None)
        return {
            "seconds": seconds,
            "programs": compare(root, kitchen.directory / part.ROOT, taken),
            "missing": missing[:_TOLD],
        }

    inputs = {
        "compiler": variant.toolchain,
        "memory": memory,
        "conf": hashlib.sha256(conf.encode()).hexdigest(),
        "form": 1,
    }
    return Recipe(StepKind.WORLD, f"{cross.name} native", inputs, make, needs=needs, minutes=_MINUTES, guest=memory)


def _do(kitchen: Kitchen, shell: Workbench, command: str) -> None:
    answer = shell.run(command, kitchen.deadline)
    if answer.status != 0:
        raise BuildFailed(f"{command} failed in the guest", component="world", tail=answer.text)


def _files(root: Path) -> Iterator[str]:
    """The regular files below `root`, by their paths from there."""
    for directory, _, files in os.walk(root):
        for name in files:
            path = Path(directory, name)
            if not path.is_symlink():
                yield path.relative_to(root).as_posix()


def take(packed: Path, root: Path, target: Path) -> list[str]:
    """Unpack into `target` those regular files of the archive that `root` has too, and return their paths.

    The archive is a guest's: what is not in `root` under exactly that path is not touched.
    """
    wanted = set(_files(root))
    taken: set[str] = set()
    try:
        with tarfile.open(packed) as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name not in wanted or not (member.isfile() or member.islnk()):
                    continue
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                other = member.linkname.removeprefix("./")
                # Out of the archive what is linked would be read from its beginning again.
                if other != name and other in taken:
                    os.link(target / other, path)
                elif (content := archive.extractfile(member)) is not None:
                    with content, path.open("wb") as file:
                        shutil.copyfileobj(content, file)
                    path.chmod((root / name).stat().st_mode & 0o777)
                taken.add(name)
    except (tarfile.TarError, KeyError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BuildFailed(f"what the guest packed cannot be read: {error}", component="world") from error
    return sorted(taken)


def compare(cross: Path, made: Path, names: list[str]) -> dict[str, Any]:
    """How the programs and libraries among `names` stand to each other, by their text.

    `count` of them, how many have the `same`, and one that is `as large`; by the path of each that has another how
    many bytes `differ`, and of how many. Those of another size come first.
    """
    count = same = 0
    large: dict[str, str] = {}
    others: dict[str, str] = {}
    for name in names:
        one = _text(cross / name)
        if one is None:
            continue
        count += 1
        other = _text(made / name) or b""
        if one == other:
            same += 1
        else:
            told = f"{native.differing(one, other)} of {len(one)} bytes"
            (large if len(one) == len(other) else others)[name] = told
    first = itertools.islice({**others, **large}.items(), _TOLD)
    return {"count": count, "same": same, "as large": len(large), "differ": dict(first)}


def _text(path: Path) -> bytes | None:
    """The instructions of a program or library; None of what is none."""
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return None
    return elf.contents(path).get(".text")
