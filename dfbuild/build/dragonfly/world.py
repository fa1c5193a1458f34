"""The world: the whole userland of a release, cross-built and installed by its own makefiles, and what proves it.

The stages are those of the tree's Makefile.inc1. What it does as one chain is done here component by component (a
program, a library, a group of them that belong together), several at a time: what fails names itself, has its own
log, and does not keep the others from being built.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfbuild.build import step
from dfbuild.build.dragonfly import (
    coverage,
    data,
    edits,
    elf32,
    evidence,
    image,
    install,
    toolchain,
    within,
    worldkit,
)
from dfbuild.build.dragonfly.layout import KIT, OBJ, SRC, WORLD
from dfbuild.build.recipe import Kitchen, Recipe
from dfbuild.errors import BuildFailed
from dfbuild.model import StepKind
from dfbuild.releases import Release
from dfbuild.releases.schema import Protection
from dfbuild.sandbox import Mount, Sandbox
from dfbuild.source import Tree

_MAKE_CONF = OBJ / "make.conf"
_RAW_LOG = OBJ / "install.log"
_ROOT = OBJ / image.ROOT
_DONE = ".done"
"""Directory of the object tree with a file for each stage that need not be gone through again."""
_CFLAGS = "-O -pipe"
"""As sys.mk has it."""
_LIBRARY_FLAGS = ("-DNOHTML", "-DNOINFO", "-DNOMAN", "-DNOFSCHG")
_INSTALL_FLAGS = ("SHARED=copies",)
# Device nodes are the image's; and the makefile names programs of the system that it runs on.
_DISTRIBUTION_FLAGS = ("-DNO_MAKEDEV_RUN", "MAKEWHATIS=makewhatis")
_HIERARCHY = {"BSD.root.dist": "", "BSD.usr.dist": "usr", "BSD.include.dist": "usr/include"}


def recipe(release: Release, tree: Tree, name: str, protection: Protection) -> Recipe:
    """The world of `tree`, compiled by toolchain `name` with stack protection as `protection` says.

    `root/` is what `make installworld distribution` would have installed, without device nodes, `install.mtree` the
    log of owners, modes and flags: a part of an image. Facts: components, those that failed and are exempt, those
    that took a second attempt, coverage, proof of compiler and protector.
    """
    build, world = data.of(release), data.world(release)
    parts = within.Parts(tree, build, tuple(_top(tree.path, world.without)))
    kernel = tuple(kernel_files(tree.path, world.kernel))
    changes = kernel_edits(build.edits, tree.path, world.kernel)
    flags = release.toolchains[name].known(protection.flags)
    needs = (
        worldkit.recipe(release, tree),
        *(toolchain.recipe(release, tree, compiler) for compiler in build.compilers),
    )

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        with _kept(kitchen, kitchen.workspace.root / "objects" / kitchen.directory.name):
            return everything(kitchen)

    def everything(kitchen: Kitchen) -> Mapping[str, Any]:
        for path in kernel:
            _copy(tree.path / path, kitchen.directory / path)
        (kitchen.directory / "obj/make.conf").write_text(make_conf(flags, world.unprotected, world.options))
        sandbox = within.sandbox(
            kitchen,
            parts,
            Mount(KIT, kitchen.needs[0].path),
            tools=(
                Mount(SRC / "sys", kitchen.directory / "sys"),
                *edits.overlays(changes, tree.path, kitchen.directory / "edited"),
                *toolchain.mounts(kitchen.needs[1:]),
            ),
            ccver=name,
        )
        environment = {**sandbox.environment, "MAKEOBJDIRPREFIX": str(WORLD), "__MAKE_CONF": str(_MAKE_CONF)}
        for foreign in ("TOOLS_PREFIX", "USRDATA_PREFIX"):
            del environment[foreign]
        site = _Site(kitchen, dataclasses.replace(sandbox, environment=environment), world)
        facts = site.build(name)
        made = {
            **facts,
            **site.prove(release, name, protection),
            "coverage": site.install(build.epoch),
        }
        for rest in ("obj", "edited", "sys"):
            shutil.rmtree(kitchen.directory / rest)
        return made

    inputs = {
        **parts.inputs(),
        "kernel": _digest(tree.path, kernel),
        "world": {key: value for key, value in data.keyed(world, "options").items() if key != "kit"},
        "flags": list(flags),
        "proof": [release.toolchains[name].comment, protection.model_dump()],
        "form": 1,
    }
    if changes:
        inputs["kernel edits"] = edits.words(changes)
    return Recipe(StepKind.WORLD, label(name, protection), inputs, make, needs=needs, minutes=90)


def label(toolchain: str, protection: Protection) -> str:
    """What a world of `toolchain` is called: `gcc34+ssp`, and `gcc34` where nothing protects it."""
    return f"{toolchain}+ssp" if protection.present else toolchain


@contextlib.contextmanager
def _kept(kitchen: Kitchen, kept: Path) -> Iterator[None]:
    """The object tree `obj` of the kitchen's directory, which goes to `kept` if the build fails.

    The next attempt at the same world (the directory has its key for a name) goes on with what make(1) has done.
    """
    place = kitchen.directory / "obj"
    if kept.is_dir():
        kitchen.say("going on where the last attempt failed")
        kept.rename(place)
        shutil.rmtree(place / image.ROOT, ignore_errors=True)
        (place / _RAW_LOG.name).unlink(missing_ok=True)
    else:
        place.mkdir()
    try:
        yield
    except BuildFailed:
        kept.parent.mkdir(parents=True, exist_ok=True)
        place.rename(kept)
        raise


# ── what it is made of ────────────────────────────────────────────────────────────────────────────────────────────


def _top(tree: Path, without: Sequence[str]) -> Iterator[str]:
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
        total.update(f"{name}\0{path.stat().st_mode & 0o100}\0".encode())
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


# ── how ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Site:
    """A world that is being built."""

    kitchen: Kitchen
    sandbox: Sandbox
    world: data.World
    components: list[str] = field(default_factory=list)
    failed: dict[str, BuildFailed] = field(default_factory=dict)
    again: list[str] = field(default_factory=list)

    # ── building ──

    def build(self, chosen: str) -> dict[str, Any]:
        """All stages up to the last object; returns facts. Raises `BuildFailed` naming what failed."""
        self._once("hierarchy", self._hierarchy)
        self._once("object directories", lambda: self._all("object directories", "par-obj"))
        self._once("headers", lambda: self._all("headers", "par-includes", *_INSTALL_FLAGS))
        for directory, compiler in (
            *self.world.startup.items(),
            *((name, chosen) for name in self.world.libraries),
        ):
            self._once(directory, functools.partial(self._library, directory, compiler))
        found = (name for top in self._subdirectories("") for name in self._components(top))
        self.components = list(dict.fromkeys(found))  # some are named twice
        self._each("building", self._component, self.components)
        for name in sorted(self.failed):
            self.kitchen.say(f"{name} failed, once more by itself")
            shutil.rmtree(self._objects(name), ignore_errors=True)
            try:
                self._component(name)
            except BuildFailed as error:
                self.failed[name] = error
            else:
                del self.failed[name]
                self.again.append(name)
        self._judge()
        exempt = {one.name: one.reason for one in self.world.exempt}
        return {
            "components": len(self.components),
            "failed": {name: exempt[name] for name in self.failed},
            "again with one job": self.again,
        }

    def _judge(self) -> None:
        """Raise `BuildFailed` if something failed that may not."""
        exempt = {one.name for one in self.world.exempt}
        bad = [name for name in sorted(self.failed) if name not in exempt]
        if bad:
            first = self.failed[bad[0]]
            raise BuildFailed(
                f"{len(bad)} of {len(self.components)} components failed: {', '.join(bad)}",
                component=bad[0],
                log=first.log,
                tail=first.tail,
            )

    def _once(self, stage: str, work: Callable[[], None]) -> None:
        """Do `work` unless an attempt before this one did it in the same object tree.

        What is installed again looks newer than what was made with it, and make(1) would make all of that anew.
        """
        done = self.kitchen.directory / "obj" / _DONE / stage.replace("/", "-")
        if not done.exists():
            work()
            done.parent.mkdir(exist_ok=True)
            done.touch()

    def _hierarchy(self) -> None:
        """The directories that headers and libraries are put into, as `make _worldtmp` lays them out."""
        for file, below in _HIERARCHY.items():
            (self.kitchen.directory / "obj" / (WORLD / below).relative_to(OBJ)).mkdir(parents=True, exist_ok=True)
            argv = ["mtree", "-deU", "-f", str(SRC / "etc/mtree" / file), "-p", str(WORLD / below)]
            step.run(self.kitchen, self.sandbox, argv, "hierarchy")

    def _all(self, what: str, target: str, *flags: str) -> None:
        self.kitchen.say(what)
        argv = ["make", "-m", str(SRC / "share/mk"), "-f", "Makefile.inc1", *flags, target]
        step.run(self.kitchen, self._at("", {"DESTDIR": str(WORLD)}), argv, target)

    def _library(self, directory: str, compiler: str) -> None:
        """One step of the tree's `libraries` target: what others are linked with is installed where they look."""
        self.kitchen.say(directory)
        if within.make(
            self.kitchen, self.sandbox, directory, ("depend", "all", "install"), flags=_LIBRARY_FLAGS,
            variables={"DESTDIR": str(WORLD), "CCVER": compiler}, jobs=within.jobs(),
            component=f"library {directory}",
        ):  # fmt: skip
            self.again.append(directory)

    def _component(self, name: str) -> None:
        within.make(self.kitchen, self.sandbox, name, ("obj", "depend", "all"), variables={"DESTDIR": str(WORLD)})

    def _each(self, what: str, work: Callable[[str], None], names: Sequence[str]) -> None:
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
        out = self._output(["make", "-m", SRC / "share/mk", *file, "-V", "SUBDIR"], directory, "subdirectories")
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

    # ── installing ──

    def install(self, epoch: int) -> dict[str, Any]:
        """`installworld` and `distribution` into `root/` of the kitchen's directory; returns the coverage."""
        root = self.kitchen.directory / "obj" / image.ROOT
        for below in ("", "etc", "usr/include", "var"):
            (root / below).mkdir(parents=True, exist_ok=True)
        variables = {"DESTDIR": str(_ROOT), "METALOG": str(_RAW_LOG)}
        self.kitchen.say("directories")
        within.make(
            self.kitchen, self.sandbox, "etc", ("distrib-dirs",), variables=variables, component="install hierarchy"
        )
        # One after the other: some add to files of others, and in what order shows.
        for count, name in enumerate(self.components, 1):
            if name in self.failed:
                continue
            if count % 100 == 0:
                self.kitchen.say(f"installing: {count} of {len(self.components)} components, now at {name}")
            within.make(
                self.kitchen, self.sandbox, name, ("install",), flags=_INSTALL_FLAGS, variables=variables,
                component=f"install {name}",
            )  # fmt: skip
        self.kitchen.say("distribution")
        within.make(
            self.kitchen, self.sandbox, "etc", ("distribution",), flags=_DISTRIBUTION_FLAGS, variables=variables,
            component="install distribution",
        )  # fmt: skip
        facts = self._coverage(root)
        install.undate(root, epoch)
        raw = (self.kitchen.directory / "obj" / _RAW_LOG.name).read_text(errors="surrogateescape")
        merged = install.merge(install.parse(raw, str(_ROOT)), install.survey(root))
        (self.kitchen.directory / image.LOG).write_text(install.log(merged), errors="surrogateescape")
        root.rename(self.kitchen.directory / image.ROOT)
        return {"files": len(merged), **facts}

    def _coverage(self, root: Path) -> dict[str, Any]:
        self.kitchen.say("comparing with what the makefiles name")
        variables = {"DESTDIR": str(_ROOT)}
        told: set[str] = set()

        def one(name: str) -> None:
            place = Path(f"coverage-{name.replace('/', '-')}.sh")
            out = self._output(["sh", "-c", coverage.DRY_RUN, "sh", name], "", f"coverage {name}", variables)
            (self.kitchen.directory / "obj" / place).write_text(
                coverage.script(out, f"{WORLD}{SRC}"), errors="surrogateescape"
            )
            inside = dataclasses.replace(
                self._at("", variables),
                mounts=tuple(dataclasses.replace(mount, writable=False) for mount in self.sandbox.mounts),
                writable=(self.kitchen.directory / "told",),
            )
            told.update(coverage.told(self._captured(inside, ["sh", OBJ / place], f"told {name}"), str(_ROOT)))

        (self.kitchen.directory / "told").mkdir()
        self._each("comparing", one, self.components)
        (self.kitchen.directory / "told").rmdir()
        self._judge()
        exempt = {one.name: one.reason for one in self.world.exempt}
        return coverage.compare(told, install.survey(root), exempt)

    # ── proof ──

    def prove(self, release: Release, chosen: str, protection: Protection) -> dict[str, Any]:
        """What the objects say of compiler and protector."""
        self.kitchen.say("reading the objects")
        place = self.kitchen.directory / "obj" / WORLD.relative_to(OBJ) / SRC.relative_to("/")
        symbols = {*protection.present, *protection.absent}
        objects = {
            path.relative_to(place).as_posix(): elf32.objects(path, symbols)
            for path in sorted(place.rglob("*.o"))
            if path.is_file()
        }
        return evidence.prove(
            objects,
            release.toolchains,
            chosen,
            protection,
            compilers=self.world.compilers,
            unprotected=self.world.unprotected,
        )

    # ── running ──

    def _objects(self, name: str) -> Path:
        return self.kitchen.directory / "obj" / WORLD.relative_to(OBJ) / SRC.relative_to("/") / name

    def _at(self, directory: str, variables: Mapping[str, str]) -> Sandbox:
        return dataclasses.replace(
            self.sandbox, cwd=SRC / directory, environment={**self.sandbox.environment, **variables}
        )

    def _output(
        self, argv: Sequence[str | Path], directory: str, component: str, variables: Mapping[str, str] | None = None
    ) -> str:
        return self._captured(self._at(directory, variables or {}), argv, component)

    def _captured(self, sandbox: Sandbox, argv: Sequence[str | Path], component: str) -> str:
        """What a command prints, which its log has too."""
        log = step.component_log(self.kitchen, component)
        start = log.stat().st_size if log.exists() else 0
        step.run(self.kitchen, sandbox, argv, component)
        with log.open(errors="surrogateescape") as file:
            file.seek(start)
            file.readline()
            return file.read()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
