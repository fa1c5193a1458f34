"""The host kit: what a DragonFly tree expects of the system that builds it, made of this host and the tree itself.

`bin/` has the host's compiler as makefiles of that day expect it, BSD's ways of some commands, and the tree's own
make(1), yacc, lex and the like built for this host; `include/` and `lib/` what a BSD's libc has beyond the host's.
In the sandbox it lies at `layout.KIT`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfbuild.build import step
from dfbuild.build.debian import apt
from dfbuild.build.dragonfly import data, within
from dfbuild.build.dragonfly.layout import KIT, OBJ, SRC
from dfbuild.build.recipe import Kitchen, Recipe
from dfbuild.model import StepKind
from dfbuild.releases import Release
from dfbuild.sandbox import Mount, Sandbox
from dfbuild.source import Tree

OWN = Path(__file__).parent
"""Our part of it: `bin`, `include` and `lib`, and over them those of a machine."""
PACKAGES = {
    "i386": (
        "gcc-12",
        "gcc-12-multilib",
        "g++-12",
        "g++-12-multilib",
        "libc6-dev-i386",
        "binutils",
        "original-awk",
    ),
    "x86_64": ("gcc-12", "g++-12", "libc6-dev", "binutils", "original-awk", "bmake", "byacc", "flex", "m4"),
}  # fmt: skip
"""Debian packages that it is made of, by the machine that the tree is built for."""
_MAKE = "usr.bin/make"
_HERE = ("bin", "include", "lib")


def recipe(release: Release, tree: Tree) -> Recipe:
    """`bin`, `include` and `lib` of the host kit."""
    build = data.of(release)
    kit = build.kit
    own_make = (_MAKE,) if kit.make else ()
    parts = within.Parts(tree, build, (*build.sources, *kit.sources, *kit.headers, *kit.libc, *own_make))

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        root = kitchen.directory
        lay(OWN, build.machine, root)
        for header in kit.headers:
            shutil.copyfile(tree.path / header, root / "include" / Path(header).name)
        for name, script in kit.scripts.items():
            shutil.copyfile(tree.path / script, root / "bin" / name)
        for path in (root / "bin").iterdir():
            path.chmod(0o755)
        sandbox = within.sandbox(kitchen, parts, Mount(KIT, root, writable=True))
        kitchen.say("host kit: make")
        _libc(kitchen, sandbox, kit.libc)
        if kit.make:
            sources = sorted(path.relative_to(tree.path) for path in (tree.path / _MAKE).rglob("*.c"))
            own = [str(SRC / path) for path in sources if path.parent.name in ("make", "lst.lib")]
            compiler = ["cc", "-O", f"-I{SRC / _MAKE}", f'-DPATH_DEFSHELLDIR="{KIT}/bin"', *kit.make]
            step.run(kitchen, sandbox, [*compiler, *own, "-o", KIT / "bin/make"], "make")
        for directory, program in kit.programs.items():
            kitchen.say(f"host kit: {program}")
            _build(kitchen, sandbox, directory, build)
            shutil.copy2(_objects(kitchen, directory) / program, root / "bin" / program)
        for directory, archives in kit.libraries.items():
            _build(kitchen, sandbox, directory, build)
            for name, archive in archives.items():
                shutil.copyfile(_objects(kitchen, directory) / archive, root / "lib" / f"lib{name}.a")
        for rest in ("obj", "edited"):
            shutil.rmtree(root / rest, ignore_errors=True)
        return {"programs": sorted(path.name for path in (root / "bin").iterdir())}

    inputs = {
        **parts.inputs(),
        "kit": kit.model_dump(),
        "flags": list(build.flags),
        "own": digests(OWN, build.machine),
        "host": apt.installed(PACKAGES[build.machine]),
    }
    return Recipe(StepKind.TOOLS, "host kit", inputs, parts.steady(make), minutes=10)


def lay(own: Path, machine: str, root: Path) -> None:
    """Lay a kit's own files over what is in `root`, and those for `machine` over them."""
    for name in _HERE:
        shutil.copytree(own / name, root / name, dirs_exist_ok=True)
    if (own / machine).is_dir():
        shutil.copytree(own / machine, root, dirs_exist_ok=True)


def digests(own: Path, machine: str) -> dict[str, str]:
    """What a content key has to hold of a kit's own files, those for `machine` among them."""
    return {
        str(path.relative_to(own)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in (*_HERE, machine)
        for path in sorted((own / name).rglob("*"))
        if path.is_file()
    }


def _libc(kitchen: Kitchen, sandbox: Sandbox, of_tree: Sequence[str]) -> None:
    """`lib/libdfbuild.a`, which the kit's compiler links to everything."""
    sources = [
        *(KIT / "lib" / path.name for path in sorted(OWN.glob("lib/*.c"))),
        *(SRC / name for name in of_tree),
    ]
    objects = [OBJ / f"{source.stem}.o" for source in sources]
    for source, compiled in zip(sources, objects, strict=True):
        step.run(kitchen, sandbox, ["cc", "-O", "-c", source, "-o", compiled], "libc")
    step.run(kitchen, sandbox, ["ar", "rcD", KIT / "lib/libdfbuild.a", *objects], "libc")


def _build(kitchen: Kitchen, sandbox: Sandbox, directory: str, build: data.Build) -> None:
    first = ("bootstrap",) if directory in build.kit.bootstrap else ()
    within.make(kitchen, sandbox, directory, ("obj", *first, "depend", "all"), flags=build.flags, jobs=1)


def _objects(kitchen: Kitchen, directory: str) -> Path:
    """Where the makefile of `directory` leaves what it builds."""
    return kitchen.directory / "obj" / SRC.relative_to("/") / directory
