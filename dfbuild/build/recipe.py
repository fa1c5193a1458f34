"""A recipe: one thing to build, all that its bytes depend on, and how to make it."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dfbuild.deadline import Deadline
from dfbuild.errors import UsageError
from dfbuild.model import Cell, Media, Refusal, StepKind, Variant
from dfbuild.releases import Release
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


class Ran(Protocol):
    """A command that came to its end in a guest."""

    @property
    def status(self) -> int: ...

    @property
    def text(self) -> str: ...


class Workbench(Protocol):
    """What a build does in a guest. `run`, `put` and `get` are those of `shell.protocol.Shell`, errors included."""

    def run(self, command: str, deadline: Deadline) -> Ran: ...

    def put(self, source: Path, target: str, deadline: Deadline) -> None: ...

    def get(self, source: str, target: Path, deadline: Deadline) -> None: ...

    def save(self, deadline: Deadline) -> None:
        """Write the guest down, if that can be done. Should this attempt be cut off, the next one goes on there."""
        ...


class Machine(Protocol):
    """Boots what was built, for what is built in a guest."""

    def __call__(
        self,
        release: Release,
        variant: Variant,
        media: Media,
        memory: int,
        kitchen: Kitchen,
        kept: Path | None = None,
    ) -> AbstractContextManager[Workbench]:
        """A shell in a guest with `memory` MiB that boots `media`; the guest ends with the block.

        Where an attempt before this one was cut off after a `save`, the guest goes on from there and boots nothing;
        not where there is a directory `kept`: what it wrote to its disks stays there, as for a `Boot`. Raises
        `BuildFailed` for a guest that does not come up.
        """
        ...


def no_machine(
    release: Release, variant: Variant, media: Media, memory: int, kitchen: Kitchen, kept: Path | None = None
) -> AbstractContextManager[Workbench]:
    """A `Machine` for callers that have no guests to offer. Raises `UsageError`."""
    raise UsageError(f"a guest of {variant.id} is needed to build in, and there is none")


class Boot(Protocol):
    """Boots a guest, for what only a guest does or shows."""

    def __call__(
        self, release: Release, media: Media, kitchen: Kitchen, what: str, kept: Path | None = None
    ) -> Mapping[str, float]:
        """Follow a guest of the release's own shape through the release's boot stages, and end it at the last one.

        Returns the seconds from power-on to each. What it wrote to its disks stays in the directory `kept`, if
        there is one, as overlays over `media`: `disk0.qcow2` and so on. `what` names it in messages and logs.
        Raises `BuildFailed` for a guest that does not get there.
        """
        ...


@runtime_checkable
class LiveTarget(Protocol):
    """A `Target` whose systems run from a CD as well."""

    def live(self, release: Release, variant: Variant) -> Recipe:
        """The recipe of a CD with the live system of `variant`. Makes nothing; raises `UsageError` for none."""
        ...

    def live_media(self, release: Release, made: Artefact) -> tuple[Release, Media]:
        """What a guest of that CD boots from, and `release` with the boot stages that it shows then."""
        ...


# What files of artefacts are called.
DISK = "disk.qcow2"
"""What a guest's disk is, in an image."""
LIVE = "live.iso"
"""A CD with a live system."""
PROGRAMS = "programs.iso"
"""The suites' programs on a CD, for systems that do not have them."""


@runtime_checkable
class ProgramsTarget(Protocol):
    """A `Target` that can put the suites' programs on a CD."""

    def programs(self, release: Release, variant: Variant) -> Recipe:
        """The recipe of `PROGRAMS`, with what the release has in its `probes`, as `variant` compiles it."""
        ...


def undriven(cell: Cell, **known: Collection[str]) -> Refusal | None:
    """Refuses a shape with a device (`disk`, `nic`, `console`) that is none of those `known` of its kind."""
    for kind, models in known.items():
        model = getattr(cell.shape, kind)
        if model not in models:
            what = f"guests of {cell.variant.release} are not made for {kind} {model!r}"
            return Refusal(cell, f"{what}, only for {', '.join(models)}")
    return None


class Target(Protocol):
    """Knows how one family of operating systems is built. One package below `dfbuild.build` implements it."""

    def image(self, release: Release, cell: Cell, workspace: Workspace) -> Recipe:
        """The recipe of the bootable image of `cell`, with everything it needs below it. Makes nothing."""
        ...

    def refuse(self, release: Release, cell: Cell) -> Refusal | None:
        """A reason why this cell can't be built that the release's data cannot express."""
        ...

    def media(self, release: Release, cell: Cell, image: Artefact, workspace: Workspace) -> Media:
        """What the guest of `cell` boots from, once its image is made."""
        ...
