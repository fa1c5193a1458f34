"""How to reach a Xen host that dfbuild was given: command lines that run shell commands on it.

For SSH that is OpenSSH's own client: the user's configuration, agent, keys and known hosts decide, as they would
for the user, and nobody is asked anything. All sessions of a guest go over one connection.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Protocol

from dfbuild.errors import UsageError
from dfbuild.model import GivenXenHost

LOCAL = "local"
_URL = re.compile(
    r"ssh://(?:[A-Za-z0-9_][^@:/\s]*@)?(?:[A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)
_SSH = (
    "ssh", "-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=60",
    "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=8", "-o", "PermitLocalCommand=no",
    "-o", "RemoteCommand=none", "-o", "ControlPersist=no", "-o", "ClearAllForwardings=yes",
)  # fmt: skip


def given(where: str) -> GivenXenHost | None:
    """The host that a user calls `where`; None for `nested`, one that dfbuild makes. Raises `UsageError`."""
    if where in ("", "nested"):
        return None
    if where != LOCAL and not _URL.fullmatch(where):
        raise UsageError(f"no Xen host: {where!r}", hint="nested, local, or ssh://[user@]host[:port]")
    return GivenXenHost(where)


class Reach(Protocol):
    """A way to a host for one guest."""

    directory: PurePosixPath
    """The guest's own directory there."""

    def first(self, command: str) -> list[str]:
        """The command line that runs the shell command `command` before all others, and outlives them."""
        ...

    def argv(self, command: str) -> list[str]:
        """The command line that runs the shell command `command`."""
        ...


class LocalReach:
    """This machine is the host. The directory is in the guest's own."""

    def __init__(self, own: Path) -> None:
        self.directory = PurePosixPath(own / "xen")

    def first(self, command: str) -> list[str]:
        return self.argv(command)

    def argv(self, command: str) -> list[str]:
        return ["sh", "-c", command]


class SshReach:
    """The host is behind SSH. `own` is the guest's directory here, `identity` a word that no other guest has."""

    def __init__(self, url: str, own: Path, identity: str) -> None:
        self._url = url
        self._control = ["-S", str(own / "ssh")]
        self.directory = PurePosixPath("/var/tmp") / identity

    def first(self, command: str) -> list[str]:
        return [*_SSH, "-M", *self._control, "--", self._url, command]

    def argv(self, command: str) -> list[str]:
        return [*_SSH, "-o", "ControlMaster=no", *self._control, "--", self._url, command]


def once(host: GivenXenHost, command: str) -> list[str]:
    """The command line that runs the shell command `command` on `host`, for nobody in particular."""
    if host.where == LOCAL:
        return ["sh", "-c", command]
    return [*_SSH, "-S", "none", "--", host.where, command]


def reach(host: GivenXenHost, own: Path, identity: str) -> Reach:
    """The way to `host` for the guest with the directory `own`."""
    return LocalReach(own) if host.where == LOCAL else SshReach(host.where, own, identity)
