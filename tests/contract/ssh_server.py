"""A throwaway dropbear on 127.0.0.1, in a sandbox, for one user with one key."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import threading
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dfbuild.model import Login

PROCESSES = "busybox ps -A -o pid= -o ppid="


def make_client_key(path: Path) -> bytes:
    """A new private key at `path`; its public line."""
    key = Ed25519PrivateKey.generate()
    openssh = serialization.PrivateFormat.OpenSSH
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, openssh, serialization.NoEncryption()))
    public = serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, public) + b"\n"


class SshServer:
    """Listens on a port that the kernel chose, and gives each connection a dropbear of its own.

    `directory` holds its keys and is the user's home. `shell` is the login shell.
    """

    def __init__(self, directory: Path, shell: str = "/bin/sh") -> None:
        self.directory = directory
        user = pwd.getpwuid(os.getuid())
        host_key, client_key = directory / "host_key", directory / "client_key"
        self._make_key(host_key)
        make_client_key(directory / "unknown_key")
        (directory / ".ssh").mkdir(mode=0o700)
        (directory / ".ssh" / "authorized_keys").write_bytes(make_client_key(client_key))
        directory.chmod(0o700)
        passwd = directory / "passwd"
        passwd.write_text(f"{user.pw_name}:x:{user.pw_uid}:{user.pw_gid}::{directory}:{shell}\n")
        self.login = Login(user=user.pw_name, key=client_key, host_key=self._public(host_key))
        self.log = directory / "log"
        self._argv = [
            "bwrap", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc",
            "--tmpfs", "/tmp", "--bind", str(directory), str(directory), "--ro-bind", str(passwd), "/etc/passwd",
            "--", "dropbear", "-i", "-s", "-r", str(host_key),
        ]  # fmt: skip
        self.silent = False
        """Whether new connections are taken and left alone, as QEMU does for a guest whose CPUs have stopped."""
        self._left: list[socket.socket] = []
        self._children: list[subprocess.Popen[bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def another_key(self) -> str:
        """The public half of a key that is not the server's."""
        other = self.directory / "other_key"
        self._make_key(other)
        return self._public(other)

    def kill_connections(self) -> None:
        """All servers die, as when the guest's power goes."""
        for child in self._children:
            child.kill()
            child.wait()

    def stop_connections(self) -> list[int]:
        """All servers stop, as when the guest's CPUs do; their process ids, to let them go on."""
        family = [child.pid for child in self._children if child.poll() is None]
        listing = subprocess.run(PROCESSES.split(), check=True, capture_output=True, text=True).stdout
        for pid, parent in (map(int, line.split()) for line in listing.splitlines()):
            if parent in family:
                family.append(pid)
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        return family

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()
        for connection in self._left:
            connection.close()
        self.kill_connections()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self.silent:
                self._left.append(connection)
                continue
            with connection, self.log.open("ab") as log:
                self._children.append(subprocess.Popen(self._argv, stdin=connection, stdout=connection, stderr=log))

    def _make_key(self, path: Path) -> None:
        subprocess.run(["dropbearkey", "-t", "ed25519", "-f", path], check=True, capture_output=True)

    def _public(self, path: Path) -> str:
        shown = subprocess.run(["dropbearkey", "-y", "-f", path], check=True, capture_output=True, text=True).stdout
        return next(line for line in shown.splitlines() if line.startswith("ssh-"))
