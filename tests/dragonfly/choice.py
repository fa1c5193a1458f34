"""What of a release these tests build, where one of each kind is enough: whatever the release calls it."""

from __future__ import annotations

from dfbuild.build.dragonfly import data
from dfbuild.releases import Release


def compiler(release: Release) -> str:
    """The first of the tree's own compilers that can protect stacks."""
    build = data.of(release)
    return next(name for name in build.native if build.compilers[name].protector != "never")


def protector(release: Release) -> str:
    """The setting with which kernel and world are protected."""
    return next(
        name
        for name, setting in release.stack_protectors.items()
        if setting.of_kernel.present and setting.of_world.present
    )


def kernel(release: Release) -> str:
    """The first kernel: the release's own as it stands."""
    return next(iter(release.kernels))
