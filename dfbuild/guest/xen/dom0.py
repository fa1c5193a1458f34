"""What a guest that is a domain does by its dom0's agent, wherever that dom0 is."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from dfbuild.deadline import Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, InfraError
from dfbuild.guest.accel import Accel
from dfbuild.guest.protocol import Exit, GuestSpec, State
from dfbuild.guest.qemu import QemuGuest
from dfbuild.guest.xen.agent import Agent
from dfbuild.guest.xen.domain import console

if TYPE_CHECKING:
    from dfbuild.guest.qmp import Qmp

DMESG, CONTEXTS = "xl-dmesg.txt", "xenctx.txt"
"""What Xen has to say at the guest's end, and where its vCPUs were then."""
_FAREWELL = {DMESG: "messages", CONTEXTS: "contexts"}
_CAUSES = {"poweroff": "guest-shutdown", "reboot": "guest-reset"}
_FAREWELL_SECONDS = 30.0
_PATIENCE = 4.0
"""Seconds that a `stop` must have left to ask dom0 for Xen's messages first."""


class DomainGuest(QemuGuest):
    """A guest whose QEMU carries its networks, and whose dom0 answers `_agent` and says on `_events` how it ends.

    When the domain has ended QEMU is told to, so the guest's process is QEMU's.
    """

    _agent: Agent
    _events: socket.socket
    _script = "domain"
    """How dom0's shell calls `images/xen/root/usr/sbin/domain`."""

    def __init__(self, spec: GuestSpec, accel: Accel) -> None:
        self._create = f"create {console(spec.shape)}"
        super().__init__(spec, accel)

    def logs(self) -> tuple[Path, ...]:
        return (*super().logs(), *(self.spec.directory / name for name in _FAREWELL))

    def _domain(self, verb: str, deadline: Deadline) -> str:
        return self._agent.run(f"{self._script} {verb}", deadline)

    # ── while it runs ───────────────────────────────────────────────────────────────────────────────────────────
    def _follow(self, qmp: Qmp) -> None:
        """From now on end QEMU when the domain has ended by itself. One that crashes says so, and is kept."""
        threading.Thread(target=self._watch, args=(qmp, self._events), name="xen-events", daemon=True).start()

    def _watch(self, qmp: Qmp, events: socket.socket) -> None:
        with contextlib.suppress(OSError), events.makefile("r", encoding="ascii", errors="replace") as lines:
            for line in lines:
                cause = _CAUSES.get(line.strip())
                if cause is not None:
                    self._cause = cause
                    self._let_go(qmp)
        # Nobody is left to say how the domain ends: its host has gone.
        self._let_go(qmp)

    def _let_go(self, qmp: Qmp) -> None:
        """The domain is over: end what carries it."""
        qmp.post("quit")

    def pause(self, deadline: Deadline) -> None:
        self._monitor(State.RUNNING)
        self._domain("pause", deadline)
        self._state = State.PAUSED

    def resume(self, deadline: Deadline) -> None:
        self._monitor(State.PAUSED)
        self._domain("unpause", deadline)
        self._state = State.RUNNING

    def reset(self, deadline: Deadline) -> None:
        self._monitor()
        self._agent.run(f"{self._script} destroy; {self._script} {self._create}", deadline)
        self._state = State.RUNNING

    def power_button(self, deadline: Deadline) -> None:
        self._monitor(State.RUNNING)
        self._domain("shutdown", deadline)

    def diagnose(self, deadline: Deadline) -> str:
        self._monitor()
        return self._domain("state", deadline)

    def save(self, deadline: Deadline) -> None:
        raise InfraError("a guest under Xen cannot be saved", hint="leave it under QEMU alone")

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────
    def stop(self, deadline: Deadline) -> Exit:
        if self.state in (State.RUNNING, State.PAUSED) and deadline.remaining() > _PATIENCE:
            with contextlib.suppress(InfraError, DeadlineExceeded, Cancelled, OSError):
                limit = deadline.sooner(min(_FAREWELL_SECONDS, deadline.remaining() / 2))
                for name, verb in _FAREWELL.items():
                    said = self._agent.run(f"({self._script} {verb}); true", limit)
                    (self.spec.directory / name).write_text(said, encoding="utf-8")
        return super().stop(deadline)
