"""Kernels and their modules, cross-built by the tree's own makefiles, and what proves them.

The steps are those of `make buildkernel installkernel`. A kernel is built in an object tree that outlives it
(`objects.py`): after a change only what depends on it is built again, to the same bytes as from the beginning.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from dfbuild import process
from dfbuild.build import step
from dfbuild.build.dragonfly import (
    data,
    edits,
    elf,
    evidence,
    kernconf,
    objects,
    part,
    toolchain,
    within,
    worldkit,
)
from dfbuild.build.dragonfly.layout import KIT, OBJ, SRC
from dfbuild.build.recipe import Kitchen, Recipe
from dfbuild.errors import BuildFailed, UsageError
from dfbuild.image.templates import images
from dfbuild.model import StepKind, Variant
from dfbuild.releases import Release
from dfbuild.releases.schema import Protection, Toolchain
from dfbuild.sandbox import Mount, Sandbox
from dfbuild.source import Tree
from dfbuild.workspace import remove, write_among

DEBUG = "kernel.debug"
"""The linked kernel with its debugging information, for who wants to read addresses."""
CONFIGURATION = "configuration"

_SYS = OBJ / "usr/src/sys"
_CONF = OBJ / "conf"
_FORM = 1
_KNOWN = "dependencies-known"
"""Lies in a kernel's object directory while its .depend files hold for the sources as they are."""


def recipe(release: Release, tree: Tree, variant: Variant) -> Recipe:
    """The kernel of `variant` from `tree`, with its modules: a part of an image.

    `root/` has `/kernel` and `/modules` as `make installkernel` would have installed them (stripped of debugging
    information), `install.mtree` their owners, modes and flags; beside them `kernel.debug` and `configuration`.
    Facts: how compiler and protector show, call sites, sections, what was built.
    """
    build = data.of(release)
    own = data.kernel(release)
    which = release.kernels[variant.kernel].like or variant.kernel
    kernel = release.kernels[which]
    compiler = release.toolchains[variant.toolchain]
    protector = release.stack_protectors[variant.stack_protector].of_kernel
    flags = compiler.known(protector.flags)
    ident = kernconf.name(which, variant.toolchain, protected=bool(protector.present))
    makeoptions = {"DEBUG": "-g", **({"CONF_CFLAGS": " ".join(flags)} if flags else {})}
    try:
        configuration = kernconf.derive(kernconf.read(kernel, tree.path, own.config), ident, kernel, makeoptions)
    except UsageError as error:
        raise UsageError(error.message, hint=error.hint, key=f"kernels.{which}") from error
    names = (*build.sources, *own.sources)
    changes = edits.within((*build.edits, *build.compilers[variant.toolchain].edits), names)
    kit = worldkit.extended(release, tree, "kernel kit", own.kit)
    tools = toolchain.recipe(release, tree, variant.toolchain)
    ours = added(own)
    # How it is built, apart from the sources: what an object tree is good for.
    way = {
        "release": release.name,
        "needs": [kit.key, tools.key],
        "configuration": configuration,
        "flags": list(flags),
        "epoch": build.epoch,
        "places": [own.directory, own.aicasm],
        "form": _FORM,
    }

    was = tree.hash_of(names)

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        work = kitchen.directory / "work"
        with (
            objects.place(kitchen.workspace, objects.key(way), work, kitchen.say) as here,
            # In there, where a failure lets the next one begin anew: the copy may hold what is no longer there.
            tree.unchanged(names, was) as require_unchanged,
        ):

            def settle() -> None:
                require_unchanged()
                here.settle()

            changed = objects.sync(here, tree, names, changes, ours)
            if here.old:
                kitchen.say(f"{len(changed.names)} files of the source changed")
            site = _Site(kitchen, here, own, ident, _sandbox(kitchen, here, build, variant.toolchain, flags))
            again = site.build(configuration, changed, settle)
            facts = site.prove(compiler, variant.toolchain, protector)
            site.install()
        shutil.rmtree(work, ignore_errors=True)
        return {**facts, "name": ident, "incremental": here.old, "jobs": within.jobs(), "again with one job": again}

    inputs = {
        **way,
        "tree": was,
        "edits": edits.words(changes),
        **digests(ours),
        "proof": [compiler.comment, protector.model_dump(), list(own.foreign)],
        "installed": [own.install, own.beside, own.installed],
    }
    return Recipe(StepKind.KERNEL, ident, inputs, make, needs=(kit, tools), minutes=240)


