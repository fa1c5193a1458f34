"""The part of a DragonFly release's TOML that says how its tree is built."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from dfbuild.build.dragonfly.layout import Places
from dfbuild.errors import UsageError
from dfbuild.releases import Release, build_table
from dfbuild.releases.schema import Name, Stage, Strict, Text

_Part = TypeVar("_Part")


class Edit(Strict):
    """A change to one file without which the tree does not build on this host. Never made in the tree itself."""

    file: Text
    find: Text
    """What stands there; it must."""
    put: str
    reason: Text
    regex: bool = False
    """`find` is a regular expression over the whole file, ^ and $ at lines, and `put` its replacement."""


class Kit(Strict):
    """What the host kit takes from the tree."""

    sources: tuple[str, ...]
    """All parts of the tree that are read while it is made; others are not there."""
    headers: tuple[str, ...]
    """Headers of the tree that the host lacks."""
    libc: tuple[str, ...]
    """C files of the tree's libc with functions that the host's lacks; the kit's compiler links them to all."""
    make: tuple[str, ...]
    """Compiler options for make(1), which no makefile can build yet. None where the host has that make."""
    scripts: dict[str, str]
    """Program ▸ the shell script in the tree that is it."""
    programs: dict[str, str] = Field(default_factory=dict)
    """Directory of the tree ▸ the program that its makefile builds. Built in this order."""
    bootstrap: tuple[str, ...] = ()
    """Those of them that are built with the program itself, and whose makefile has a target to do without."""
    libraries: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Directory of the tree ▸ the name that programs link it by ▸ the archive that its makefile builds."""


class Binutils(Strict):
    """A set of binary utilities, under the name that the tree gives it below `/usr/libexec`."""

    directories: tuple[str, ...]
    """Directories of the tree, built and installed in this order."""
    sources: tuple[str, ...]
    """All parts of the tree that are read while it is built; others are not there."""
    linker: Name = "ld"
    """The one of several that the tree takes for `ld`."""


class Compiler(Strict):
    """A compiler, under the name that the tree gives it below `/usr/libexec` (`CCVER`).

    A compiler of this host without `cxx` makes kernels only.
    """

    host: Text | None = None
    """The command of this host that it is; the tree's own compiler has none."""
    cxx: Text | None = None
    """The same for C++."""
    arguments: tuple[str, ...] = ()
    """What they are told every time, since they are made for another system.

    Its files lie in `{world}`, and headers of the compiler itself, for what is built into it, in `{headers}`.
    """
    cxx_arguments: tuple[str, ...] = ()
    """And for C++ before those."""
    last: tuple[str, ...] = ()
    """And behind all that the caller says: libraries are looked for where that says first."""
    linker: tuple[str, ...] = ()
    """Options with a word behind each that the tree's compilers know for the linker's, and it does not."""
    specs: Text | None = None
    """How gcc links for that system: spec strings of ours, a file of `images/dragonfly`."""
    world: Name | None = None
    """The compiler of the userland beside its kernels, if that is another one."""
    components: dict[str, Name] = Field(default_factory=dict)
    """Directory of the userland that it compiles ▸ the compiler that is taken there all the same."""
    binutils: Name
    directories: tuple[str, ...]
    sources: tuple[str, ...]
    version: Text
    """What `cc -v` says, a regular expression."""
    protector: Literal["asked", "unless", "never"]
    """It protects stacks when asked (`-fstack-protector`), unless asked not to, or has no such option."""
    edits: tuple[Edit, ...] = ()
    """What must change for its kernels alone."""

    def instead(self, directory: str) -> str | None:
        """The compiler that is taken in `directory` of the tree in place of this one, if another is."""
        for where, other in self.components.items():
            if PurePath(directory).is_relative_to(where):
                return other
        return None


class KitProgram(Strict):
    """Programs of one directory of the tree, built for this host."""

    names: tuple[str, ...] = ()
    """None where others only link what is built there."""
    headers: tuple[str, ...] = ()
    """Headers of the tree that this program has instead of the host's."""


