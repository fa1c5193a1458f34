"""What objects say of the compiler and the stack protector they were made with, all of a world's or a kernel's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from dfbuild.errors import BuildFailed
from dfbuild.releases.schema import Protection, Toolchain


@dataclass(slots=True)
class Made:
    """One object: its comments, and how often its code refers to each symbol."""

    comments: set[str] = field(default_factory=set)
    references: Counter[str] = field(default_factory=Counter)


def prove(
    objects: Mapping[str, Made],
    toolchains: Mapping[str, Toolchain],
    chosen: str,
    protector: Protection,
    *,
    component: str,
    compilers: Mapping[str, str],
    unprotected: Sequence[str],
    handlers: Sequence[str] = (),
) -> dict[str, Any]:
    """The facts of `objects`, by their path in the tree: together they are `component`.

    Raises `BuildFailed` for one that breaks the promise, and if none keeps it.

    Compiled objects carry the comment of the toolchain `chosen`, or that which `compilers` has for their directory,
    and no other. Where the compiler is the chosen one, the directory none of `unprotected` and the object none of
    the `handlers`, none refers to what is absent with `protector`, and where it has symbols that are present at
    least one does.
    """
    by_compiler: Counter[str] = Counter()
    protected: Counter[str] = Counter()
    for path, made in objects.items():
        if not made.comments:
            continue  # assembled
        special = _of(path, compilers)
        name = special or chosen
        wrong = [comment for comment in made.comments if not re.search(toolchains[name].comment, comment)]
        if wrong:
            raise BuildFailed(f"{path} was made by {wrong[0]}, not {name}", component=path)
        by_compiler[name] += 1
        if special or _under(path, unprotected) or any(PurePosixPath(path).match(glob) for glob in handlers):
            continue
        unwanted = sorted(set(protector.absent) & set(made.references))
        if unwanted:
            raise BuildFailed(f"{path} refers to {unwanted[0]}, which must not be there", component=path)
        if sites := sum(made.references[symbol] for symbol in protector.present):
            protected[path] = sites
    if not by_compiler[chosen]:
        raise BuildFailed(f"nothing was made by {chosen}", component=component)
    if protector.present and not protected:
        raise BuildFailed(f"nothing refers to {' or '.join(protector.present)}", component=component)
    return {
        "objects": sum(by_compiler.values()),
        "compilers": dict(sorted(by_compiler.items())),
        "protector": {
            "symbols": list(protector.present),
            "absent": list(protector.absent),
            "objects": len(protected),
            "sites": protected.total(),
        },
    }


def _of(path: str, compilers: Mapping[str, str]) -> str:
    return next((name for directory, name in compilers.items() if _under(path, (directory,))), "")


def _under(path: str, directories: Iterable[str]) -> bool:
    return any(PurePosixPath(path).is_relative_to(directory) for directory in directories)
