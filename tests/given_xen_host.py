"""A Xen host that is none of dfbuild's business, for tests: dfbuild's own, with an SSH server in its dom0.

QEMU forwards a port to it; `ssh` finds its key and ours in a configuration of its own.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfbuild.build import xen
from dfbuild.build.debian import apt, linux
from dfbuild.build.recipe import Artefact, Kitchen, Recipe
from dfbuild.build.store import ArtefactStore, build_all
from dfbuild.deadline import Deadline
from dfbuild.guest.accel import Accel
from dfbuild.guest.protocol import GuestSpec
from dfbuild.guest.xen.machine import XenMachine
from dfbuild.image import cpio, libraries
from dfbuild.model import Media, Shape, StepKind, XenHost
from dfbuild.runtime import runtime_directory
from dfbuild.workspace import Workspace

# What an ordinary dom0 has: OpenSSH's server, a tar that makes holes, a shell that does not take its own for it.
_PROGRAMS = {"usr/sbin/sshd": "usr/sbin/sshd", "usr/local/bin/tar": "bin/tar", "bin/sh": "bin/dash"}
# Not libpam-modules: it has files of another group than root's.
_LIBRARIES = (*(f"lib{letter}" for letter in "acgklnstwz"), "libpam0", "libpcre", "zlib")
_PASSWD = "root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\n"
# A window that closes is opened again by QEMU's user network seconds later: here it never does.
_START = (
    "echo 4096 16777216 33554432 >/proc/sys/net/ipv4/tcp_rmem && "
    "ip addr add 10.0.2.15/24 dev xenbr0 && mkdir -p /run/sshd /var/tmp && chmod 700 /root /root/.ssh && "
    "chmod 600 /etc/ssh/key && mount -t tmpfs -o size=100% tmpfs /var/tmp && "
    "/usr/sbin/sshd -h /etc/ssh/key -o UsePAM=no -o PidFile=none -o SetEnv=PATH=/usr/local/bin:$PATH "
    "</dev/null >/dev/console 2>&1"
)


def _more(files: Recipe, workspace: Workspace) -> Recipe:
    """An initramfs to lie over that of the host made by `files`."""
    kernel, _ = files.needs
    resolve = functools.partial(apt.resolve, cache=workspace.cache)
    packages = apt.fetch("SSH server packages", resolve(("openssh-server", "tar", "dash", "libc6"), _LIBRARIES))
    loop = linux.recipe(kernel.needs[0], ("loop",))

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        fetched, modules = kitchen.needs
        unpacked = kitchen.directory / "packages"
        apt.unpack(kitchen, fetched, unpacked)
        programs = {target: unpacked / source for target, source in _PROGRAMS.items()}
        programs |= libraries.closure(list(programs.values()), unpacked)
        content = {target: (path.read_bytes(), 0o755) for target, path in programs.items()}
        content |= {f"modules/{p.name}": (p.read_bytes(), 0o644) for p in (modules.path / "modules").iterdir()}
        content["etc/passwd"] = (_PASSWD.encode(), 0o644)
        entries = list(xen._entries(content, {}))
        (kitchen.directory / "more").write_bytes(cpio.archive(entries, epoch=0))
        shutil.rmtree(unpacked)
        return {}

    return Recipe(StepKind.IMAGE, "Xen host with SSH", {"programs": _PROGRAMS}, make, needs=(packages, loop))


@dataclass(frozen=True)
class GivenHost:
    """It is up. `path` is a directory for the front of PATH, whose `ssh` knows it."""

    machine: XenMachine
    url: str
    path: Path

    def run(self, command: str) -> str:
        """What a shell command in dom0 prints."""
        return self.machine._agent.run(command, Deadline.after(60))


def _key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


@contextlib.contextmanager
def given_host(workspace: Workspace, directory: Path, memory: int) -> Iterator[GivenHost]:
    """Boot it with room for guests of `memory` MiB; `directory` is for its files on this machine."""
    store, deadline = ArtefactStore(workspace), Deadline.after(900, what="a Xen host with SSH")
    files = xen.recipe(workspace)
    made: Artefact = build_all(files, store, deadline, print)
    more: Artefact = build_all(_more(files, workspace), store, deadline, print)
    host_key, key = _key(directory / "host"), _key(directory / "key")
    secrets = {
        "etc/ssh/key": ((directory / "host").read_bytes(), 0o600),
        "etc/ssh/sshd_config": (b"PermitRootLogin prohibit-password\n", 0o644),
        "root/.ssh/authorized_keys": (key.encode(), 0o600),
    }
    archives = [
        (made.path / xen.INITRD).read_bytes(),
        (more.path / "more").read_bytes(),
        cpio.archive(list(xen._entries(secrets, {})), epoch=0),
    ]
    initrd = directory / "initrd"
    initrd.write_bytes(b"".join(archive + bytes(-len(archive) % 512) for archive in archives))
    runtime = runtime_directory("t")
    host = XenHost(made.path / xen.XEN, made.path / xen.KERNEL, initrd, memory)
    machine = XenMachine(GuestSpec("given", Shape("xen"), Media(xen=host), runtime, wire=False), Accel("tcg"))
    try:
        with machine.start(deadline):
            machine._agent.run(_START, deadline)
            _, port = machine.ssh_address(deadline)
            (directory / "known").write_text(f"[127.0.0.1]:{port} {host_key}")
            (directory / "config").write_text(
                f"UserKnownHostsFile {directory}/known\nGlobalKnownHostsFile none\nIdentityFile {directory}/key\n"
                "IdentitiesOnly yes\n"
            )
            (directory / "bin").mkdir()
            wrapper = directory / "bin" / "ssh"
            wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {directory}/config "$@"\n')
            wrapper.chmod(0o755)
            yield GivenHost(machine, f"ssh://root@127.0.0.1:{port}", directory / "bin")
    finally:
        machine.stop(Deadline.after(30))
        shutil.rmtree(runtime)
