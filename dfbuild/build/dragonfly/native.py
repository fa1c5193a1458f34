"""What the tree's own make(1) builds in a guest with the compilers there: a kernel, beside the cross-built one.

`make nativekernel` is what `make buildkernel` is with the system's own compilers, without a `buildworld` before it.
It runs in a cross-built guest that has the sources on its disk. For worlds see `nativeworld.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dfbuild.build.bench import Machine, Workbench
from dfbuild.build.dragonfly import data, edits, elf, kernel, objects, part, within
from dfbuild.build.dragonfly.layout import OBJ, SRC
from dfbuild.build.recipe import DISK, Artefact, Kitchen, Recipe
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed
from dfbuild.model import Disk, Login, Media, StepKind, Variant
from dfbuild.releases import Release
from dfbuild.releases.schema import Protection
from dfbuild.source import Tree

MEMORY = 512
"""The least MiB of the guest that builds: gcc 3.4 takes 100 of them for some files."""
ROOT = 1536
"""MiB of its root file system: the world, the sources, the objects with their debugging information."""

_KERNEL = "kernel"
_LINKED = (_KERNEL, f"{_KERNEL}.debug", f"{_KERNEL}.stripped")
"""What releases call the linked kernel, with debugging information or without; all of them make one of these."""
_BEGAN, _LOG, _STATUS = "/var/tmp/native.began", "/var/tmp/native.log", "/var/tmp/native.status"
_TAIL = 30
_PATIENCE = 20
"""Seconds that one look at the build waits for its end."""
_SAVE_SECONDS = 600
"""Seconds of the guest's time after which it is saved again: what a build loses that is cut off."""


def sources(release: Release, tree: Tree) -> Recipe:
    """A part of an image: what kernels are built from, edited as for a cross build, at `/usr/src`."""
    build, own = data.of(release), data.kernel(release)
    names = ("Makefile", "Makefile.inc1", *build.sources, *own.sources)
    return placed("kernel sources", tree, names, edits.within(build.edits, names), kernel.added(own))


def tests(tree: Tree, directories: Sequence[str]) -> Recipe:
    """A part of an image: the tree's own tests in `directories`, as they are, below `/usr/src`."""
    return placed("tests", tree, directories, (), {})


def placed(
    title: str, tree: Tree, names: Sequence[str], changes: Sequence[data.Edit], added: Mapping[str, Path]
) -> Recipe:
    """A part of an image: `names` of the tree below `/usr/src`, with `changes`, and with the files `added`."""

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        here = objects.Place(kitchen.directory / "work", old=False)
        here.source.mkdir(parents=True)
        files = objects.sync(here, tree, names, changes, added).names
        target = kitchen.directory / part.ROOT / SRC.relative_to("/")
        target.parent.mkdir(parents=True)
        here.source.rename(target)
        shutil.rmtree(here.path)
        for name in files:
            _let_run(target / name)
        return {"files": len(files)}

    inputs = {
        "tree": tree.hash_of(names),
        "edits": edits.words(changes),
        **kernel.digests(added),
        "form": 2,
    }
    return Recipe(StepKind.WORLD, title, inputs, within.steady(tree, names, make))


def _let_run(path: Path) -> None:
    """Scripts that makefiles run by their names have lost their permission to on the way from CVS to git."""
    if path.is_symlink() or not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(2) == b"#!":
            path.chmod(0o755)


def recipe(
    release: Release, variant: Variant, builder: Recipe, cross: Recipe, login: Login, machine: Machine
) -> Recipe:
    """The kernel of `variant`, built in a guest of the image `builder`; `cross` is the same kernel, cross-built.

    A part of an image with `/kernel` alone: modules are the cross-built ones. Facts: seconds, and section by
    section the sizes of both kernels and how many bytes differ. Raises `BuildFailed` if `make` fails in the guest.
    """
    installed = data.kernel(release).installed
    names = environment(release, variant.toolchain)
    size = memory(release)
    protector = release.stack_protectors[variant.stack_protector].of_kernel

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        guest, crossed = kitchen.needs
        ident = str(crossed.facts["name"])
        media = Media(disks=(Disk(guest.path / DISK),), login=login)
        target = kitchen.directory / part.ROOT / installed
        target.parent.mkdir(parents=True)
        kitchen.say(f"{ident}: booting a guest to build in")
        with machine(release, variant, media, size, kitchen) as shell:
            conf = SRC / data.kernel(release).directory / ident
            shell.put(crossed.path / kernel.CONFIGURATION, str(conf), kitchen.deadline)
            command = f"make -DNO_MODULES nativekernel KERNCONF={ident}"
            seconds = build(kitchen, shell, ident, names, command)
            place = OBJ / SRC.relative_to("/") / "sys" / ident
            strip = f"cd {place} && strip -g -o /var/tmp/kernel `ls {' '.join(_LINKED)} 2>/dev/null | head -1`"
            answer = shell.run(strip, kitchen.deadline)
            if answer.status != 0:
                raise BuildFailed(f"no kernel in {place}", component=ident, tail=answer.text)
            shell.get("/var/tmp/kernel", target, kitchen.deadline)
        _prove(target, crossed.path / part.ROOT / installed, protector)
        target.chmod(0o555)
        log(crossed, (installed,), kitchen.directory / part.LOG)
        return {"seconds": seconds, "sections": compare(crossed.path / part.ROOT / installed, target)}

    inputs = {"compiler": variant.toolchain, "memory": size, "form": 1}
    title, needs = f"{cross.name} native", (builder, cross)
    return Recipe(StepKind.KERNEL, title, inputs, make, needs=needs, minutes=240, guest=size)


