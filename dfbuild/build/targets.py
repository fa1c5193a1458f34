"""What builds a family of operating systems, and the one that builds a release.

Every target is a package below `dfbuild.build`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Protocol, runtime_checkable

from dfbuild.build.bench import Machine, no_machine
from dfbuild.build.recipe import Artefact, Recipe
from dfbuild.errors import UsageError
from dfbuild.model import Cell, Media, Refusal, Variant
from dfbuild.releases import Release
from dfbuild.source import Tree
from dfbuild.workspace import Workspace


class Built(StrEnum):
    """Where kernels and worlds are built: the values of `--build`."""

    CROSS = "cross"
    """Both on this host."""
    NATIVE = "native"
    """Kernels in a guest that was cross-built before, by the tree's own make(1)."""
    NATIVE_WORLD = "native-world"
    """Worlds as well."""


class Target(Protocol):
    """Knows how one family of operating systems is built. One package below `dfbuild.build` implements it."""

    def image(self, release: Release, cell: Cell, workspace: Workspace) -> Recipe:
        """The recipe of the bootable image of `cell`, with everything it needs below it. Makes nothing."""
        ...

    def refuse(self, release: Release, cell: Cell) -> Refusal | None:
        """A reason why this cell can't be built that the release's data cannot express."""
        ...

    def media(self, release: Release, cell: Cell, image: Artefact, workspace: Workspace) -> Media:
        """What the guest of `cell` boots from, once its image is made."""
        ...


@runtime_checkable
class LiveTarget(Protocol):
    """A `Target` whose systems run from a CD as well."""

    def live(self, release: Release, variant: Variant) -> Recipe:
        """The recipe of a CD with the live system of `variant`. Makes nothing; raises `UsageError` for none."""
        ...

    def live_media(self, release: Release, made: Artefact) -> tuple[Release, Media]:
        """What a guest of that CD boots from, and `release` with the boot stages that it shows then."""
        ...


@runtime_checkable
class ProgramsTarget(Protocol):
    """A `Target` that can put the suites' programs on a CD."""

    def programs(self, release: Release, variant: Variant) -> Recipe:
        """The recipe of `PROGRAMS`, with what the release has in its `probes`, as `variant` compiles it."""
        ...


def open_none() -> tuple[Tree, Tree]:
    """For callers that have no source tree to offer."""
    raise UsageError("no source tree is named", hint="name one with --src, or set DFBUILD_SRC")


def target(
    release: Release,
    trees: Callable[[], tuple[Tree, Tree]] = open_none,
    machine: Machine = no_machine,
    built: Built = Built.CROSS,
) -> Target:
    """The `Target` of `release`, made by the package below `dfbuild.build` that its data names.

    Releases that are built from source get the trees of kernel and userland that `trees` opens; it is not called
    for others. `machine` boots guests, for what only they can build, and for what is to be `built` there.
    Raises `UsageError` where nothing can be.
    """
    name = f"{__package__}.{release.target}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UsageError(f"release {release.name!r}: there is no target {release.target!r}") from error
    if not hasattr(module, "Target"):
        raise UsageError(
            f"release {release.name!r}: dfbuild can't build images of its target {release.target!r} yet"
        )
    if release.source is None and built is not Built.CROSS:
        raise UsageError(f"nothing of {release.title} is built in a guest", hint=f"leave `--build {built}` out")
    found: Target = module.Target() if release.source is None else module.Target(*trees(), machine, built)
    return found


def undriven(cell: Cell, **known: Collection[str]) -> Refusal | None:
    """Refuses a shape with a device (`disk`, `nic`, `console`) that is none of those `known` of its kind."""
    for kind, models in known.items():
        model = getattr(cell.shape, kind)
        if model not in models:
            what = f"guests of {cell.variant.release} are not made for {kind} {model!r}"
            return Refusal(cell, f"{what}, only for {', '.join(models)}")
    return None
