"""What runs before the kernel: boot blocks and the loader with its Forth, built by the tree's own makefiles."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfbuild.build.dragonfly import data, edits, elf32, layout, objects, part, toolchain, within, worldkit
from dfbuild.build.dragonfly.layout import KIT, OBJ, SRC, WORLD
from dfbuild.build.dragonfly.world import kernel_files
from dfbuild.build.recipe import Kitchen, Recipe
from dfbuild.errors import BuildFailed
from dfbuild.model import StepKind
from dfbuild.releases import Release
from dfbuild.releases.schema import Toolchain
from dfbuild.sandbox import Mount, Sandbox
from dfbuild.source import Tree

_INCLUDE = WORLD / "usr/include"
_PROTECTION = ("__stack_smash_handler", "__guard")
_SECOND = "boot2.o"
_FORM = 1


def recipe(release: Release, tree: Tree, name: str) -> Recipe:
    """Boot blocks and loader of `tree`, compiled by toolchain `name`: a part of an image.

    `root/boot` has `mbr`, `boot0`, `boot1`, `boot2`, `loader`, its Forth files and `defaults/`, as the makefiles
    install them; `install.mtree` owners and modes. What stack protector a kernel or a world has does not count
    here: the makefiles choose, and the second stage has no room for one. Facts: compiler, call sites, sizes.
    """
    build, own = data.of(release), data.boot(release)
    compiler = release.toolchains[name]
    names = (*build.sources, *own.sources, *kernel_files(tree.path, own.kernel))
    changes = edits.within(build.edits, names)
    kit = worldkit.extended(release, tree, "kernel kit", data.kernel(release).kit)

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        work = kitchen.directory / "work"
        here = objects.Place(work, old=False)
        for empty in (here.source, here.objects):
            empty.mkdir(parents=True)
        objects.sync(here, tree, names, changes)
        _headers(here, own.headers)
        sandbox = Sandbox(
            mounts=(
                Mount(SRC, here.source),
                Mount(OBJ, here.objects, writable=True),
                Mount(KIT, kitchen.needs[0].path),
                *toolchain.mounts(kitchen.needs[1:]),
            ),
            environment=layout.environment(build.epoch, name),
        )
        for directory in own.directories:
            kitchen.say(directory)
            within.make(kitchen, sandbox, directory, ("obj", "depend", "all"))
        facts = _prove(here.objects, compiler)
        part.begin(kitchen, sandbox, here.objects)
        for directory in own.installed:
            within.make(kitchen, sandbox, directory, ("install",), variables=part.DESTINATION)
        part.finish(here.objects, kitchen.directory)
        shutil.rmtree(work)
        boot = kitchen.directory / "root/boot"
        return {**facts, "sizes": {path.name: path.stat().st_size for path in sorted(boot.iterdir())}}

    inputs = {
        "tree": tree.hash_of(names),
        "edits": edits.words(changes),
        "boot": own.model_dump(),
        "epoch": build.epoch,
        "comment": compiler.comment,
        "form": _FORM,
    }
    needs = (kit, toolchain.recipe(release, tree, name))
    return Recipe(StepKind.KERNEL, f"boot {name}", inputs, make, needs=needs, minutes=10)


def _headers(here: objects.Place, headers: Mapping[str, str]) -> None:
    """Put the tree's headers where its compilers look for them: links to directories' contents, or to files."""
    for source, place in headers.items():
        origin = here.source / source
        target = here.objects / _INCLUDE.relative_to(OBJ) / place
        found = {target / entry.name: entry for entry in origin.iterdir()} if origin.is_dir() else {target: origin}
        for link, entry in found.items():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(SRC / entry.relative_to(here.source))


def _prove(place: Path, compiler: Toolchain) -> dict[str, Any]:
    """The facts of all objects; raises `BuildFailed` for a foreign compiler, or a protected second stage."""

    made = {
        path.relative_to(place).as_posix(): elf32.objects(path, _PROTECTION)
        for path in sorted(place.rglob("*.o"))
        if path.is_file()
    }
    for name, found in made.items():
        for comment in found.comments:
            if not re.search(compiler.comment, comment):
                raise BuildFailed(f"{name} was made by {comment}, not {compiler.cc}", component=name)
        if Path(name).name == _SECOND and found.references.total():
            raise BuildFailed(f"{name} is protected: there is no room for that", component=name)
    return {
        "objects": len(made),
        "compiler": sorted({comment for found in made.values() for comment in found.comments}),
        "sites": sum(found.references[_PROTECTION[0]] for found in made.values()),
    }
