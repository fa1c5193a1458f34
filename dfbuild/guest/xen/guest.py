"""A guest under Xen: a domain on a host of its own, behind the Guest protocol."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dfbuild.deadline import Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, InfraError
from dfbuild.guest.accel import Accel
from dfbuild.guest.protocol import Exit, GuestSpec, State
from dfbuild.guest.xen.argv import files, plugs
from dfbuild.guest.xen.domain import configuration, console
from dfbuild.guest.xen.machine import XenMachine

if TYPE_CHECKING:
    from dfbuild.guest.qmp import Qmp

DMESG = "xl-dmesg.txt"
_CAUSES = {"poweroff": "guest-shutdown", "reboot": "guest-reset"}
_FAREWELL_SECONDS = 10.0
_PATIENCE = 4.0
"""What a `stop` must have left, in units of seconds, to ask dom0 for Xen's messages first."""


class XenGuest(XenMachine):
    """See `guest.protocol.Guest`. Its process is QEMU's, its accelerator the host's."""

    def __init__(self, spec: GuestSpec, accel: Accel) -> None:
        self._configuration = configuration(spec)
        self._console = console(spec.shape)
        super().__init__(spec, accel)

    def logs(self) -> tuple[Path, ...]:
        return (*super().logs(), self.spec.directory / DMESG)

    # ── power on ────────────────────────────────────────────────────────────────────────────────────────────────
    def _power_on(self, qmp: Qmp, deadline: Deadline) -> None:
        super()._power_on(qmp, deadline)
        for device in plugs(self.spec):
            qmp.execute("device_add", deadline, **device)
        for address, (name, _) in files(self.spec).items():
            self._agent.run(f"domain disk {address} && dd bs=1M if=/run/disk.{address} of=/run/{name}", deadline)
        for number, _ in enumerate(self.spec.media.disks):
            self._agent.run(f"domain disk {number}", deadline)
        text = base64.b64encode(self._configuration.encode()).decode()
        self._agent.run(f"echo {text} | base64 -d >/run/domain.cfg", deadline)
        # A restored host believes that it is still the time of its state.
        self._agent.run(f"date -us @{int(time.time())}", deadline)
        threading.Thread(target=self._watch, args=(qmp, self._events), name="xen-events", daemon=True).start()
        self._agent.run(f"domain create {self._console}", deadline)

    def _watch(self, qmp: Qmp, events: socket.socket) -> None:
        """End QEMU when the domain has ended by itself. A crash is told on its console, and it is kept."""
        with contextlib.suppress(OSError), events.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                cause = _CAUSES.get(line.strip())
                if cause is not None:
                    self._cause = cause
                    qmp.post("quit")

    # ── while it runs ───────────────────────────────────────────────────────────────────────────────────────────
    def pause(self, deadline: Deadline) -> None:
        self._monitor(State.RUNNING)
        self._agent.run("xl pause guest", deadline)
        self._state = State.PAUSED

    def resume(self, deadline: Deadline) -> None:
        self._monitor(State.PAUSED)
        self._agent.run("xl unpause guest", deadline)
        self._state = State.RUNNING

    def reset(self, deadline: Deadline) -> None:
        self._monitor()
        self._agent.run(f"domain destroy; domain create {self._console}", deadline)
        self._state = State.RUNNING

    def power_button(self, deadline: Deadline) -> None:
        self._monitor(State.RUNNING)
        self._agent.run("xl shutdown -F guest", deadline)

    def diagnose(self, deadline: Deadline) -> str:
        self._monitor()
        return self._agent.run("domain state", deadline)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────
    def stop(self, deadline: Deadline) -> Exit:
        if self.state in (State.RUNNING, State.PAUSED) and deadline.remaining() > _PATIENCE:
            with contextlib.suppress(InfraError, DeadlineExceeded, Cancelled):
                limit = deadline.sooner(min(_FAREWELL_SECONDS, deadline.remaining() / 2))
                messages = self._agent.run("xl list -v; xl vcpu-list; xl dmesg", limit)
                (self.spec.directory / DMESG).write_text(messages, encoding="utf-8")
        return super().stop(deadline)
