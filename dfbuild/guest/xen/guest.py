"""A guest under Xen: a domain on a host of its own, behind the Guest protocol."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dfbuild.deadline import Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, InfraError
from dfbuild.guest.accel import Accel
from dfbuild.guest.protocol import Exit, GuestSpec, State
from dfbuild.guest.xen.argv import BOOT_ADDRESS, boots_from_disk, files, plugs
from dfbuild.guest.xen.bootdisk import boot_disk
from dfbuild.guest.xen.domain import configuration, console
from dfbuild.guest.xen.machine import XenMachine

if TYPE_CHECKING:
    from dfbuild.guest.qmp import Qmp

DMESG, CONTEXTS = "xl-dmesg.txt", "xenctx.txt"
"""What Xen has to say at the guest's end, and where its vCPUs were then."""
_FAREWELL = {DMESG: "xl list -v; xl dmesg", CONTEXTS: "domain state; domain contexts $(xl domid guest)"}
_CAUSES = {"poweroff": "guest-shutdown", "reboot": "guest-reset"}
_FAREWELL_SECONDS = 30.0
_PATIENCE = 4.0
"""Seconds that a `stop` must have left to ask dom0 for Xen's messages first."""


class XenGuest(XenMachine):
    """See `guest.protocol.Guest`. Its process is QEMU's, its accelerator the host's."""

    def __init__(self, spec: GuestSpec, accel: Accel) -> None:
        self._configuration = configuration(spec)
        self._console = console(spec.shape)
        super().__init__(spec, accel)

    def logs(self) -> tuple[Path, ...]:
        return (*super().logs(), *(self.spec.directory / name for name in _FAREWELL))

    # ── power on ────────────────────────────────────────────────────────────────────────────────────────────────
    def _open(self, ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> Sequence[int]:
        if boots_from_disk(self.spec):
            media = self._media
            assert media.kernel is not None
            initrd = media.initrd.read_bytes() if media.initrd is not None else b""
            image = boot_disk(media.kernel.read_bytes(), initrd, media.append, self.spec.shape.memory)
            (self.spec.directory / "boot.img").write_bytes(image)
        return super()._open(ours, theirs)

    def _power_on(self, qmp: Qmp, deadline: Deadline) -> None:
        super()._power_on(qmp, deadline)
        for device in plugs(self.spec):
            qmp.execute("device_add", deadline, **device)
        text = base64.b64encode(self._configuration.encode()).decode()
        commands = [
            # A restored host believes that it is still the time of its state.
            f"date -us @{int(time.time())}",
            *(f"domain disk {number}" for number, _ in enumerate(self.spec.media.disks)),
            *(f"domain disk {address}" for address in files(self.spec)),
            *(
                f"dd bs=1M if=/run/disk.{address} of=/run/{name}"
                for address, (name, _) in files(self.spec).items()
                if address != BOOT_ADDRESS
            ),
            f"echo {text} | base64 -d >/run/domain.cfg",
            f"domain create {self._console}",
        ]
        threading.Thread(target=self._watch, args=(qmp, self._events), name="xen-events", daemon=True).start()
        self._agent.run(" && ".join(commands), deadline)

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
                for name, command in _FAREWELL.items():
                    said = self._agent.run(f"({command}); true", limit)
                    (self.spec.directory / name).write_text(said, encoding="utf-8")
        return super().stop(deadline)