class WorldKit(Strict):
    """What the world kit takes from the tree, beyond the host kit."""

    sources: tuple[str, ...]
    """All parts of the tree that are read while it is made; others are not there."""
    headers: dict[str, str]
    """Header of the tree ▸ its name on this host."""
    defines: dict[str, str] = Field(default_factory=dict)
    """Names that programs take from headers of their system ▸ what they are on this host."""
    libc: tuple[str, ...]
    """C files of the tree's libc with functions that the host's lacks."""
    libraries: dict[str, dict[str, str]] = Field(default_factory=dict)
    """As in `Kit`."""
    empty: tuple[str, ...] = ()
    """Libraries that programs name and do not need."""
    programs: dict[str, KitProgram]
    """Directory of the tree ▸ what its makefile builds. In this order."""


class Exempt(Strict):
    """A component of the world that may fail, or an installed file that may be missing."""

    name: Text
    """Directory of the tree, or path in the guest."""
    reason: Text


class World(Strict):
    """Table `[build.world]`: the userland."""

    kit: WorldKit
    without: tuple[str, ...]
    """Directories at the top of the tree that the world is not made of; of `sys` it has a part, see `kernel`."""
    kernel: tuple[str, ...]
    """Globs: what the userland needs of `sys` beyond headers and makefiles. Nothing else is there."""
    containers: tuple[str, ...]
    """Directories whose subdirectories are components on their own; all others are built as a whole."""
    startup: dict[str, Name]
    """Directory ▸ the compiler that it is built with whatever the world's is; before everything else."""
    libraries: tuple[str, ...]
    """Directories whose results others are linked with, in this order."""
    compilers: dict[str, Name] = Field(default_factory=dict)
    """Directory ▸ the compiler that the tree's own makefiles choose there."""
    unprotected: tuple[str, ...] = ()
    """Directories in which the tree's own makefiles choose for the stack protector."""
    handlers: tuple[str, ...] = ()
    """Globs: objects that hand on to the stack protector's handler, and refer to it whether it protects or not."""
    options: tuple[str, ...] = ()
    """Lines for make.conf(5): what the tree makes only of those who ask for it."""
    exempt: tuple[Exempt, ...] = ()


class KernelBuild(Strict):
    """Table `[build.kernel]`."""

    config: Text
    """The release's own configuration, a path in the tree."""
    directory: Text
    """Where config(8) runs."""
    sources: tuple[str, ...]
    """All parts of the tree that kernels and modules are built from; others are not there."""
    kit: WorldKit
    aicasm: str = ""
    """Directory of the assembler for Adaptec's controllers, which runs while kernels are built, if any."""
    added: dict[str, Text] = Field(default_factory=dict)
    """Source file that the tree lacks ▸ ours, of `images/dragonfly`."""
    install: tuple[str, ...] = ("-DINSTALLSTRIPPED", "-DNO_MODULES_OLD")
    """Words for make(1) where kernel and modules are installed."""
    beside: tuple[str, ...] = ()
    """Files of the world that must be there for that."""
    installed: Text = "kernel"
    """Where the kernel is then, below the root."""
    foreign: tuple[str, ...] = ()
    """Names of objects that are not of the compiler: carried by the tree as such, or run on this host."""


class Loaders(Strict):
    """Table `[build.efi]`: what UEFI firmware starts. `[build.iso.loader]`: what a CD's boot program loads.
    `[build.loader]`: what a disk's does in a guest of Xen."""

    sources: tuple[str, ...]
    """All parts of the tree that are read while it is built; others are not there."""
    directories: tuple[str, ...]
    """Directories of the tree, built in this order."""
    link: str = ""
    """Words for the compiler where it links."""
    programs: dict[str, Text]
    """Path in the guest ▸ the file that the makefiles make, named as if it were in the tree."""
    edits: tuple[Edit, ...] = ()
    """Beside those of `[build]`, and of no concern to the world."""


