"""The Xen host as a machine of QEMU's: booted, or restored from the state of one that is up."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfbuild.deadline import Deadline
from dfbuild.errors import InfraError, UsageError
from dfbuild.guest.accel import Accel
from dfbuild.guest.directory import console_pair
from dfbuild.guest.protocol import Exit, GuestSpec, State
from dfbuild.guest.qemu import QemuGuest
from dfbuild.guest.xen.agent import Agent
from dfbuild.guest.xen.argv import LOG, PORTS, host, host_argv, links

if TYPE_CHECKING:
    from dfbuild.guest.qmp import Qmp

_COMPLAINT_LINES = 40
_SPEED = 1 << 34
"""Bytes a second that a state may be written with: no limit."""


class XenMachine(QemuGuest):
    """A Xen host with nothing on it but dom0. The console that `start` returns is the port for a domain's."""

    def __init__(self, spec: GuestSpec, accel: Accel) -> None:
        if spec.shape.accel == "kvm":
            raise UsageError(f"shape {spec.shape.name}: a Xen host runs under emulation only", key="accel")
        self._host = host(spec)
        self._ports: Mapping[str, int] = {}
        self._inside: dict[str, socket.socket] = {}
        self._state_fd: int | None = None
        super().__init__(replace(spec, shape=replace(spec.shape, accel="tcg")), accel)
        self.spec = spec

    def _compose(self, console: int | None = None) -> list[str]:
        ports = {**self._ports, "console": console} if console is not None else {}
        return host_argv(replace(self.spec, media=self._media), ports, restored=self._host.state is not None)

    def _inputs(self) -> Sequence[Path]:
        own = (self._host.xen, self._host.kernel, self._host.initrd, self._host.state)
        return [*(path for path in own if path), *super()._inputs()]

    def logs(self) -> tuple[Path, ...]:
        return (self.spec.directory / LOG, *super().logs())

    # ── power on ────────────────────────────────────────────────────────────────────────────────────────────────
    def _open(self, ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> Sequence[int]:
        for link, target in links(self.spec).items():
            link.symlink_to(target)
        if self._host.log is not None:
            shutil.copyfile(self._host.log, self.spec.directory / LOG)
        ends: dict[str, socket.socket] = {}
        for name in PORTS:
            if name != "console":
                ends[name], self._inside[name] = console_pair()
                ours.enter_context(ends[name])
                theirs.enter_context(self._inside[name])
        self._ports = {name: end.fileno() for name, end in self._inside.items()}
        self._agent, self._events = Agent(ends["agent"]), ends["events"]
        inherited = list(self._ports.values())
        if self._host.state is not None:
            state = theirs.enter_context(self._host.state.open("rb"))
            self._state_fd = state.fileno()
            inherited.append(self._state_fd)
        return inherited

    def _power_on(self, qmp: Qmp, deadline: Deadline) -> None:
        """Return once dom0 does what it is told."""
        # QEMU has its own by now: whoever waits for dom0 is to see that it is gone.
        for end in self._inside.values():
            end.close()
        if self._state_fd is None:
            qmp.execute("cont", deadline)
            self._agent.await_ready(deadline)
            return
        events = {"capability": "events", "state": True}
        qmp.execute("migrate-set-capabilities", deadline, capabilities=[events])
        qmp.execute("migrate-incoming", deadline, uri=f"fd:{self._state_fd}")
        self._agent.run("true", deadline)

    def _event(self, qmp: Qmp, event: Mapping[str, Any]) -> None:
        """A state is of a machine that is stopped: when it has come in, let it run."""
        if event["event"] == "MIGRATION" and event["data"]["status"] == "completed":
            qmp.post("cont")
        super()._event(qmp, event)

    def write_state(self, state: Path, deadline: Deadline) -> None:
        """Write the state of the running host to the new file `state`, and leave the host stopped.

        It is stopped first. Of a state that was taken as the host ran, on a loaded machine, Xen died whenever it
        was restored: half of a return address had been overwritten.
        """
        qmp = self._monitor(State.RUNNING)
        qmp.execute("stop", deadline)
        qmp.execute("migrate-set-parameters", deadline, max_bandwidth=_SPEED)
        path = self.spec.directory / "state.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, state.open("xb") as file:
            Path(state).chmod(0o600)
            listener.bind(os.fspath(path))
            listener.listen(1)
            qmp.execute("migrate", deadline, uri=f"unix:{path}")
            deadline.select(listener.fileno(), what="the host's state")
            stream, _ = listener.accept()
            with stream:
                while True:
                    deadline.select(stream.fileno(), what="the host's state")
                    data = stream.recv(1 << 20)
                    if not data:
                        break
                    file.write(data)
        status = qmp.execute("query-migrate", deadline)["status"]
        if status != "completed":
            raise InfraError(f"the Xen host's state was not saved: {status}")

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────
    def _complaint(self) -> str:
        """The last that Xen said."""
        try:
            text = (self.spec.directory / LOG).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-_COMPLAINT_LINES:])

    def _ended(self, how: Exit) -> Exit:
        """A host that ends before its domain does has failed: Xen reboots when it or dom0 crashes."""
        if how.rung != "guest" or self._cause:
            return how
        return replace(how, status=how.status or 1, stderr=f"{how.stderr}{self._complaint()}")
