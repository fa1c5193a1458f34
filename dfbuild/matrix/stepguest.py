"""A guest that a build step boots: up as long as the step looks at it or works in it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from dfbuild.build.recipe import Kitchen
from dfbuild.console.transcript import excerpt
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed, GuestError
from dfbuild.guest import create
from dfbuild.guest.accel import probe
from dfbuild.guest.protocol import Guest, GuestSpec
from dfbuild.model import Cell, Media, StageReached
from dfbuild.releases import Release
from dfbuild.runtime import runtime_directory
from dfbuild.session import HeldSession, boot
from dfbuild.session.held import CONSOLE_LOG

_LINES = 20
"""Of the console, for a guest that comes to grief."""


@contextlib.contextmanager
def step_guest(
    release: Release,
    cell: Cell,
    media: Media,
    kitchen: Kitchen,
    logs: Path,
    deadline: Deadline,
    *,
    ssh: bool = True,
    kept: Path | None = None,
    reached: Callable[[StageReached], None] = lambda _: None,
) -> Iterator[tuple[Guest, HeldSession]]:
    """The guest `cell`, up to its last stage, with its console in the directory `logs`. What it is saved as is in
    `kept`, if given, and gone on with if it is there.

    It is only followed without `ssh`. What becomes of it, here and inside, is raised as `BuildFailed`, with the
    console's last lines.
    """
    name = cell.shape.name
    runtime = runtime_directory("b")
    try:
        spec = GuestSpec(name, cell.shape, media, runtime, wire=False, kept=kept)
        guest = create(spec if ssh else replace(spec, ssh_port=None), probe(kitchen.workspace, kitchen.deadline))
        if guest.saved:
            kitchen.say("going on in the guest as it was last saved")
        with boot(guest, release, cell, logs, deadline, reached) as session:
            yield guest, session
    except BuildFailed:
        raise
    except GuestError as error:
        log = logs / CONSOLE_LOG
        last = excerpt(log, log.stat().st_size, before=_LINES) if log.is_file() else ""
        raise BuildFailed(
            f"{name}: {error.message}", component=name, log=log, tail=last, hint=error.hint
        ) from error
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