class Iso(Strict):
    """Table `[build.iso]`: a CD with the live system, and how that system installs itself."""

    skeleton: Text
    """Directory of the tree whose files lie over those of the world on the medium."""
    without: tuple[str, ...] = ()
    """Of them, what does not."""
    kept: dict[str, Text]
    """Directory of the world ▸ where on the medium it is as a disk's system needs it, whatever the live one has."""
    left: tuple[str, ...] = ()
    """Files and directories of the medium that a disk's system does not get."""
    boot: Text
    """What the BIOS starts."""
    libraries: tuple[str, ...] = ()
    """Directories of the tree, built before the programs of `[build.efi]` where these are for a CD: what they are
    linked with, as `loader` edits it."""
    loader: Loaders
    serial: tuple[Stage, ...] = ()
    """How the loader of a CD that is not ours is told of the serial console, after the first of `stages`."""
    stages: tuple[Stage, ...]
    """How the live system boots, in place of `console.stages`."""
    silence: Annotated[float, Field(gt=0)] = 120.0
    """As `console.silence`: a boot program that reads sector by sector says nothing meanwhile."""
    root: int = Field(default=6144, ge=256)
    """MiB of the root file system that is installed: others' media have packages and sources on them."""
    minutes: Annotated[float, Field(gt=0)] = 10.0
    """How long an installation may take on an accelerated guest."""


class Hammer2(Strict):
    """Table `[build.image.hammer2]`: a disk whose root is HAMMER2, in MiB. Swap is as on any other."""

    boot: int = Field(default=256, ge=32, le=1900)
    """The UFS that is `/boot`."""
    root: int = Field(default=4096, ge=1024)
    """The root. Little of it is ever there: what is not written costs nothing."""
    minutes: Annotated[float, Field(gt=0)] = 10.0
    """How long an accelerated guest may take to fill it."""


class Image(Strict):
    """The guest's disk, in MiB."""

    root: int = Field(default=768, ge=32, le=1900)
    """The root file system, everything but swap in it. makefs writes none of 2 GB."""
    swap: int = Field(default=128, ge=0)
    epoch: int = Field(default=1, gt=0)
    """Seconds since 1970, the date of all files. Not 0: make(1) takes what has that for what is not there."""
    label: Literal[32, 64] = 32
    """Which disk label a disk for a BIOS has."""
    disks: dict[str, Name] = Field(default_factory=dict)
    """Disk model of a shape ▸ the guest's name for its first disk."""
    management: tuple[Name, ...] = ("em0",)
    """Names that the first network interface may have in the guest, by its driver."""
    delay: int = Field(default=0, ge=0)
    """The least number of seconds that its loader can be told to wait for a key."""
    makedev: bool = True
    """Whether device nodes are made once and for all, by `/dev/MAKEDEV`."""
    hammer2: Hammer2 | None = None
    """Where the kernel does not know that file system, there is none."""


class Build(Strict):
    """Table `[build]`."""

    sources: tuple[str, ...]
    """Parts of the tree that every makefile reads."""
    flags: tuple[str, ...]
    """Words for make(1) wherever tools for this host are built, as the tree's cross-tools stage has them."""
    kit: Kit
    binutils: dict[Name, Binutils]
    compilers: dict[Name, Compiler]
    edits: tuple[Edit, ...] = ()
    world: World | None = None
    """Where none is known to build, there is none."""
    kernel: KernelBuild | None = None
    efi: Loaders | None = None
    """Where the tree has no such thing, there is none."""
    loader: Loaders | None = None
    """Of guests of Xen; where there is none, these have the world's own."""
    iso: Iso | None = None
    """Where the tree knows how to install itself, and it is known how."""
    image: Image = Image()
    epoch: int = 0
    """Seconds since 1970 that whatever wants a date gets."""
    machine: Name = "i386"
    """As the tree's makefiles call it."""
    platform: str = ""
    """The same, where they know of platforms."""
    tests: tuple[str, ...] = ()
    """Directories of the tree with tests of its own: guests get them below `/usr/src`."""

    @property
    def places(self) -> Places:
        return Places(self.machine, self.platform)

    def userland(self, ccver: str) -> str:
        """The compiler of the world that goes with kernels of `ccver`."""
        return self.compilers[ccver].world or ccver

    @property
    def native(self) -> tuple[str, ...]:
        """The tree's own compilers, all of them parts of its world."""
        return tuple(name for name, compiler in self.compilers.items() if compiler.host is None)

    def compilers_of(self, ccver: str) -> tuple[str, ...]:
        """All compilers that a world of `ccver` is made with or has in it."""
        return tuple(dict.fromkeys([*self.native, ccver]))

    def environment(self, ccver: str = "") -> dict[str, str]:
        """The environment of make(1), see `Places.environment`."""
        binutils = self.compilers[ccver].binutils if ccver else ""
        return self.places.environment(self.epoch, ccver, binutils)


