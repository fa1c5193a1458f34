"""A guest under Xen on a host that is there already: this machine's own, or one behind SSH.

An agent on the host (`images/xen/given/agent`) makes a directory and bridges for this one domain, and removes all
of it when its input ends, however this process ended. Frames pass between the bridges and a QEMU on this machine
that has no machine, only networks: the domain finds on them what it finds on every host.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shlex
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dfbuild import process
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, InfraError, UsageError
from dfbuild.guest.accel import Accel
from dfbuild.guest.argv import QEMU, SECCOMP, Paths, backends, option
from dfbuild.guest.process import HypervisorGone
from dfbuild.guest.protocol import Exit, GuestSpec
from dfbuild.guest.xen.agent import Agent
from dfbuild.guest.xen.argv import BOOT_ADDRESS, files
from dfbuild.guest.xen.bootdisk import write_boot_disk
from dfbuild.guest.xen.dom0 import DomainGuest
from dfbuild.guest.xen.domain import Place, configuration, networks
from dfbuild.guest.xen.reach import reach
from dfbuild.image import templates
from dfbuild.model import GivenXenHost

if TYPE_CHECKING:
    from dfbuild.guest.qmp import Qmp

LOG = "xen-host.log"
"""What the sessions with the host complain of, in the guest's directory."""
_CLEAN_SECONDS = 30.0
_EMULATED = "QEMU TCG"
"""What the CPUs of an emulated host are called in its /proc/cpuinfo."""
_MEMORY_HINT = "end other domains there, `xl mem-set Domain-0` to less, or give the shape less memory"


def panel_argv(spec: GuestSpec) -> list[str]:
    """The command line of a QEMU that is nothing but the networks of `spec`, each on a hub of its own. Pure."""
    paths = Paths(spec.directory)
    line = [
        QEMU,
        "-name", option({"guest": spec.name, "debug-threads": True}),
        "-nodefaults", "-no-user-config", "-display", "none",
        "-machine", "none",
        "-sandbox", SECCOMP,
        "-chardev", option({"id": "qmp", "path": paths.qmp}, "socket"),
        "-mon", "chardev=qmp,mode=control",
    ]  # fmt: skip
    for number, (name, (kind, values)) in enumerate(backends(spec, paths).items()):
        line += ["-netdev", option({"id": name, **values}, kind)]
        line += ["-netdev", option({"id": f"{name}-hub", "hubid": number, "netdev": name}, "hubport")]
    return [*line, *spec.extra]


