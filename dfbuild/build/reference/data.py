"""The part of `releases/reference.toml` that only this target reads."""

from __future__ import annotations

from pydantic import Field

from dfbuild.releases import Release, build_table
from dfbuild.releases.schema import Strict


class Compile(Strict):
    """How the world is compiled, whatever the compiler and the protector."""

    object_flags: tuple[str, ...] = ()
    program_flags: tuple[str, ...] = ()
    """For linking programs that run on the root file system."""
    init_flags: tuple[str, ...] = ()
    """For linking process 1, which runs before there is a root file system with libraries."""
    libraries: tuple[str, ...] = ()


class Build(Strict):
    """Table `[build]`."""

    kernel: str
    """Debian package of the kernel, or a meta-package that depends on the one."""
    kernel_follow: tuple[str, ...]
    """Beginnings of the names of dependencies to take along: the kernel's own parts."""
    packages: tuple[str, ...]
    """Debian packages that the userland is taken from."""
    packages_follow: tuple[str, ...]
    """Beginnings of the names of dependencies to take along: libraries."""
    install: dict[str, str]
    """Path in the guest ▸ path in the packages. Shared libraries come along by themselves."""
    modules: tuple[str, ...]
    """Kernel modules loaded at boot; what they depend on comes along."""
    fault_modules: tuple[str, ...] = ()
    """Kernel modules loaded only where `dfbuild.fault=` needs them."""
    disks: dict[str, str]
    """Values of `Shape.disk` that the modules drive ▸ what the kernel calls the first such disk."""
    nics: tuple[str, ...]
    """Values of `Shape.nic` that the modules drive."""
    consoles: dict[str, str]
    """Kernel console device by `Shape.console`."""
    append: str = ""
    """Kernel command line words of every guest."""
    disk_size: int = Field(default=1024, ge=64)
    """Size of the root file system in MiB."""
    epoch: int = 0
    """Seconds since 1970 that all files are dated with."""
    compile: Compile = Compile()


def of(release: Release) -> Build:
    """The validated `[build]` table of `release`."""
    return build_table(release, Build)
