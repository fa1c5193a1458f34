"""What every guest can do, whatever runs it."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from dfbuild.deadline import Deadline
from dfbuild.model import Media, Shape


class State(StrEnum):
    NEW = "new"
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """All that a guest is made from. `directory` is its own, 0700, with a short path: sockets and overlays.

    `extra` is appended to the hypervisor's own command line, for people who debug.
    """

    name: str
    shape: Shape
    media: Media
    directory: Path
    ssh_port: int | None = 22
    """The guest's SSH port, forwarded from 127.0.0.1; None for no management network."""
    wire: bool = True
    """A second NIC whose frames go over UNIX datagram sockets."""
    extra: tuple[str, ...] = ()
    kept: Path | None = None
    """A directory in which the guest's disks outlive it, with what `Guest.save` writes down. A guest that finds
    something saved there goes on from it instead of booting."""


@dataclass(frozen=True, slots=True)
class WireEnds:
    """UNIX datagram socket paths of the wire NIC: bind `peer`, send frames to `guest`."""

    guest: Path
    peer: Path


@dataclass(frozen=True, slots=True)
class Exit:
    """How the hypervisor ended: its status (negative for a signal), and which rung of the ladder it took.

    `rung` is `guest` (ended by itself), `quit`, `terminate` or `kill`; `stderr` is what it complained of.
    `cause` is the hypervisor's own word for it, where it had time for one: `guest-shutdown`, `guest-reset`
    (a triple fault too), `host-qmp-quit`, `host-signal` …
    """

    status: int
    rung: str
    stderr: str = ""
    cause: str = ""


class Guest(Protocol):
    """A virtual machine. Methods refuse to run in the wrong state with `InfraError`."""

    spec: GuestSpec

    @property
    def state(self) -> State: ...

    @property
    def accel(self) -> str:
        """`kvm` or `tcg`, as the running hypervisor reports it, or `xen`."""
        ...

    @property
    def pid(self) -> int: ...

    def command(self) -> list[str]:
        """The hypervisor's exact command line."""
        ...

    def start(self, deadline: Deadline) -> socket.socket:
        """Power on; returns the console's connected byte stream. The first byte printed is in it."""
        ...

    def ssh_address(self, deadline: Deadline) -> tuple[str, int]:
        """Where SSH is forwarded from: 127.0.0.1 and a port chosen by the kernel."""
        ...

    def wire_ends(self) -> WireEnds: ...

    def logs(self) -> tuple[Path, ...]:
        """Files in its directory worth keeping when it has ended, as far as they are there by then."""
        ...

    def pause(self, deadline: Deadline) -> None: ...

    def resume(self, deadline: Deadline) -> None: ...

    def reset(self, deadline: Deadline) -> None: ...

    @property
    def saved(self) -> bool:
        """Whether something is saved in `spec.kept`."""
        ...

    def save(self, deadline: Deadline) -> None:
        """Write down the whole machine in `spec.kept`, in place of what is saved there. The guest then runs on.

        Another guest of the same spec goes on from there, whatever becomes of this one.
        """
        ...

    def power_button(self, deadline: Deadline) -> None:
        """Ask the guest's operating system to shut down."""
        ...

    def diagnose(self, deadline: Deadline) -> str:
        """What the virtual CPUs are doing, as text for a person: for guests that hang."""
        ...

    def wait(self, deadline: Deadline) -> Exit:
        """Wait for the guest to end by itself."""
        ...

    def stop(self, deadline: Deadline) -> Exit:
        """End it: quit, then SIGTERM, then SIGKILL, each with a share of the deadline. Idempotent."""
        ...
