"""A guest under Xen on a host that is there already: this machine's own, or one behind SSH.

An agent on the host (`images/xen/given/agent`) makes a directory and bridges for this one domain, and removes all
of it when its input ends, however this process ended. Frames pass between the bridges and a QEMU on this machine
that has no machine, only networks: the domain finds on them what it finds on every host.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dfbuild import process
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, InfraError, UsageError
from dfbuild.guest.accel import Accel
from dfbuild.guest.argv import QEMU, SECCOMP, Options, Paths, backends, option
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
# An SSH server that waits for gzip passes its bytes on in small pieces, which costs an emulated host dear.
_UNPACK = "cat >archive && tar -xzof archive && rm archive"
_MEMORY_HINT = "end other domains there, `xl mem-set Domain-0` to less, or give the shape less memory"


def panel_argv(spec: GuestSpec, ends: Mapping[str, int]) -> list[str]:
    """The command line of a QEMU that is nothing but the networks of `spec`, each on a hub of its own. Pure.

    `ends` are the descriptors that it inherits of the streams of frames to the host, by network. Without them, as
    in a line for people to type, they are UNIX sockets on which somebody listens.
    """
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
        far: Options = {"addr": {"type": "unix", "path": spec.directory / f"{name}.sock"}}
        if ends:
            far = {"fd": ends[name]}
        line += ["-netdev", option({"id": f"{name}-far", **far}, "socket" if ends else "stream")]
        for end in (name, f"{name}-far"):
            line += ["-netdev", option({"id": f"{end}-hub", "hubid": number, "netdev": end}, "hubport")]
    return [*line, *spec.extra]


class HostedGuest(DomainGuest):
    """See `guest.protocol.Guest`. Its process is that of the networks, its accelerator the host's."""

    _script = "sh domain"

    def __init__(self, spec: GuestSpec, accel: Accel) -> None:
        if spec.shape.accel == "kvm":
            raise UsageError(f"shape {spec.shape.name}: Xen does not run under KVM here", key="accel")
        given = spec.media.xen
        if not isinstance(given, GivenXenHost) or given.tap is None:
            raise InfraError(f"guest {spec.name} is to run on a Xen host that is there, and none is named")
        identity = secrets.token_hex(4)
        self._where, self._tap = given.where, given.tap
        self._reach = reach(given, spec.directory, f"dfbuild-{identity}")
        self._bridges = f"dfb{identity}n"
        bridges = {name: f"{self._bridges}{number}" for number, name in enumerate(networks(spec))}
        self._place = Place(f"dfbuild-{identity}", self._reach.directory, bridges)
        self._configuration = configuration(spec, self._place)
        self._sessions: list[subprocess.Popen[bytes]] = []
        self._console_end = -1
        self._near: dict[str, int] = {}
        self._far: dict[str, int] = {}
        super().__init__(replace(spec, shape=replace(spec.shape, accel="tcg")), accel)
        self.spec = spec

    def logs(self) -> tuple[Path, ...]:
        return (self.spec.directory / LOG, *super().logs())

    def _compose(self, console: int | None = None) -> list[str]:
        if console is not None:
            self._console_end = console
        return panel_argv(self.spec, self._near)

    @property
    def _files(self) -> Path:
        """A directory of the files for the host, or links to them."""
        return self.spec.directory / "files"

    def _disks(self) -> Mapping[int, Path]:
        """Address ▸ image of the domain's disks, as on a nested host. That of the boot disk is made at power-on."""
        boot = {address: path for address, (_, path) in files(self.spec).items() if address == BOOT_ADDRESS}
        return {number: disk.path for number, disk in enumerate(self._media.disks)} | boot

    def _make_overlays(self, deadline: Deadline) -> None:
        """Gather the files for the host. Nobody writes to the disks here: the host gets raw copies."""
        self._files.mkdir()
        own = templates.images("xen")
        links = {
            "domain": own / "root" / "usr" / "sbin" / "domain",
            "place": own / "given" / "place",
            "tap": self._tap,
        }
        links |= {name: path for address, (name, path) in files(self.spec).items() if address != BOOT_ADDRESS}
        write_boot_disk(self.spec)
        for address, path in self._disks().items():
            links[f"image.{address}"] = path
        for number, disk in enumerate(self._media.disks):
            links[f"image.{number}"] = raw = self.spec.directory / f"disk{number}.raw"
            argv = ["qemu-img", "convert", "-f", disk.format, "-O", "raw", str(disk.path), str(raw)]
            done = process.run(self._sandbox().argv(argv), deadline)
            if done.status != 0:
                raise InfraError(f"no raw copy of {disk.path}: {done.output.strip()}")
        for name, path in links.items():
            (self._files / name).symlink_to(path.resolve())
        (self._files / "domain.cfg").write_text(self._configuration, encoding="utf-8")

    # ── power on ────────────────────────────────────────────────────────────────────────────────────────────────
    def _open(self, ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> Sequence[int]:
        script = (templates.images("xen") / "given" / "agent").read_text(encoding="utf-8")
        place = self._place
        command = shlex.join(["sh", "-c", script, "agent", str(place.directory), place.name, self._bridges])
        agent, inside = socket.socketpair()
        self._agent = Agent(agent)
        with inside:
            self._session(self._reach.first(command), inside.fileno())
        ours.callback(self._leave)
        for name in networks(self.spec):
            near, far = (theirs.enter_context(end) for end in socket.socketpair())
            self._near[name], self._far[name] = near.fileno(), far.fileno()
        return list(self._near.values())

    def _session(self, argv: Sequence[str], end: int) -> None:
        """Start a session with the host whose input and output are the socket `end`."""
        # It is in no sandbox, and outlives this process for as long as it takes to clean up on the host.
        with (self.spec.directory / LOG).open("ab") as log:
            self._sessions.append(process.spawn(argv, stdin=end, stdout=end, stderr=log))

    def _power_on(self, qmp: Qmp, deadline: Deadline) -> None:
        try:
            self._agent.await_ready(deadline)
            self._furnish(deadline)
            for number, name in enumerate(networks(self.spec)):
                self._agent.run(f"sh place bridge {number}", deadline)
                self._session(self._reach.argv(self._run(f"place frames {number}")), self._far[name])
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
        return self._there(f"export {settings} && exec sh {script}")

    def _there(self, command: str) -> str:
        """`command` in the place, whatever the user's shell is."""
        return shlex.join(["sh", "-c", f"cd {shlex.quote(str(self._place.directory))} && . ./path && {command}"])

    def _furnish(self, deadline: Deadline) -> None:
        """Put all that the domain needs there where its configuration says; what is a hole in a disk stays one."""
        names = sorted(path.name for path in self._files.iterdir())
        pack = ["tar", "--directory", str(self._files), "--dereference", "--sparse", "--create"]
        pack += ["--use-compress-program", "gzip -1", *names]
        with (self.spec.directory / LOG).open("ab") as log:
            packer = process.spawn(pack, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
            assert packer.stdout is not None
            with packer.stdout as packed:
                sender = process.spawn(self._reach.argv(self._there(_UNPACK)), stdin=packed, stdout=log, stderr=log)
        try:
            status = process.wait(sender, deadline, f"files to be copied to {self._where}")
            status = status or process.wait(packer, deadline)
        finally:
            process.kill_group(packer)
        if status != 0:
            raise InfraError(f"its files were not copied: {self._complaint()}")
        emulated = self._agent.run(f"grep -c {shlex.quote(_EMULATED)} /proc/cpuinfo; true", deadline).strip() != "0"
        self._running_accel = "tcg" if emulated else "xen"
        for address in self._disks():
            self._agent.run(f"sh place disk {address}", deadline)

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
