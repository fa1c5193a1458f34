"""Base images: disks that were taken in from elsewhere, by the names that their user gave them.

A name is a small file in the work directory that says which artefact it stands for.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass

from dfbuild.build.recipe import Artefact
from dfbuild.errors import UsageError
from dfbuild.model import StepKind
from dfbuild.workspace import Workspace, atomic_write

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


@dataclass(frozen=True, slots=True)
class Base:
    """`medium` is the SHA-256 of the file that it was made of, `key` its artefact's, `ssh` whether a guest of it is
    one of ours: with a server that knows our key."""

    name: str
    release: str
    medium: str
    key: str
    ssh: bool

    def artefact(self, workspace: Workspace) -> Artefact:
        """The disk's artefact; raises `UsageError` if it has gone."""
        path = workspace.artefacts / StepKind.IMAGE / self.key
        if not path.is_dir():
            raise UsageError(f"the disk of base image {self.name!r} has gone", hint="import it again")
        return Artefact(StepKind.IMAGE, self.name, self.key, path, {"ssh": self.ssh})


def require_name(name: str) -> str:
    """`name`, if a base image can be called so; raises `UsageError`."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} can't be a base image's name", hint="letters, digits, '.', '_', '+' and '-', at most 64"
        )
    return name


def save(workspace: Workspace, base: Base) -> None:
    """Let its name stand for `base`, whatever it stood for."""
    path = workspace.bases / f"{require_name(base.name)}.json"
    atomic_write(path, json.dumps(asdict(base), indent=1, sort_keys=True) + "\n")


def find(workspace: Workspace, name: str) -> Base:
    """The base image of that name; raises `UsageError` with the names that there are."""
    try:
        return Base(**json.loads((workspace.bases / f"{require_name(name)}.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        others = ", ".join(base.name for base in known(workspace))
        hint = f"there are: {others}" if others else "`dfbuild image import` makes one"
        raise UsageError(f"no base image is called {name!r}", hint=hint) from None


def known(workspace: Workspace) -> list[Base]:
    """All of them, by name."""
    return [find(workspace, path.stem) for path in sorted(workspace.bases.glob("*.json"))]
