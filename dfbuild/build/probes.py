"""The suites' C programs: their sources, which every target compiles for its own guests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePath

import dfbuild

PROBES = Path(dfbuild.__file__).parent / "suites" / "probes"


def read(*directories: Path) -> dict[str, bytes]:
    """All C files and headers of `directories`, by file name; a later directory wins."""
    return {
        path.name: path.read_bytes()
        for directory in directories
        for path in sorted(directory.iterdir())
        if path.suffix in (".c", ".h") and path.is_file()
    }


def names(sources: Mapping[str, bytes]) -> list[str]:
    """What the C files of `sources` are compiled to, each a program."""
    return [PurePath(name).stem for name in sorted(sources) if name.endswith(".c")]


def digests(sources: Mapping[str, bytes]) -> dict[str, str]:
    """What a content key has of them."""
    return {name: hashlib.sha256(text).hexdigest() for name, text in sorted(sources.items())}
