"""What is built in a guest: the guest, as whoever builds sees it. `cli` hands one to the target that wants it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from dfbuild.build.recipe import Kitchen
from dfbuild.deadline import Deadline
from dfbuild.errors import UsageError
from dfbuild.model import Media, Variant
from dfbuild.releases import Release


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
