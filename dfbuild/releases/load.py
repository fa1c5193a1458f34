"""Find and read a release's TOML."""

from __future__ import annotations

import functools
from importlib import resources
from pathlib import Path
from typing import Any

from dfbuild import toml
from dfbuild.errors import UsageError
from dfbuild.releases.check import problems
from dfbuild.releases.schema import Release

_SUFFIX = ".toml"


def available() -> tuple[str, ...]:
    """The names of the releases that dfbuild knows."""
    files = resources.files(__package__)
    return tuple(sorted(f.name.removesuffix(_SUFFIX) for f in files.iterdir() if f.name.endswith(_SUFFIX)))


def load(name: str, directory: Path = Path()) -> Release:
    """The release called `name`, or the one in the file that `name` is the path of, from `directory`.

    A path has a slash in it or ends in `.toml`. Raises `UsageError` with the nearest known name, or `InvalidFile`
    with everything that is wrong in the file.
    """
    if "/" in name or name.endswith(_SUFFIX):
        return _checked(toml.Document.read(directory / Path(name).expanduser()))
    return _known(name)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of release files."""
    return toml.json_schema(Release)


@functools.cache
def _known(name: str) -> Release:
    if name not in available():
        hint = f"{toml.nearest(name, available())} (a file of your own is named by a path: ./{name}.toml)"
        raise UsageError(f"unknown release {name!r}", hint=hint)
    with resources.as_file(resources.files(__package__).joinpath(name + _SUFFIX)) as path:
        return _checked(toml.Document.read(path))


def _checked(document: toml.Document) -> Release:
    release = document.validate(Release)
    found = problems(release, document)
    if found:
        raise toml.InvalidFile(found)
    return release
