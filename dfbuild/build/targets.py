"""Find the package that builds a release."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from dfbuild.build.recipe import Machine, Target, no_machine
from dfbuild.errors import UsageError
from dfbuild.releases import Release
from dfbuild.source import Tree


def open_none() -> tuple[Tree, Tree]:
    """For callers that have no source tree to offer."""
    raise UsageError("no source tree is named", hint="name one with --src, or set DFBUILD_SRC")


def target(
    release: Release,
    trees: Callable[[], tuple[Tree, Tree]] = open_none,
    machine: Machine = no_machine,
    *,
    native: bool = False,
) -> Target:
    """The `Target` of `release`, made by the package below `dfbuild.build` that its data names.

    Releases that are built from source get the trees of kernel and userland that `trees` opens; it is not called
    for others. `machine` boots guests, for what only they can build; if `native`, for all that they can build.
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
    if release.source is None and native:
        raise UsageError(f"nothing of {release.title} is built in a guest", hint="leave `--build native` out")
    found: Target = module.Target() if release.source is None else module.Target(*trees(), machine, native=native)
    return found
