"""The world kit: the host kit, and what runs on this host while the whole world is built and installed.

Beyond the host kit it has the tree's own sh, sed, rpcgen, mklocale, zic, pwd_mkdb and the like; an install(1),
chown(8), chflags(1) that keep what only root could do in a log; and date, host and user of nobody in particular. In
the sandbox it lies at `layout.KIT` instead of the host kit.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfbuild.build import step
from dfbuild.build.dragonfly import data, hostkit, within
from dfbuild.build.dragonfly.layout import KIT, OBJ, SRC
from dfbuild.build.recipe import Kitchen, Recipe
from dfbuild.model import StepKind
from dfbuild.releases import Release
from dfbuild.sandbox import Mount, Sandbox
from dfbuild.source import Tree

OWN = Path(__file__).parent
"""Our part of it, over the host kit's, and over it that of a machine."""
_HERE = ("bin", "include", "lib")
_COMPILER = "cctool"
_FLAGS = ("-DNO_NLS", "-DNOHTML")


def recipe(release: Release, tree: Tree) -> Recipe:
    """`bin`, `include` and `lib` of the world kit."""
    return extended(release, tree, "world kit", data.world(release).kit)


def extended(release: Release, tree: Tree, title: str, kit: data.WorldKit) -> Recipe:
    """A kit with all that is ours of the world kit, and of the tree what `kit` says."""
    build = data.of(release)
    special = OWN / build.machine
    own_headers = [header for program in kit.programs.values() for header in program.headers]
    parts = within.Parts(tree, build, (*build.sources, *kit.sources, *kit.headers, *kit.libc, *own_headers))

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        root = kitchen.directory
        for name in _HERE:
            shutil.copytree(kitchen.needs[0].path / name, root / name, symlinks=True)
        hostkit.lay(OWN, build.machine, root)
        for path in (root / "bin").iterdir():
            path.chmod(0o755)
        for header, name in kit.headers.items():
            _copy(tree.path / header, root / "include" / name)
        sandbox = within.sandbox(kitchen, parts, Mount(KIT, root, writable=True))
        kitchen.say(f"{title}: libc")
        _libc(kitchen, sandbox, kit, special)
        flags = (*build.flags, *_FLAGS)
        compiler = shlex.join([_COMPILER, *(f"-D{name}={value}" for name, value in kit.defines.items())])
        for directory, library in kit.libraries.items():
            _build(kitchen, sandbox, directory, flags, compiler)
            for name, archive in library.items():
                _copy(_objects(kitchen, directory) / archive, root / "lib" / f"lib{name}.a")
        for directory, program in kit.programs.items():
            kitchen.say(f"{title}: {directory}")
            for header in program.headers:
                _copy(tree.path / header, root / "obj/headers" / directory / Path(header).name)
            _build(kitchen, sandbox, directory, flags, f"{compiler} -I{OBJ}/headers/{directory}")
            for name in program.names:
                _copy(_objects(kitchen, directory) / name, root / "bin" / name)
                (root / "bin" / name).chmod(0o755)
        for rest in ("obj", "edited"):
            shutil.rmtree(root / rest, ignore_errors=True)
        return {"programs": sorted(path.name for path in (root / "bin").iterdir())}

    inputs = {
        **parts.inputs(),
        "kit": kit.model_dump(),
        "flags": [*build.flags, *_FLAGS],
        "own": hostkit.digests(OWN, build.machine),
    }
    needs = (hostkit.recipe(release, tree),)
    return Recipe(StepKind.TOOLS, title, inputs, parts.steady(make), needs=needs, minutes=10)


def _libc(kitchen: Kitchen, sandbox: Sandbox, kit: data.WorldKit, special: Path) -> None:
    """More of a BSD's libc in `lib/libdfbuild.a`, and libraries that programs name and do not need."""
    sources = {SRC / name: f"{Path(name).stem}.o" for name in kit.libc}
    for source, compiled in sources.items():
        step.run(kitchen, sandbox, [_COMPILER, "-O", "-c", source, "-o", OBJ / compiled], "libc")
    own = [KIT / "lib" / path.name for top in (OWN, special) for path in sorted(top.glob("lib/*.c"))]
    for source in own:
        step.run(kitchen, sandbox, ["cc", "-O", "-c", source, "-o", OBJ / f"{source.stem}.o"], "libc")
    objects = [OBJ / name for name in (*sources.values(), *(f"{source.stem}.o" for source in own))]
    step.run(kitchen, sandbox, ["ar", "rcD", KIT / "lib/libdfbuild.a", *objects], "libc")
    for name in kit.empty:
        step.run(kitchen, sandbox, ["ar", "rcD", KIT / f"lib/lib{name}.a"], "libc")


def _build(kitchen: Kitchen, sandbox: Sandbox, directory: str, flags: tuple[str, ...], compiler: str) -> None:
    within.make(kitchen, sandbox, directory, ("obj", "depend"), flags=flags)
    within.make(kitchen, sandbox, directory, ("all",), flags=(*flags, f"CC={compiler}"))


def _objects(kitchen: Kitchen, directory: str) -> Path:
    return kitchen.directory / "obj" / SRC.relative_to("/") / directory


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
