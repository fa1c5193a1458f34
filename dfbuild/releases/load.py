"""Find and read a release's TOML, and those of the releases that it is like."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dfbuild import toml
from dfbuild.errors import UsageError, nearest
from dfbuild.releases.check import problems
from dfbuild.releases.schema import Model, Release
from dfbuild.workspace import expanded

_SHIPPED = Path(__file__).parent
_SUFFIX = ".toml"
_documents: dict[str, toml.Document] = {}
"""Release ▸ its file, of those of one name that was loaded last: a mistake in what only the target reads is told
where it stands."""


def available() -> tuple[str, ...]:
    """The names of the releases that dfbuild knows."""
    return tuple(sorted(file.stem for file in _SHIPPED.glob(f"*{_SUFFIX}")))


def load(name: str, directory: Path = Path()) -> Release:
    """The release called `name`, or the one in the file that `name` is the path of, from `directory`.

    A path has a slash in it or ends in `.toml`. Raises `UsageError` with the nearest known name, or `InvalidFile`
    with everything that is wrong in the file.
    """
    path = _find(name, directory)
    release, document = _shipped(path) if path.parent == _SHIPPED else _read(path)
    _documents[release.name] = document
    return release


def build_table(release: Release, model: type[Model]) -> Model:
    """The `[build]` table of `release` as its target's `model`. Raises `InvalidFile` with what is wrong in it."""
    try:
        return model.model_validate(release.build)
    except ValidationError as error:
        document = _documents.get(release.name)
        if document is None:
            raise UsageError(f"the [build] table of release {release.name}: {error}") from error
        raise document.invalid(model, error, ("build",)) from error


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of release files."""
    return toml.json_schema(Release)


def _find(name: str, directory: Path) -> Path:
    if "/" in name or name.endswith(_SUFFIX):
        return directory / expanded(name)
    if name not in available():
        hint = f"{nearest(name, available())} (a file of your own is named by a path: ./{name}.toml)"
        raise UsageError(f"unknown release {name!r}", hint=hint)
    return _SHIPPED / f"{name}{_SUFFIX}"


_KIND = toml.Kind("release", _find)


@functools.cache
def _shipped(path: Path) -> tuple[Release, toml.Document]:
    return _read(path)


def _read(path: Path) -> tuple[Release, toml.Document]:
    document = toml.read(path, _KIND)
    release = document.validate(Release)
    found = problems(release, document)
    if found:
        raise toml.InvalidFile(found)
    return release, document
