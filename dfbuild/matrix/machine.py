"""Guests to build in: booted from what was built, with a shell, ended when the build is over.

A build in an emulated guest takes hours. The guest's disk lies in `<work directory>/objects/<key of the step>/`,
with the whole machine in it as it was last saved, until the build comes to an end of its own, good or bad; or where
the step itself wants to have it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dfbuild.build.bench import Workbench
from dfbuild.build.recipe import Kitchen
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed
from dfbuild.guest.protocol import Guest
from dfbuild.matrix.stepguest import step_guest
from dfbuild.model import Cell, Media, Variant
from dfbuild.releases import Release
from dfbuild.session import boot_seconds
from dfbuild.shell import open_shell
from dfbuild.shell.errors import ShellLost
from dfbuild.shell.protocol import Answer, Shell

_BOOT_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class _Bench:
    """Implements `build.bench.Workbench`. Without `guest` nothing can be saved."""

    shell: Shell
    guest: Guest | None

    def run(self, command: str, deadline: Deadline) -> Answer:
        return self.shell.run(command, deadline)

    def put(self, source: Path, target: str, deadline: Deadline) -> None:
        self.shell.put(source, target, deadline)

    def get(self, source: str, target: Path, deadline: Deadline) -> None:
        self.shell.get(source, target, deadline)

    def save(self, deadline: Deadline) -> None:
        if self.guest is not None:
            self.guest.save(deadline)


@contextlib.contextmanager
def machine(
    release: Release, variant: Variant, media: Media, memory: int, kitchen: Kitchen, kept: Path | None = None
) -> Iterator[Workbench]:
    """Implements `build.bench.Machine`: one CPU of the release's own shape. Its console is in the step's logs."""
    shape = replace(release.own_shape, name="build", memory=memory)
    own = kept or kitchen.workspace.objects / kitchen.directory.name
    own.mkdir(mode=0o700, parents=True, exist_ok=True)  # the guest's memory and its host's key are in it
    limit = _BOOT_SECONDS + boot_seconds(shape, release)
    deadline = kitchen.deadline.sooner(limit, what="a guest to build in")
    lost = False
    try:
        with step_guest(release, Cell(variant, shape), media, kitchen, kitchen.log.parent, deadline, kept=own) as (
            guest,
            session,
        ):
            # A shell on the serial console cannot be entered a second time: what is saved is in the middle of it.
            via = "ssh" if session.manifest.ssh else "serial"
            try:
                with contextlib.closing(open_shell(session, release, via, deadline)) as shell:
                    yield _Bench(shell, guest if via == "ssh" else None)
            except ShellLost:
                lost = True
                raise
    except BuildFailed:
        if kept is None and not lost:
            shutil.rmtree(own)
        raise
    if kept is None:
        shutil.rmtree(own)
