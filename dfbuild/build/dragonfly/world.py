"""The world: the whole userland of a release, cross-built and installed by its own makefiles, and what proves it.

The stages are those of the tree's Makefile.inc1. What it does as one chain is done here component by component (a
program, a library, a group of them that belong together), several at a time: what fails names itself, has its own
log, and does not keep the others from being built.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dfbuild.build.dragonfly import ccache, data, edits, elf, evidence, objects, toolchain, within, worldkit
from dfbuild.build.dragonfly.components import Site
from dfbuild.build.dragonfly.installation import install_world
from dfbuild.build.dragonfly.layout import KIT, OBJ, SRC
from dfbuild.build.recipe import Kitchen, Recipe
from dfbuild.model import StepKind
from dfbuild.releases import Release
from dfbuild.releases.schema import Protection
from dfbuild.sandbox import Mount, Sandbox
from dfbuild.source import Tree, changed_meanwhile
from dfbuild.workspace import remove, write_among

_MAKE_CONF = OBJ / "make.conf"
_CFLAGS = "-O -pipe"
"""As sys.mk has it."""


def recipe(release: Release, tree: Tree, name: str, protection: Protection) -> Recipe:
    """The world of `tree`, compiled by toolchain `name` with stack protection as `protection` says.

    `root/` is what `make installworld distribution` would have installed, without device nodes, `install.mtree` the
    log of owners, modes and flags: a part of an image. Facts: components, those that failed and are exempt, those
    that took a second attempt, coverage, proof of compiler and protector.
    """
    build, world = data.of(release), data.world(release)
    parts = within.Parts(tree, build, tuple(top(tree.path, world.without)))
    making = _Making(release, name, protection, tree, parts)
    needs = (
        worldkit.recipe(release, tree),
        *(toolchain.recipe(release, tree, compiler) for compiler in build.compilers_of(name)),
    )
    make = parts.steady(making.make)
    return Recipe(StepKind.WORLD, label(name, protection), making.inputs, make, needs=needs, minutes=600)


class _Making:
    """A world that is to be made: what goes into it, as it is when this is called, and how."""

    def __init__(
        self, release: Release, name: str, protection: Protection, tree: Tree, parts: within.Parts
    ) -> None:
        self._release, self._name, self._protection = release, name, protection
        self._tree, self._parts = tree, parts
        self._build, self._world = data.of(release), data.world(release)
        self._compiler = self._build.compilers[name]
        self._flags = release.toolchains[name].known(protection.flags)
        self._kernel = tuple(kernel_files(tree.path, self._world.kernel))
        self._changes = kernel_edits(self._build.edits, tree.path, self._world.kernel)
        self.inputs = {
            **parts.inputs(),
            "kernel": _digest(tree.path, self._kernel),
            "kernel edits": edits.words(self._changes),
            # What the proof lets pass changes nothing of what is made.
            "world": self._world.model_dump(exclude={"kit", "handlers"}),
            "flags": list(self._flags),
            "proof": [release.toolchains[name].comment, protection.model_dump()],
            **({"components": self._compiler.components} if self._compiler.components else {}),
            # Where links to libraries lead, and what chflags(1) adds to.
            "form": 3 if self._build.platform else 1,
        }

    def make(self, kitchen: Kitchen) -> Mapping[str, Any]:
        with (
            objects.place(
                kitchen.workspace, kitchen.directory.name, kitchen.directory / "work", kitchen.say
            ) as here,
            self._tree.unchanged(self._parts.names, self.inputs["tree"]),
        ):
            if here.old and not here.cut:
                kitchen.say("going on where the last attempt failed")
            made = self._everything(kitchen, here.objects)
            if _digest(self._tree.path, kernel_files(self._tree.path, self._world.kernel)) != self.inputs["kernel"]:
                raise changed_meanwhile(self._tree.path)
        for rest in (here.path, kitchen.directory / "edited", kitchen.directory / "sys"):
            remove(rest)
        return made

    def _everything(self, kitchen: Kitchen, place: Path) -> Mapping[str, Any]:
        for path in self._kernel:
            _copy(self._tree.path / path, kitchen.directory / path)
        conf = make_conf(self._flags, self._world.unprotected, self._world.options)
        write_among(place, place / _MAKE_CONF.name, conf.encode())
        sandbox = ccache.before(self._sandbox(kitchen, place), kitchen.needs[1:], kitchen.workspace)
        site = Site(kitchen, place, sandbox, self._world, self._build.places, self._compiler)
        facts = site.build(self._name)
        kitchen.say("reading the objects")
        proof = self._prove(site.compiled)
        return {**facts, **proof, "coverage": install_world(site, self._build.epoch)}

    def _sandbox(self, kitchen: Kitchen, place: Path) -> Sandbox:
        sandbox = within.sandbox(
            kitchen,
            self._parts,
            Mount(KIT, kitchen.needs[0].path),
            tools=(
                Mount(SRC / "sys", kitchen.directory / "sys"),
                *edits.overlays(self._changes, self._tree.path, kitchen.directory / "edited"),
                *toolchain.mounts(kitchen.needs[1:], self._build.places),
            ),
            ccver=self._name,
            objects=place,
        )
        return dataclasses.replace(sandbox, environment=environment(sandbox.environment, self._build))

    def _prove(self, compiled: Path) -> dict[str, Any]:
        """What all objects below `compiled` say of compiler and protector."""
        symbols = {*self._protection.present, *self._protection.absent}
        found = {
            path.relative_to(compiled).as_posix(): elf.objects(path, symbols)
            for form in ("*.o", "*.So")  # of shared libraries
            for path in sorted(compiled.rglob(form))
            if path.is_file()
        }
        return evidence.prove(
            found,
            self._release.toolchains,
            self._name,
            self._protection,
            component="world",
            compilers={**self._world.compilers, **self._compiler.components},
            unprotected=self._world.unprotected,
            handlers=self._world.handlers,
        )


def environment(cross: Mapping[str, str], build: data.Build) -> dict[str, str]:
    """The environment of make(1) for the world, of that for whatever else is cross-built: WMAKEENV of the tree."""
    names = {**cross, "MAKEOBJDIRPREFIX": str(build.places.world), "__MAKE_CONF": str(_MAKE_CONF)}
    for foreign in ("TOOLS_PREFIX", "USRDATA_PREFIX"):
        del names[foreign]
    if build.platform:
        names |= {"_SHLIBDIRPREFIX": str(build.places.world), "SYSBUILD": "yes", "WORLDBUILD": "1"}
    return names


def label(toolchain: str, protection: Protection) -> str:
    """What a world of `toolchain` is called: `gcc34+ssp`, and `gcc34` where nothing protects it."""
    return f"{toolchain}+ssp" if protection.present else toolchain


# ── what it is made of ────────────────────────────────────────────────────────────────────────────────────────────


def top(tree: Path, without: Sequence[str] = ()) -> Iterator[str]:
    """What is at the top of the tree, but for version control and `without`."""
    for path in sorted(tree.iterdir()):
        if path.name not in without and not path.name.startswith(".") and path.name != "CVS":
            yield path.name


def kernel_files(tree: Path, patterns: Sequence[str]) -> list[str]:
    """Headers and makefiles of the kernel, and what `patterns` match below `sys`: all the world knows of it."""
    found = {
        path.relative_to(tree).as_posix()
        for pattern in ("**/*.h", "**/*.mk", "**/Makefile*", *patterns)
        for path in (tree / "sys").glob(pattern)
        if path.is_file()
    }
    return sorted(found)


def kernel_edits(changes: Iterable[data.Edit], tree: Path, patterns: Sequence[str]) -> tuple[data.Edit, ...]:
    """Those of `changes` to files that `patterns` match below `sys`; headers and makefiles stay as they are.

    What those need changed for a kernel is none of the world's business.
    """
    named = {*kernel_files(tree, patterns)} - {*kernel_files(tree, ())}
    return tuple(edit for edit in changes if edit.file in named)


def _digest(tree: Path, files: Sequence[str]) -> str:
    total = hashlib.sha256()
    for name in files:
        path = tree / name
        total.update(f"{name}\0{path.stat().st_mode & 0o100}\0".encode(errors="surrogateescape"))
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def make_conf(flags: Sequence[str], unprotected: Sequence[str], options: Sequence[str] = ()) -> str:
    """make.conf(5) with `flags` for every compilation but those in the directories `unprotected`, and `options`."""
    lines = [*options, f"CFLAGS= {_CFLAGS}"]
    if flags:
        elsewhere = " && ".join(f'${{.CURDIR:M{SRC}/{directory}*}} == ""' for directory in unprotected)
        extra = f"CFLAGS+= {' '.join(flags)}"
        lines += [f".if {elsewhere}", extra, ".endif"] if elsewhere else [extra]
    return "\n".join([*lines, ""])


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
