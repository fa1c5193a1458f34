"""A recipe: one thing to build, all that its bytes depend on, and how to make it."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dfbuild.deadline import Deadline
from dfbuild.model import StepKind
from dfbuild.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Artefact:
    """A finished recipe: its directory (read-only by convention) and the facts proven of it."""

    kind: StepKind
    name: str
    key: str
    path: Path
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kitchen:
    """What a recipe gets to work with: an empty directory of its own that becomes the artefact's.

    `needs` are the finished artefacts of `Recipe.needs` in that order; `say` reports progress in a line;
    `log` is the step's log file, kept whatever happens.
    """

    directory: Path
    needs: Sequence[Artefact]
    workspace: Workspace
    deadline: Deadline
    log: Path
    say: Callable[[str], None]


class Make(Protocol):
    """Makes the artefact's files in `kitchen.directory` and returns its facts; raises `BuildFailed`."""

    def __call__(self, kitchen: Kitchen) -> Mapping[str, Any]: ...


@dataclass(frozen=True, eq=False)
class Recipe:
    """One build step. `inputs` is JSON data; together with the needs' keys it decides the content key."""

    kind: StepKind
    name: str
    inputs: Mapping[str, Any]
    make: Make
    needs: tuple[Recipe, ...] = ()
    minutes: float = 10.0
    """How long it may take."""
    guest: int = 0
    """MiB of the guest, or of the Xen host, that it boots for that; 0 if it boots none."""

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 over everything that the result depends on, shortened to 20 hexadecimal digits."""
        stuff = [self.kind, self.name, self.inputs, [need.key for need in self.needs]]
        return hashlib.sha256(json.dumps(stuff, sort_keys=True).encode()).hexdigest()[:20]

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.name}:{self.key}"

    def walk(self) -> Iterator[Recipe]:
        """This recipe and all that it needs, needs first, each key once."""
        seen: set[str] = set()

        def visit(recipe: Recipe) -> Iterator[Recipe]:
            if recipe.key in seen:
                return
            seen.add(recipe.key)
            for need in recipe.needs:
                yield from visit(need)
            yield recipe

        return visit(self)


# What files of artefacts are called.
DISK = "disk.qcow2"
"""What a guest's disk is, in an image."""
LIVE = "live.iso"
"""A CD with a live system."""
PROGRAMS = "programs.iso"
"""The suites' programs on a CD, for systems that do not have them."""