def of(release: Release) -> Build:
    """The `[build]` table of `release`; raises `UsageError` for one that cannot be used."""
    build = build_table(release, Build)
    for name in build.compilers:
        if name not in release.toolchains:
            raise UsageError(
                f"release {release.name}: a compiler is built that is no toolchain",
                hint=f"leave out build.compilers.{name}, and what refers to it",
                key=f"build.compilers.{name}",
            )
    for name in release.toolchains:
        if name not in build.compilers:
            raise UsageError(
                f"release {release.name}: nothing says how the toolchain {name!r} is built",
                hint=f"it needs a table build.compilers.{name}",
                key=f"toolchains.{name}",
            )
    for name, compiler in build.compilers.items():
        if compiler.binutils not in build.binutils:
            raise UsageError(
                f"release {release.name}: there are no binary utilities {compiler.binutils!r}",
                hint=f"one of {', '.join(build.binutils)}",
                key=f"build.compilers.{name}.binutils",
            )
        for key, others in (("world", [compiler.world]), ("components", compiler.components.values())):
            if unknown := next((other for other in others if other and other not in build.native), None):
                raise UsageError(
                    f"release {release.name}: {unknown!r} is none of the tree's own compilers",
                    hint=f"one of {', '.join(build.native)}",
                    key=f"build.compilers.{name}.{key}",
                )
    return build


def _known(part: _Part | None, table: str, otherwise: str) -> _Part:
    if part is None:
        raise UsageError(f"{otherwise}: its data have no [build.{table}]")
    return part


def world(release: Release) -> World:
    """Its part about the userland; raises `UsageError` where there is none."""
    return _known(of(release).world, "world", f"how the world of {release.title} is built is not known")


def kernel(release: Release) -> KernelBuild:
    """Its part about the kernel; raises `UsageError` where there is none."""
    return _known(of(release).kernel, "kernel", f"how kernels of {release.title} are built is not known")


def efi(release: Release) -> Loaders:
    """Its part about UEFI; raises `UsageError` where there is none."""
    return _known(of(release).efi, "efi", f"{release.title} has nothing that UEFI firmware could start")


def loader(release: Release) -> Loaders:
    """Its part about a loader beside the world's; raises `UsageError` where there is none."""
    return _known(of(release).loader, "loader", f"{release.title} has no loader but its world's")


def iso(release: Release) -> Iso:
    """Its part about CDs; raises `UsageError` where there is none."""
    return _known(of(release).iso, "iso", f"{release.title} has no live system that dfbuild knows of")


def cd_efi(release: Release) -> Loaders:
    """What UEFI firmware starts from a CD; raises `UsageError` where there is none.

    The programs of `[build.efi]`, with what must change in the loader that a BIOS starts from one.
    """
    disk, cd = efi(release), iso(release)
    return disk.model_copy(
        update={
            "sources": tuple(dict.fromkeys([*disk.sources, *cd.loader.sources])),
            "directories": (*cd.libraries, *disk.directories),
            "edits": (*disk.edits, *cd.loader.edits),
        }
    )


def hammer2(release: Release) -> Hammer2:
    """Its part about HAMMER2; raises `UsageError` where there is none."""
    found = of(release).image.hammer2
    return _known(found, "image.hammer2", f"{release.title} has no HAMMER2 that dfbuild knows of")
