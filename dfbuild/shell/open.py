"""Which shell a session offers."""

from __future__ import annotations

from dfbuild.deadline import Deadline
from dfbuild.errors import UsageError
from dfbuild.releases.schema import Release
from dfbuild.session.protocol import Session
from dfbuild.shell.errors import ShellLost
from dfbuild.shell.protocol import Shell


def open_shell(session: Session, release: Release, via: str, deadline: Deadline) -> Shell:
    """A shell in the session's guest over `via`: `serial` or `ssh`. It never falls back from one to the other.

    Raises `ShellLost` (with the reason) when that way is closed, `HostKeyMismatch`, and what `Shell` raises.
    """
    login = session.manifest.login
    if via == "serial":
        from dfbuild.shell.serial import SerialShell

        return SerialShell.open(session.console, release.shell, login, deadline)
    if via == "ssh":
        if session.manifest.ssh is None or release.shell.ssh is None:
            raise ShellLost("this guest has no SSH", hint="use `--via serial`")
        from dfbuild.shell.ssh import SshShell

        return SshShell.open(session.manifest.ssh, login, release.shell, deadline, console=session.console)
    raise UsageError(f"a shell goes via serial or ssh, not {via!r}")
