"""A guest that is up, as other processes see it: a manifest on disk and a control socket."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dfbuild.console.protocol import Console
from dfbuild.deadline import Deadline
from dfbuild.guest.protocol import Exit, WireEnds
from dfbuild.model import Cell, Login, StageReached
from dfbuild.releases import Release


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is needed to attach to a guest that is up. JSON on disk as `guest.json` (pydantic TypeAdapter)."""

    name: str
    cell: Cell
    release: Release
    """The knowledge that it was booted with, whatever becomes of the file that it came from."""
    owner: int
    """PID of the process that holds the guest."""
    control: Path
    """UNIX socket of the session's control server."""
    transcript: Path
    login: Login
    ssh: tuple[str, int] | None
    wire: WireEnds | None
    accel: str
    overcommit: float
    """How many times slower the guest may be for want of host CPUs: 1 where each of its CPUs has one."""
    patience: float
    """How many times longer checks may take than under QEMU alone with CPUs enough: `overcommit` and Xen's part."""
    command: tuple[str, ...]
    """The hypervisor's command line."""


class Session(Protocol):
    """A guest, its console and its boot, whether this process holds them or another one does."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def console(self) -> Console: ...

    @property
    def stages(self) -> tuple[StageReached, ...]: ...

    def pause(self, deadline: Deadline) -> None: ...

    def resume(self, deadline: Deadline) -> None: ...

    def reset(self, deadline: Deadline) -> None: ...

    def diagnose(self, deadline: Deadline) -> str: ...

    def stop(self, deadline: Deadline) -> Exit:
        """End the guest, for everybody. Idempotent."""
        ...

    def close(self) -> None:
        """Let go: the holder ends the guest, an attached session only its own connection."""
        ...
