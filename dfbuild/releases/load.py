"""Find and read a release's TOML."""

from __future__ import annotations

import functools
from importlib import resources
from pathlib import Path

from dfbuild.errors import UsageError
from dfbuild.releases.schema import Release
from dfbuild.toml import Document
from dfbuild.toml.document import nearest

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
        return _read(Document.read(directory / Path(name).expanduser()))
    return _known(name)


@functools.cache
def _known(name: str) -> Release:
    if name not in available():
        raise UsageError(f"unknown release {name!r}", hint=nearest(name, available()))
    file = resources.files(__package__).joinpath(name + _SUFFIX)
    return _read(Document.parse(file.read_text(encoding="utf-8"), Path(str(file))))


def _read(document: Document) -> Release:
    return document.validate(Release)
