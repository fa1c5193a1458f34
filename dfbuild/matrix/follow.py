"""Boots that a build step needs to see: a guest is started, followed to its last stage, and ended."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from dfbuild.build.recipe import Kitchen
from dfbuild.console.transcript import excerpt
from dfbuild.errors import BuildFailed, GuestError
from dfbuild.guest import create
from dfbuild.guest.accel import probe
from dfbuild.guest.protocol import GuestSpec
from dfbuild.model import Cell, Media, Shape, Variant
from dfbuild.releases import Release
from dfbuild.session import boot
from dfbuild.session.held import CONSOLE_LOG
from dfbuild.workspace import runtime_directory

_LINES = 20
"""Of the console, for a guest that does not get there."""


def follow(
    release: Release, media: Media, kitchen: Kitchen, what: str, kept: Path | None = None
) -> Mapping[str, float]:
    """Implements `build.recipe.Boot`. The console is in the directory `what` beside the step's log."""
    shape = Shape(what, **release.shape.given())
    cell = Cell(Variant(release.name, "none", "off", "own"), shape)
    runtime, logs = runtime_directory("i"), kitchen.log.with_name(what)
    try:
        accel = probe(kitchen.workspace, kitchen.deadline)
        guest = create(GuestSpec(what, shape, media, runtime, ssh_port=None, wire=False, kept=kept), accel)
        with boot(
            guest, release, cell, logs, kitchen.deadline, lambda at: kitchen.say(f"{what}: {at.stage}")
        ) as up:
            return {reached.stage: round(reached.seconds, 1) for reached in up.stages}
    except GuestError as error:
        log = logs / CONSOLE_LOG
        last = excerpt(log, log.stat().st_size, before=_LINES) if log.is_file() else ""
        raise BuildFailed(
            f"{what}: {error.message}", component=what, log=log, tail=last, hint=error.hint
        ) from error
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
