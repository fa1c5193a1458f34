"""Base images: disks that were taken in from elsewhere, by the names that their user gave them.

A name is a small file in the work directory that says which artefact it stands for.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dfbuild.build.recipe import DISK, PROGRAMS, Artefact, Kitchen, Recipe
from dfbuild.build.targets import ProgramsTarget, Target
from dfbuild.errors import UsageError
from dfbuild.model import Cell, Media, Refusal, StepKind
from dfbuild.releases import Release
from dfbuild.workspace import Workspace, atomic_write, require_name


@dataclass(frozen=True, slots=True)
class Base:
    """`medium` is the SHA-256 of the file that it was made of, `key` its artefact's, `ssh` whether a guest of it is
    one of ours: with a server that knows our key."""

    name: str
    release: str
    medium: str
    key: str
    ssh: bool

    def disk(self, workspace: Workspace) -> Path:
        """Its disk; raises `UsageError` if that has gone."""
        path = workspace.artefacts / StepKind.IMAGE / self.key / DISK
        if not path.is_file():
            raise UsageError(f"the disk of base image {self.name!r} has gone", hint="import it again")
        return path


_STARTS = ("hypervisor", "firmware", "disk", "root")
"""What of a shape a system that was not made for it may fail to start from."""


@dataclass(frozen=True, slots=True)
class Based:
    """A `Target` whose cells all boot `base`, whatever they are of: their kernel is the base image's own."""

    target: Target
    base: Base

    @property
    def _able(self) -> ProgramsTarget | None:
        """The target, if the disk looks for a CD with the suites' programs: we installed it then."""
        return self.target if self.base.ssh and isinstance(self.target, ProgramsTarget) else None

    def image(self, release: Release, cell: Cell, workspace: Workspace) -> Recipe:
        """The recipe of an artefact with the base image's disk. Raises `UsageError` if that has gone."""
        disk = self.base.disk(workspace)

        def make(kitchen: Kitchen) -> Mapping[str, Any]:
            os.link(disk, kitchen.directory / DISK)
            for need in kitchen.needs:
                os.link(need.path / PROGRAMS, kitchen.directory / PROGRAMS)
            return {"base": self.base.name, "medium": self.base.medium, "ssh": self.base.ssh}

        able = self._able
        needs = (able.programs(release, cell.variant),) if able is not None else ()
        return Recipe(StepKind.IMAGE, f"base image {self.base.name}", {"disk": self.base.key}, make, needs=needs)

    def refuse(self, release: Release, cell: Cell) -> Refusal | None:
        """Refuses shapes that start from other hardware than the release's own, which base images are made on."""
        own = release.own_shape
        for key in _STARTS:
            has, wanted = getattr(cell.shape, key), getattr(own, key)
            if has != wanted:
                return Refusal(cell, f"base image {self.base.name} is made for {key} {wanted!r}, not {has!r}")
        return self.target.refuse(release, cell)

    def media(self, release: Release, cell: Cell, image: Artefact, workspace: Workspace) -> Media:
        """As for a disk that the target made, with the suites' programs on a CD where the disk looks for them. Of
        its kernel nothing is known."""
        media = replace(self.target.media(release, cell, image, workspace), symbols=None)
        return replace(media, cdroms=(image.path / PROGRAMS,)) if self._able is not None else media


def save(workspace: Workspace, base: Base) -> None:
    """Let its name stand for `base`, whatever it stood for."""
    path = _file(workspace, base.name)
    atomic_write(path, json.dumps(asdict(base), indent=1, sort_keys=True) + "\n")


def forget(workspace: Workspace, name: str) -> None:
    """Let the name stand for nothing, its file whole or not: its disk can be cleaned away. Raises `UsageError`."""
    try:
        _file(workspace, name).unlink()
    except FileNotFoundError:
        raise _unknown(workspace, name) from None


def find(workspace: Workspace, name: str, release: str = "") -> Base:
    """The base image of that name, and of `release`; raises `UsageError` with the names that there are."""
    found = _read(workspace, name)
    if release and found.release != release:
        raise UsageError(f"base image {name!r} is of release {found.release}", hint="name another matrix file")
    return found


def _read(workspace: Workspace, name: str) -> Base:
    path = _file(workspace, name)
    try:
        return Base(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise _unknown(workspace, name) from None
    except (ValueError, TypeError) as error:
        hint = f"import it again, or `dfbuild image remove {name}`"
        raise UsageError("this is no base image's file", hint=hint, file=path) from error


def _unknown(workspace: Workspace, name: str) -> UsageError:
    others = ", ".join(base.name for base in known(workspace))
    hint = f"there are: {others}" if others else "`dfbuild image import` makes one"
    return UsageError(f"no base image is called {name!r}", hint=hint)


def known(workspace: Workspace) -> list[Base]:
    """All of them that can be used, by name."""
    found = []
    for name in _names(workspace):
        with contextlib.suppress(UsageError):
            found.append(_read(workspace, name))
    return found


def whole(workspace: Workspace) -> list[Base]:
    """All of them, by name. Raises `UsageError` if one cannot be read."""
    return [_read(workspace, name) for name in _names(workspace)]


def _names(workspace: Workspace) -> list[str]:
    return sorted(path.stem for path in workspace.bases.glob("*.json"))


def _file(workspace: Workspace, name: str) -> Path:
    return workspace.bases / f"{require_name(name, 'a base image')}.json"
