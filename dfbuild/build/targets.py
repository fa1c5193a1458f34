"""Find the package that builds a release."""

from __future__ import annotations

import importlib

from dfbuild.build.recipe import Target
from dfbuild.errors import UsageError
from dfbuild.releases import Release


def target(release: Release) -> Target:
    """The `Target` of `release`: `Target()` of the package below `dfbuild.build` that its data names."""
    name = f"{__package__}.{release.target}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UsageError(f"release {release.name!r}: there is no target {release.target!r}") from error
    found: Target | None = getattr(module, "Target", None) and module.Target()
    if found is None:
        raise UsageError(
            f"release {release.name!r}: dfbuild can't build images of its target {release.target!r} yet"
        )
    return found
