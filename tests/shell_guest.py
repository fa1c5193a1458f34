"""One booted reference guest, and shells in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dfbuild.deadline import Deadline
from dfbuild.guest import create
from dfbuild.guest.accel import probe
from dfbuild.guest.protocol import GuestSpec
from dfbuild.model import Cell, Media
from dfbuild.releases import load
from dfbuild.releases.schema import Release
from dfbuild.runtime import runtime_directory
from dfbuild.session import HeldSession, boot
from dfbuild.shell import Shell, open_shell
from dfbuild.workspace import Workspace


@dataclass
class ShellGuest:
    session: HeldSession
    release: Release

    def open(self, via: str, seconds: float = 90) -> Shell:
        return open_shell(self.session, self.release, via, Deadline.after(seconds))


@contextmanager
def booted(cell: Cell, media: Media, workspace: Workspace, log: Path) -> Iterator[ShellGuest]:
    """A guest that is up, as long as the block runs."""
    release = load("reference")
    directory = runtime_directory("t")
    try:
        guest = create(GuestSpec("shell", cell.shape, media, directory), probe(workspace, Deadline.after(60)))
        with boot(guest, release, cell, log, Deadline.after(300)) as session:
            yield ShellGuest(session, release)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
