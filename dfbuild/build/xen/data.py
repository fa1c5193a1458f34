"""What `images/xen/host.toml` may say."""

from __future__ import annotations

from dfbuild.releases.schema import Strict


class HostFile(Strict):
    """The file."""

    kernel: str
    """Debian package of dom0's kernel, or a meta-package that depends on the one."""
    kernel_follow: tuple[str, ...]
    """Beginnings of the names of dependencies to take along: the kernel's own parts."""
    modules: tuple[str, ...]
    """Kernel modules loaded at boot; what they depend on comes along."""
    packages: tuple[str, ...]
    """Debian packages that the hypervisor and dom0's programs are taken from."""
    packages_follow: tuple[str, ...]
    """Beginnings of the names of dependencies to take along: libraries."""
    xen: str
    """The hypervisor's path in the packages, compressed by gzip."""
    epoch: int
    """Seconds since 1970 that all files are dated with."""
    links: dict[str, str]
    """Path in dom0 ▸ what the link there leads to."""
    install: dict[str, str]
    """Path in dom0 ▸ path in the packages. Shared libraries come along by themselves."""