def _prove(made: Path, crossed: Path, protector: Protection) -> None:
    """Raise `BuildFailed` unless the kernel `made` in the guest is of the compilers that the cross-built one is of,
    and calls what its protector says."""
    theirs, ours = (elf.objects(kernel, ()).comments for kernel in (made, crossed))
    if theirs != ours:
        told = ", ".join(sorted(theirs)) or "nobody who says so"
        raise BuildFailed(f"the kernel was made by {told}, not by {', '.join(sorted(ours))}", component=_KERNEL)
    for symbol in protector.present:
        if not elf.calls(made, symbol):
            raise BuildFailed(f"the kernel does not call {symbol}", component=_KERNEL)
    for symbol in protector.absent:
        if elf.calls(made, symbol):
            raise BuildFailed(f"the kernel calls {symbol}, which must not be there", component=_KERNEL)


def begun(shell: Workbench, deadline: Deadline) -> bool:
    """Whether make runs already, in a guest that goes on from where it was saved."""
    return shell.run(f"test -s {_BEGAN}", deadline).status == 0


def build(kitchen: Kitchen, shell: Workbench, what: str, environment: Mapping[str, str], command: str) -> float:
    """Run make in the background of the guest, for whoever loses the way there can come back; its seconds.

    Where it has `begun` it is waited for. Raises `BuildFailed` if it fails, with the end of what it said.
    """
    names = "".join(f"export {name}={value}; " for name, value in environment.items())
    start = (
        f"if [ ! -s {_BEGAN} ]; then cd {SRC}; ({names}{command}; echo $? > {_STATUS}) "
        f"> {_LOG} 2>&1 < /dev/null & date +%s > {_BEGAN}; fi; cat {_BEGAN}"
    )
    began = saved = _number(shell.run(start, kitchen.deadline).text)
    # The sh of the time wants `$` before a variable in an expression.
    look = (
        f"n=0; while [ ! -s {_STATUS} ] && [ $n -lt {_PATIENCE} ]; do sleep 1; n=$(($n + 1)); done; "
        f"grep -c -e ' -c ' {_LOG}; date +%s; cat {_STATUS} 2>/dev/null || echo running; "
        f"grep '^>>> ' {_LOG} | tail -1 | cut -c 5-"
    )
    while True:
        answer = shell.run(look, kitchen.deadline)
        if answer.status != 0:
            raise BuildFailed(f"cannot look at {command} in the guest", component=what, tail=answer.text)
        compiled, now, status, *stages = [*answer.text.splitlines(), "", "", ""]
        if status != "running":
            break
        kitchen.say(": ".join([what, *filter(None, stages), f"{compiled} files compiled in the guest"]))
        if _number(now) - saved >= _SAVE_SECONDS:
            shell.save(kitchen.deadline)
            saved = _number(now)
    if status != "0":
        tail = shell.run(f"tail -{_TAIL} {_LOG}", kitchen.deadline).text
        shell.get(_LOG, kitchen.log, kitchen.deadline)
        raise BuildFailed(f"{command} failed in the guest", component=what, log=kitchen.log, tail=tail)
    return float(_number(now) - began)


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BuildFailed(f"the guest said {text[-200:]!r} for a time", component="native build") from None


def environment(release: Release, compiler: str) -> dict[str, str]:
    """What make(1) is told in the guest of the compiler and its tools."""
    names = data.of(release).environment(compiler)
    return {name: names[name] for name in ("CCVER", "BINUTILSVER") if name in names}


def memory(release: Release) -> int:
    """MiB of the guest that builds."""
    return max(MEMORY, release.shape.memory or 0)


def log(crossed: Artefact, installed: Iterable[str], target: Path) -> None:
    """Owners, modes and flags are those that the same cross-built files would have been installed with."""
    names = {f"./{name}" for name in installed}
    with (crossed.path / part.LOG).open(encoding="utf-8", errors="surrogateescape") as lines:
        chosen = [line for line in lines if line.split(" ", 1)[0] in names]
    target.write_text("".join(chosen), encoding="utf-8", errors="surrogateescape")


def compare(cross: Path, native: Path) -> dict[str, dict[str, int]]:
    """By section that is in memory when the kernel runs: its size in both kernels, and how many bytes differ."""
    one, other = elf.contents(cross), elf.contents(native)
    found = {}
    for name in dict.fromkeys([*one, *other]):
        left, right = one.get(name, b""), other.get(name, b"")
        found[name] = {"cross": len(left), "native": len(right), "differing": differing(left, right)}
    return found


def differing(one: bytes, other: bytes) -> int:
    """How many bytes differ, what only one of them has included."""
    return sum(a != b for a, b in zip(one, other, strict=False)) + abs(len(one) - len(other))
