"""Runtime directories: sockets and overlays of what runs, outside of the work directory, gone with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import threading
import time
from pathlib import Path

RUNTIME = "dfbuild-"
"""What the names of runtime directories begin with."""
_YOUNG = 60.0
"""Seconds for which one that is not locked is left alone."""
_held: dict[Path, int] = {}
"""The runtime directories of this process, with the descriptors that lock them; under `_holding`."""
_holding = threading.Lock()


def runtime_directory(prefix: str) -> Path:
    """A new directory of mode 0700 with a short path, for sockets (their paths end at 107 bytes) and overlays.

    It is locked as long as this process lives, so that what a killed one left is known, and removed here.
    """
    given = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(given if given is not None and len(given) < 40 and os.access(given, os.W_OK) else "/tmp")
    with _holding:
        for held in [path for path in _held if not path.exists()]:
            os.close(_held.pop(held))
        own = _own(base)
        if own is not None:
            _sweep(own)
        made = Path(tempfile.mkdtemp(prefix=f"{RUNTIME}{prefix}-", dir=own or base))
        _hold(made)
    return made


def _own(base: Path) -> Path | None:
    """The directory below `base` in which nobody else has anything; None if somebody is in the way."""
    own = base / f".{RUNTIME}{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        own.mkdir(mode=0o700)
    status = own.lstat()
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return own if ours else None


def _hold(directory: Path) -> bool:
    """Lock `directory` until it has gone or this process has; False if another one has locked it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    _held[directory] = descriptor
    return True


def _sweep(own: Path) -> None:
    """Remove the directories of processes that were killed: with guests' overlays in them, they may be large."""
    for left in own.glob(f"{RUNTIME}*"):
        with contextlib.suppress(OSError):
            # One that has just been made may not be locked yet.
            old = time.time() - left.lstat().st_mtime > _YOUNG
            if old and left not in _held and _hold(left):
                shutil.rmtree(left, ignore_errors=True)