def added(own: data.KernelBuild) -> dict[str, Path]:
    """Source file that the tree lacks ▸ ours."""
    return {name: images("dragonfly") / file for name, file in own.added.items()}


def digests(ours: Mapping[str, Path]) -> dict[str, Any]:
    """What a content key says of files of ours: nothing where there are none."""
    found = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in ours.items()}
    return {"added": found} if found else {}


def _sandbox(kitchen: Kitchen, here: objects.Place, build: data.Build, ccver: str, flags: Sequence[str]) -> Sandbox:
    """Kit and toolchain, the copy of the sources and the object tree, in their places."""
    kit, tools = kitchen.needs
    environment = build.environment(ccver)
    # For aicasm, a program that believes to know a Linux. The modules' makefiles take COPTS.
    environment["NXCC"] = f"{environment['NXENV']} cctool -U__linux__"
    environment["COPTS"] = " ".join(flags)
    return Sandbox(
        mounts=(
            Mount(SRC, here.source),
            Mount(OBJ, here.objects, writable=True),
            Mount(KIT, kit.path),
            *toolchain.mounts([tools], build.places),
        ),
        environment=environment,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Site:
    """A kernel that is being built."""

    kitchen: Kitchen
    here: objects.Place
    own: data.KernelBuild
    ident: str
    sandbox: Sandbox

    @property
    def inside(self) -> Path:
        """The kernel's object directory, in the sandbox."""
        return _SYS / self.ident

    @property
    def outside(self) -> Path:
        return self._outside(self.inside)

    def _outside(self, path: Path) -> Path:
        return self.here.objects / path.relative_to(OBJ)

    def build(self, configuration: str, changed: objects.Changes, settle: Callable[[], None]) -> bool:
        """Everything up to the last module; returns whether a second attempt was needed. `settle` is called when
        nothing is left but to compile."""
        known = self.outside / _KNOWN
        if self.here.old and changed.untold:
            self.kitchen.say(f"{self.ident}: everything anew, for makefiles or the set of headers changed")
            remove(self.here.objects)
            self.here.objects.mkdir()
        if changed.directives or self.here.cut:
            known.unlink(missing_ok=True)
        conf = self._outside(_CONF) / self.ident
        write_among(self.here.objects, conf, configuration.encode("latin-1"))
        self.outside.mkdir(parents=True, exist_ok=True)
        if self.here.cut or any(not (self.here.source / name).exists() for name in changed.names):
            # These would ask for files that are no more.
            for depend in self.outside.rglob(".depend"):
                depend.unlink()
        # The number of the build; the first one's is 0, and so everyone's.
        (self.outside / "version").unlink(missing_ok=True)
        configure = dataclasses.replace(self.sandbox, cwd=SRC / self.own.directory)
        self.kitchen.say(f"{self.ident}: configuring")
        step.run(self.kitchen, configure, ["config", "-d", self.inside, _CONF / self.ident], "config")
        if self.own.aicasm:
            aicasm = SRC / self.own.aicasm
            self._make(("all",), flags=("-DBOOTSTRAPPING", "-f", f"{aicasm}/Makefile"), component="aicasm",
                       variables={"MAKESRCPATH": str(aicasm)})  # fmt: skip
        if not known.exists():
            # Finds out anew for each of thousands of files what it includes.
            self.kitchen.say(f"{self.ident}: dependencies")
            self._make(("depend",), component="depend")
            known.touch()
        settle()
        self.kitchen.say(f"{self.ident}: compiling")
        return self._make(("all",), component="kernel", jobs=within.jobs())

    def _make(
        self,
        targets: Sequence[str],
        *,
        component: str,
        flags: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        jobs: int = 1,
    ) -> bool:
        return within.make(
            self.kitchen, self.sandbox, str(self.inside), targets, flags=("KERNEL=kernel", *flags),
            variables=variables, jobs=jobs, component=component, prefix="",
        )  # fmt: skip

    def prove(self, compiler: Toolchain, name: str, protector: Protection) -> dict[str, Any]:
        """The facts of all objects and of the linked kernel; raises `BuildFailed` if they break a promise."""
        symbols = {*protector.present, *protector.absent}
        inner = {path.name: path for path in self._linked()}
        outer = {
            path.relative_to(self.outside).as_posix(): path
            for path in sorted((self.outside / "usr").rglob("*.o"))
            if path.is_file() and not self._foreign(path.name)
        }
        kernel = {key: elf.objects(path, symbols) for key, path in inner.items()}
        modules = {key: elf.objects(path, symbols) for key, path in outer.items()}
        own = {key: made for key, made in kernel.items() if not self._foreign(key)}
        facts, of_modules = (
            evidence.prove(
                made, {name: compiler}, name, protector, component=component, compilers={}, unprotected=()
            )
            if made
            else {}
            for component, made in (("kernel", own), ("modules", modules))
        )
        in_objects = Counter[str]()
        for made in kernel.values():
            in_objects.update(made.references)
        linked = {symbol: elf.calls(self.outside / DEBUG, symbol) for symbol in protector.present}
        for symbol, count in linked.items():
            if count != in_objects[symbol]:
                raise BuildFailed(
                    f"the kernel calls {symbol} {count} times, its objects {in_objects[symbol]} times",
                    component=DEBUG,
                )
        assembled = sum(not made.comments for made in kernel.values())
        return {
            "kernel": {**facts, "assembled": assembled, "linked": linked},
            "modules": {**of_modules, "files": len(list((self.outside / "usr").rglob("*.ko")))},
            "compiler": sorted({comment for made in kernel.values() for comment in made.comments}),
            "sections": elf.sizes(self.outside / DEBUG),
        }

    def _foreign(self, name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in self.own.foreign)

    def _linked(self) -> list[Path]:
        """The objects that the makefile links the kernel of."""
        inside = dataclasses.replace(self.sandbox, cwd=self.inside)
        argv = ["make", "-m", str(SRC / "share/mk"), "-V", "SYSTEM_OBJS"]
        done = process.run(inside.argv(argv), self.kitchen.deadline)
        names = [*(word for word in done.output.split() if word.endswith(".o")), "vers.o"]
        missing = [name for name in names if not (self.outside / name).is_file()]
        if done.status != 0 or missing:
            raise BuildFailed(f"{self.ident} is linked of objects that are not there", component="kernel",
                              tail=done.output[-2000:])  # fmt: skip
        return [self.outside / name for name in names]

    def install(self) -> None:
        """`make install` into `root/` of the kitchen's directory, with the log of what only root could do."""
        self.kitchen.say(f"{self.ident}: installing")
        part.begin(self.kitchen, self.sandbox, self.here.objects)
        beside = [self.here.objects / part.ROOT / name for name in self.own.beside]
        for path in beside:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        self._make(("install",), component="install", flags=self.own.install, variables=part.DESTINATION)
        for path in beside:
            path.unlink()
        out = self.kitchen.directory
        part.finish(self.here.objects, out)
        shutil.copyfile(self.outside / DEBUG, out / DEBUG)
        shutil.copyfile(self._outside(_CONF) / self.ident, out / CONFIGURATION)
