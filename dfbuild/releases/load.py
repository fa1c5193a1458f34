"""Find and read a release's TOML, and those of the releases that it is like."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from dfbuild import toml
from dfbuild.errors import UsageError
from dfbuild.releases.check import problems
from dfbuild.releases.schema import Heir, Release

_SHIPPED = Path(__file__).parent
_SUFFIX = ".toml"


def available() -> tuple[str, ...]:
    """The names of the releases that dfbuild knows."""
    return tuple(sorted(file.stem for file in _SHIPPED.glob(f"*{_SUFFIX}")))


def load(name: str, directory: Path = Path()) -> Release:
    """The release called `name`, or the one in the file that `name` is the path of, from `directory`.

    A path has a slash in it or ends in `.toml`. Raises `UsageError` with the nearest known name, or `InvalidFile`
    with everything that is wrong in the file.
    """
    path = _find(name, directory)
    return _shipped(path) if path.parent == _SHIPPED else _checked(_read(path, ()))


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of release files."""
    return toml.json_schema(Release)


def _find(name: str, directory: Path) -> Path:
    if "/" in name or name.endswith(_SUFFIX):
        return directory / Path(name).expanduser()
    if name not in available():
        hint = f"{toml.nearest(name, available())} (a file of your own is named by a path: ./{name}.toml)"
        raise UsageError(f"unknown release {name!r}", hint=hint)
    return _SHIPPED / f"{name}{_SUFFIX}"


@functools.cache
def _shipped(path: Path) -> Release:
    return _checked(_read(path, ()))


def _read(path: Path, heirs: tuple[Path, ...]) -> toml.Document:
    """The document at `path`, with what it has from the one that it is like. `heirs` have it from this one."""
    own = toml.Document.read(path)
    like = own.validate(Heir).like
    if like is None:
        return own
    heirs = (*heirs, path.resolve())
    place = ("like", "release")
    try:
        other = _find(like.release, path.parent)
    except UsageError as error:
        raise toml.InvalidFile([own.problem(place, error.message, hint=error.hint)]) from error
    if other.resolve() in heirs:
        raise toml.InvalidFile([own.problem(place, f"{like.release} is like {path.name}", hint="one is the first")])
    return toml.inherit(own, _read(other, heirs), like.without, ("like", "without"))


def _checked(document: toml.Document) -> Release:
    release = document.validate(Release)
    found = problems(release, document)
    if found:
        raise toml.InvalidFile(found)
    return release
