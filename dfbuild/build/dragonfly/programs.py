"""The suites' C programs, compiled as the world is, and linked with its libraries: part of an image."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from dfbuild.build import probes, proof, step
from dfbuild.build.dragonfly import data, part, toolchain
from dfbuild.build.dragonfly.layout import KIT, OBJ, Places
from dfbuild.build.recipe import PROGRAMS, Kitchen, Recipe
from dfbuild.image import iso, manifest
from dfbuild.model import StepKind
from dfbuild.releases import Release
from dfbuild.releases.schema import Protection
from dfbuild.sandbox import Mount, Sandbox
from dfbuild.source import Tree

_LOG = "type=file uname=root gname=wheel mode=0555"
# sys.mk has the same.
_CFLAGS = ("-O", "-pipe")


def recipe(release: Release, tree: Tree, name: str, protection: Protection, world: Recipe) -> Recipe:
    """`root/` with the programs where the release has them (`probes`), and `install.mtree`.

    `world` is the recipe of the world that they run in; changing a program builds no other anew. The facts
    are those of `proof.prove`.
    """
    build = data.of(release)
    places = build.places
    flags = (*_CFLAGS, *release.toolchains[name].known(protection.flags))
    sources = probes.read(probes.PROBES)

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        made, *tools = kitchen.needs
        objects = kitchen.directory / "obj"
        bin_directory = kitchen.directory / part.ROOT / release.probes.lstrip("/")
        for directory in (objects, bin_directory):
            directory.mkdir(parents=True)
        for file, text in sources.items():
            (objects / file).write_bytes(text)
        libraries(made.path / part.ROOT, places.world, objects / "libraries")
        sandbox = Sandbox(
            mounts=(
                Mount(OBJ, objects, writable=True),
                Mount(places.world, made.path / part.ROOT),
                *toolchain.mounts(tools, places),
            ),
            cwd=OBJ,
            environment=build.environment(name) | {"PATH": _path(places)},
        )
        names = probes.names(sources)
        kitchen.say(f"compiling {len(names)} programs with {name}")
        for program in names:
            compile_line = ["cc", *flags, "-c", f"{program}.c", "-o", f"{program}.o"]
            step.run(kitchen, sandbox, compile_line, program)
            step.run(kitchen, sandbox, ["cc", f"{program}.o", "-L", "libraries", "-o", program], program)
        files = [*(objects / f"{program}.o" for program in names), *(objects / program for program in names)]
        facts = proof.prove(files, release.toolchains[name], protection, release.elf_machine)
        for program in names:
            shutil.copyfile(objects / program, bin_directory / program)
            (bin_directory / program).chmod(0o755)
        below = PurePath(release.probes.lstrip("/"))
        lines = [f".{release.probes} type=dir uname=root gname=wheel mode=0755"]
        lines += [f"./{below / program} {_LOG}" for program in names]
        (kitchen.directory / part.LOG).write_text("\n".join([*lines, ""]))
        shutil.rmtree(objects)
        return facts

    inputs = {
        "sources": probes.digests(sources),
        "flags": list(flags),
        "proof": [release.toolchains[name].comment, protection.model_dump(), release.elf_machine],
        "place": release.probes,
        "form": 1,
    }
    needs = (world, toolchain.recipe(release, tree, name))
    return Recipe(StepKind.WORLD, f"{world.name} programs", inputs, make, needs=needs, minutes=10)


def cd(release: Release, programs: Recipe) -> Recipe:
    """`recipe.PROGRAMS` with what `programs` made, as it lies in the release's `probes`."""
    epoch = data.of(release).image.epoch

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        place = kitchen.needs[0].path / part.ROOT / release.probes.lstrip("/")
        entries = manifest.scan(place, {})
        volume = iso.Volume("DFBUILD_PROGRAMS", epoch=epoch)
        iso.make(volume, place, kitchen.directory / PROGRAMS, entries, step.runner(kitchen, place))
        return {"files": len(entries)}

    return Recipe(StepKind.IMAGE, f"CD with {programs.name}", {"epoch": epoch, "form": 1}, make, needs=(programs,))


def libraries(world: Path, inside: PurePath, target: Path) -> None:
    """What the linker asks for by the name without a version, where its link would lead to this host's libraries.

    `inside` is where the sandbox has the `world`.
    """
    target.mkdir()
    for link in (world / "usr/lib").glob("*.so"):
        if link.is_symlink() and (library := link.readlink()).is_absolute():
            (target / link.name).symlink_to(inside / library.relative_to("/"))


def _path(places: Places) -> str:
    return f"{places.tools}/usr/bin:{KIT}/bin:/usr/bin:/bin"