class HostedGuest(DomainGuest):
    """See `guest.protocol.Guest`. Its process is that of the networks, its accelerator the host's."""

    _script = "sh domain"

    def __init__(self, spec: GuestSpec, accel: Accel) -> None:
        if spec.shape.accel == "kvm":
            raise UsageError(f"shape {spec.shape.name}: Xen does not run under KVM here", key="accel")
        if not isinstance(spec.media.xen, GivenXenHost):
            raise InfraError(f"guest {spec.name} is to run on a Xen host that is there, and none is named")
        identity = secrets.token_hex(4)
        self._where = spec.media.xen.where
        self._reach = reach(spec.media.xen, spec.directory, f"dfbuild-{identity}")
        self._bridges = f"dfb{identity}n"
        bridges = {name: f"{self._bridges}{number}" for number, name in enumerate(networks(spec))}
        self._place = Place(f"dfbuild-{identity}", self._reach.directory, bridges)
        self._configuration = configuration(spec, self._place)
        self._sessions: list[subprocess.Popen[bytes]] = []
        self._console_end = -1
        super().__init__(replace(spec, shape=replace(spec.shape, accel="tcg")), accel)
        self.spec = spec

    def logs(self) -> tuple[Path, ...]:
        return (self.spec.directory / LOG, *super().logs())

    def _compose(self, console: int | None = None) -> list[str]:
        if console is not None:
            self._console_end = console
        return panel_argv(self.spec)

    def _make_overlays(self, deadline: Deadline) -> None:
        """Raw copies of the disks, for the host."""
        for number, disk in enumerate(self._media.disks):
            argv = ["qemu-img", "convert", "-f", disk.format, "-O", "raw", str(disk.path), str(self._image(number))]
            done = process.run(self._sandbox().argv(argv), deadline)
            if done.status != 0:
                raise InfraError(f"no raw copy of {disk.path}: {done.output.strip()}")

    def _image(self, number: int) -> Path:
        return self.spec.directory / f"disk{number}.raw"

    # ── power on ────────────────────────────────────────────────────────────────────────────────────────────────
    def _open(self, ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> Sequence[int]:
        write_boot_disk(self.spec)
        script = (templates.images("xen") / "given" / "agent").read_text(encoding="utf-8")
        place = self._place
        command = shlex.join(["sh", "-c", script, "agent", str(place.directory), place.name, self._bridges])
        agent, inside = socket.socketpair()
        self._agent = Agent(agent)
        with inside:
            self._session(self._reach.first(command, networks(self.spec)), inside.fileno())
        ours.callback(self._leave)
        return ()

    def _session(self, argv: Sequence[str], end: int) -> None:
        """Start a session with the host whose input and output are the socket `end`."""
        # It is in no sandbox, and outlives this process for as long as it takes to clean up on the host.
        with (self.spec.directory / LOG).open("ab") as log:
            self._sessions.append(process.spawn(argv, stdin=end, stdout=end, stderr=log))

    def _power_on(self, qmp: Qmp, deadline: Deadline) -> None:
        try:
            self._agent.await_ready(deadline)
            self._furnish(deadline)
            self._connect(qmp, deadline)
            self._session(self._reach.argv(self._run("place console")), self._console_end)
            events, inside = socket.socketpair()
            self._events = events
            with inside:
                self._session(self._reach.argv(self._run("domain watch")), inside.fileno())
            self._follow(qmp)
            self._domain(self._create, deadline)
        except HypervisorGone as error:
            if qmp.closed:
                raise
            raise InfraError(f"the Xen host {self._where} is gone: {self._complaint() or error.message}") from error
        except InfraError as error:
            hint = _MEMORY_HINT if "memory" in error.message else error.hint
            raise InfraError(f"the Xen host {self._where}: {error.message}", hint=hint) from error

    def _run(self, script: str) -> str:
        """`script` as a shell command in a session of its own, which knows the place as the agent's commands do."""
        place = self._place
        names = {
            "DOMAIN_DIRECTORY": str(place.directory),
            "DOMAIN_NAME": place.name,
            "DOMAIN_BRIDGES": self._bridges,
        }
        settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in names.items())
        own = shlex.quote(str(place.directory))
        return shlex.join(["sh", "-c", f"cd {own} && . ./path && export {settings} && exec sh {script}"])

    def _furnish(self, deadline: Deadline) -> None:
        """Put all that the domain boots from where its configuration says."""
        own = templates.images("xen")
        texts = {
            "domain": (own / "root" / "usr" / "sbin" / "domain").read_bytes(),
            "place": (own / "given" / "place").read_bytes(),
            "domain.cfg": self._configuration.encode(),
        }
        for name, text in texts.items():
            self._agent.run(f"echo {base64.b64encode(text).decode()} | base64 -d >{name}", deadline)
        emulated = self._agent.run(f"grep -c {shlex.quote(_EMULATED)} /proc/cpuinfo; true", deadline).strip() != "0"
        self._running_accel = "tcg" if emulated else "xen"
        disks = {number: self._image(number) for number, _ in enumerate(self._media.disks)}
        for address, (name, path) in files(self.spec).items():
            if address == BOOT_ADDRESS:
                disks[address] = path
            else:
                self._put(path, name, deadline)
        for number, path in disks.items():
            self._put(path, f"image.{number}", deadline)
            self._agent.run(f"sh place disk {number}", deadline)

    def _put(self, source: Path, name: str, deadline: Deadline) -> None:
        """Copy the file `source` to `name` in the place; its holes stay holes."""
        size = source.stat().st_size
        command = self._run(f"place file {name} {size}")
        with source.open("rb") as content, (self.spec.directory / LOG).open("ab") as log:
            packer = process.spawn(["gzip", "-1", "-c"], stdin=content, stdout=subprocess.PIPE, stderr=log)
            assert packer.stdout is not None
            with packer.stdout as packed:
                sender = process.spawn(self._reach.argv(command), stdin=packed, stdout=log, stderr=log)
        try:
            status = process.wait(sender, deadline, f"{source.name} to be copied to {self._where}")
        finally:
            process.kill_group(packer)
        if status != 0:
            raise InfraError(f"{source.name} was not copied to {self._where}: {self._complaint()}")

    def _connect(self, qmp: Qmp, deadline: Deadline) -> None:
        """Join this machine's networks with the domain's bridges."""
        for number, name in enumerate(networks(self.spec)):
            self._agent.run(f"sh place network {number} {name}", deadline)
            address = {"type": "unix", "path": str(self._reach.socket(name))}
            qmp.execute("netdev_add", deadline, type="stream", id=f"{name}-host", addr=address, server=False)
            port = {"type": "hubport", "id": f"{name}-host-hub", "hubid": number, "netdev": f"{name}-host"}
            qmp.execute("netdev_add", deadline, **port)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────
    def _complaint(self) -> str:
        """What the sessions said."""
        try:
            return (self.spec.directory / LOG).read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return ""

    def _let_go(self, qmp: Qmp) -> None:
        super()._let_go(qmp)
        self._agent.hang_up()  # The console ends with the agent.

    def _leave(self) -> None:
        """Have the agent remove all that is on the host, and wait for it. It goes on if that takes longer."""
        self._agent.close()
        limit = Deadline.after(_CLEAN_SECONDS)
        for session in reversed(self._sessions):
            ended = os.pidfd_open(session.pid) if session.poll() is None else None
            if ended is not None:
                with contextlib.suppress(DeadlineExceeded):
                    limit.select(ended, what="the Xen host to be cleaned up")
                os.close(ended)
                session.poll()

    def _ended(self, how: Exit) -> Exit:
        """A host that goes before its domain has ended has failed."""
        self._leave()
        if how.rung != "guest" or self._cause:
            return how
        return replace(how, status=how.status or 1, stderr=f"{how.stderr}{self._complaint()}")
