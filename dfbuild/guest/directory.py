"""A guest's own directory: nobody else's, and the sockets in it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from dfbuild.errors import InfraError
from dfbuild.guest.argv import Paths

_SOCKET_PATH_LIMIT = 107


def prepare_directory(directory: Path) -> None:
    """Make the guest's directory, or refuse one in which others could have put things: `InfraError`."""
    if not directory.is_absolute():
        raise InfraError(f"the guest's directory must be absolute: {directory}")
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise InfraError(
            f"{directory} must be a directory that only its owner can enter", hint=f"chmod 700 {directory}"
        )
    paths = Paths(directory)
    longest = max(len(os.fsencode(path)) for path in (paths.console, paths.qmp, paths.wire.guest, paths.wire.peer))
    if longest > _SOCKET_PATH_LIMIT:
        raise InfraError(
            f"{directory} is too long a path for sockets by {longest - _SOCKET_PATH_LIMIT} bytes",
            hint="unix(7) ends them at 107 bytes; use workspace.runtime_directory",
        )


def listen(path: Path) -> socket.socket:
    """A listening UNIX stream socket: bound before QEMU starts, so that QEMU finds it and no byte is lost."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.fspath(path))
    listener.listen(1)
    return listener


# asm-generic/socket.h; Python's socket module lacks it.
_SO_SNDBUFFORCE = 32
_CONSOLE_BUFFER = 256 << 20


def console_pair() -> tuple[socket.socket, socket.socket]:
    """A console's two ends: ours, and the hypervisor's, which holds as much as this user may make it hold.

    QEMU's virtio console drops what its socket does not take at once (hw/char/virtio-console.c, `flush_buf`), and
    an ordinary one holds 100 KB of it: 2 ms of a flood of 60 MB/s, and a busy host has its readers wait for half a
    second now and then. Root gets 256 MB, which only what is not read yet takes; others what net.core.wmem_max
    allows.
    """
    ours, theirs = socket.socketpair()
    try:
        theirs.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _CONSOLE_BUFFER)
    except PermissionError:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CONSOLE_BUFFER)
    return ours, theirs
