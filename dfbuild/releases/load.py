"""Find and read a release's TOML."""

from __future__ import annotations

import difflib
import functools
import tomllib
from importlib import resources

from dfbuild.errors import UsageError
from dfbuild.releases.schema import Release

_SUFFIX = ".toml"


def available() -> tuple[str, ...]:
    """The names of the releases that dfbuild knows."""
    files = resources.files(__package__)
    return tuple(sorted(f.name.removesuffix(_SUFFIX) for f in files.iterdir() if f.name.endswith(_SUFFIX)))


@functools.cache
def load(name: str) -> Release:
    """The release called `name`; raises `UsageError` with the nearest known name."""
    if name not in available():
        near = difflib.get_close_matches(name, available(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(available())}"
        raise UsageError(f"unknown release {name!r}", hint=hint)
    text = resources.files(__package__).joinpath(name + _SUFFIX).read_text(encoding="utf-8")
    return Release.model_validate(tomllib.loads(text))
