"""Boot programs, as a part of an image: what UEFI firmware starts, the loader of a CD, and of Xen's guests.

The world has them. Here they are built once more, with what must be done to make them run (`[build.efi]`,
`[build.iso.loader]`, `[build.loader]`), and without building a world anew for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from dfbuild.build.dragonfly import data, part, toolchain, within, worldkit
from dfbuild.build.dragonfly.layout import KIT, SRC
from dfbuild.build.recipe import Kitchen, Recipe
from dfbuild.errors import BuildFailed
from dfbuild.model import StepKind
from dfbuild.releases import Release
from dfbuild.sandbox import Mount
from dfbuild.source import Tree

_TARGETS = ("obj", "depend", "all")
_LOG = "type=file uname=root gname=wheel mode=0555"


def recipe(release: Release, tree: Tree, name: str, world: Recipe, own: data.Loaders, what: str) -> Recipe:
    """`root/` with the programs `own` of `tree`, compiled by toolchain `name` with the libraries of `world`.

    Or by what takes its place there. `what` is what the step is called by.
    """
    build = data.of(release)
    compilers = {directory: build.compilers[name].instead(directory) or name for directory in own.directories}
    build = build.model_copy(update={"edits": (*build.edits, *own.edits)})
    parts = within.Parts(tree, build, (*build.sources, *own.sources))

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        laid, kit, *tools = kitchen.needs
        objects, root = kitchen.directory / "obj", kitchen.directory / part.ROOT
        sandbox = within.sandbox(
            kitchen,
            parts,
            Mount(KIT, kit.path),
            tools=(Mount(build.places.world, laid.path / part.ROOT), *toolchain.mounts(tools, build.places)),
            ccver=name,
        )
        # No library installs its headers first: the world has them.
        variables = {"DESTDIR": str(build.places.world), "LDFLAGS": own.link, "INCS": ""}
        for directory, compiler in compilers.items():
            kitchen.say(directory)
            within.make(kitchen, sandbox, directory, _TARGETS, variables={**variables, "CCVER": compiler})
        lines = []
        for file, made in own.programs.items():
            source = objects / SRC.relative_to("/") / made
            if not source.is_file():
                raise BuildFailed(f"the makefiles made no {made}", component=str(PurePath(made).parent))
            target = root / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o755)
            lines.append(f"./{file} {_LOG}\n")
        (kitchen.directory / part.LOG).write_text("".join(lines))
        shutil.rmtree(objects)
        shutil.rmtree(kitchen.directory / "edited", ignore_errors=True)
        return {file: (root / file).stat().st_size for file in own.programs}

    inputs = {**parts.inputs(), "own": own.model_dump(exclude={"edits"}), "form": 1}
    toolchains = (toolchain.recipe(release, tree, compiler) for compiler in dict.fromkeys(compilers.values()))
    needs = (world, worldkit.recipe(release, tree), *toolchains)
    return Recipe(StepKind.WORLD, f"{world.name} {what}", inputs, parts.steady(make), needs=needs, minutes=15)
