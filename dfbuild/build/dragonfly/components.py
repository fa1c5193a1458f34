"""The userland, component by component, built by the tree's own makefiles in the order of its Makefile.inc1."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfbuild.build import step
from dfbuild.build.dragonfly import data, within
from dfbuild.build.dragonfly.layout import OBJ, SRC, Places
from dfbuild.build.recipe import Kitchen
from dfbuild.errors import BuildFailed
from dfbuild.sandbox import Sandbox

INSTALL_FLAGS = ("SHARED=copies",)
"""For make(1), wherever headers are installed."""
_DONE = ".done"
"""Directory of the object tree with a file for each stage that need not be gone through again."""
_LIBRARY_FLAGS = ("-DNOHTML", "-DNOINFO", "-DNOMAN", "-DNOFSCHG")
_HIERARCHY = {"BSD.root.dist": "", "BSD.usr.dist": "usr", "BSD.include.dist": "usr/include"}


@dataclass(slots=True)
class Site:
    """A world that is being built in `objects`, which the sandbox has at `layout.OBJ`."""

    kitchen: Kitchen
    objects: Path
    sandbox: Sandbox
    world: data.World
    places: Places
    compiler: data.Compiler
    """The world's."""
    components: list[str] = field(default_factory=list)
    """Directories of the tree, in its order."""
    failed: dict[str, BuildFailed] = field(default_factory=dict)
    again: list[str] = field(default_factory=list)

    @property
    def exempt(self) -> dict[str, str]:
        """What may fail or be missing ▸ why."""
        return {one.name: one.reason for one in self.world.exempt}

    @property
    def compiled(self) -> Path:
        """Where the object directories of the tree lie."""
        return self.objects / self.places.world.relative_to(OBJ) / SRC.relative_to("/")

    def build(self, chosen: str) -> dict[str, Any]:
        """All stages up to the last object; returns facts. Raises `BuildFailed` naming what failed."""
        self.once("hierarchy", self._hierarchy)
        self.once("object directories", lambda: self._all("object directories", "par-obj"))
        self.once("headers", lambda: self._all("headers", "par-includes", *INSTALL_FLAGS))
        for directory, compiler in (
            *self.world.startup.items(),
            *((name, chosen) for name in self.world.libraries),
        ):
            self.once(directory, functools.partial(self._library, directory, compiler))
        found = (name for top in self._subdirectories("") for name in self._components(top))
        self.components = list(dict.fromkeys(found))  # some are named twice
        self.each("building", self._component, self.components)
        for name in sorted(self.failed):
            self.kitchen.say(f"{name} failed, once more by itself")
            shutil.rmtree(self.compiled / name, ignore_errors=True)
            try:
                self._component(name)
            except BuildFailed as error:
                self.failed[name] = error
            else:
                del self.failed[name]
                self.again.append(name)
        self.judge()
        return {
            "components": len(self.components),
            "failed": {name: self.exempt[name] for name in self.failed},
            "again with one job": self.again,
        }

    def judge(self) -> None:
        """Raise `BuildFailed` if something failed that may not."""
        bad = [name for name in sorted(self.failed) if name not in self.exempt]
        if bad:
            first = self.failed[bad[0]]
            raise BuildFailed(
                f"{len(bad)} of {len(self.components)} components failed: {', '.join(bad)}",
                component=bad[0],
                log=first.log,
                tail=first.tail,
            )

    def once(self, stage: str, work: Callable[[], None]) -> None:
        """Do `work` unless an attempt before this one did it in the same object tree.

        What is installed again looks newer than what was made with it, and make(1) would make all of that anew.
        """
        done = self.objects / _DONE / stage.replace("/", "-")
        if not done.exists():
            work()
            done.parent.mkdir(exist_ok=True)
            done.touch()

    def _hierarchy(self) -> None:
        """The directories that headers and libraries are put into, as `make _worldtmp` lays them out."""
        for file, below in _HIERARCHY.items():
            (self.objects / (self.places.world / below).relative_to(OBJ)).mkdir(parents=True, exist_ok=True)
            argv = ["mtree", "-deU", "-f", str(SRC / "etc/mtree" / file), "-p", str(self.places.world / below)]
            step.run(self.kitchen, self.sandbox, argv, "hierarchy")

    def _all(self, what: str, target: str, *flags: str) -> None:
        self.kitchen.say(what)
        argv = ["make", "-m", str(SRC / "share/mk"), "-f", "Makefile.inc1", *flags, target]
        step.run(self.kitchen, self.at("", {"DESTDIR": str(self.places.world)}), argv, target)

    def _library(self, directory: str, compiler: str) -> None:
        """One step of the tree's `libraries` target: what others are linked with is installed where they look."""
        self.kitchen.say(directory)
        if within.make(
            self.kitchen, self.sandbox, directory, ("depend", "all", "install"), flags=_LIBRARY_FLAGS,
            variables=self.variables(directory, compiler), jobs=within.jobs(),
            component=f"library {directory}",
        ):  # fmt: skip
            self.again.append(directory)

    def _component(self, name: str) -> None:
        within.make(
            self.kitchen,
            self.sandbox,
            name,
            ("obj", "depend", "all"),
            variables=self.variables(name),
        )

    def variables(self, directory: str, compiler: str = "") -> dict[str, str]:
        """What make(1) is told in `directory`: where libraries are, and with which compiler, if not the world's."""
        compiler = self.compiler.instead(directory) or compiler
        return {"DESTDIR": str(self.places.world), **({"CCVER": compiler} if compiler else {})}

    def each(self, what: str, work: Callable[[str], None], names: Sequence[str]) -> None:
        """Do `work` with every name, several at a time. What fails is remembered, and the others go on."""

        def one(name: str) -> BuildFailed | None:
            try:
                work(name)
            except BuildFailed as error:
                return error
            return None

        with ThreadPoolExecutor(max_workers=within.jobs()) as pool:
            for count, (name, error) in enumerate(zip(names, pool.map(one, names), strict=True), 1):
                if error is not None:
                    self.failed[name] = error
                if count % 100 == 0:
                    self.kitchen.say(f"{what}: {count} of {len(names)} components, now at {name}")

    # ── the tree's own order ──

    def _subdirectories(self, directory: str) -> list[str]:
        """The variable SUBDIR of a directory's makefile, as paths in the tree."""
        file = () if directory else ("-f", "Makefile.inc1")
        out = self.output(["make", "-m", SRC / "share/mk", *file, "-V", "SUBDIR"], directory, "subdirectories")
        names = [f"{directory}/{name}" if directory else name for name in out.split()]
        machine = self.sandbox.environment["MACHINE_ARCH"]
        return [f"{name}.{machine}" if self._is_directory(f"{name}.{machine}") else name for name in names]

    def _components(self, directory: str) -> Iterator[str]:
        if directory in self.world.containers:
            for name in self._subdirectories(directory):
                yield from self._components(name)
        else:
            yield directory

    def _is_directory(self, name: str) -> bool:
        mounts = {mount.inside: mount.outside for mount in self.sandbox.mounts if mount.outside is not None}
        path = SRC / name
        outer = next((parent for parent in (path, *path.parents) if parent in mounts), None)
        return outer is not None and (mounts[outer] / path.relative_to(outer)).is_dir()

    # ── running ──

    def at(self, directory: str, variables: Mapping[str, str]) -> Sandbox:
        return dataclasses.replace(
            self.sandbox, cwd=SRC / directory, environment={**self.sandbox.environment, **variables}
        )

    def output(
        self, argv: Sequence[str | Path], directory: str, component: str, variables: Mapping[str, str] | None = None
    ) -> str:
        return step.output(self.kitchen, self.at(directory, variables or {}), argv, component)
