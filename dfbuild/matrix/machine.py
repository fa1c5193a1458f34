"""Guests to build in: booted from what was built, with a shell, ended when the build is over."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from dfbuild.build.recipe import Kitchen
from dfbuild.errors import BuildFailed, GuestError
from dfbuild.guest import create
from dfbuild.guest.accel import probe
from dfbuild.guest.protocol import GuestSpec
from dfbuild.model import Cell, Media, Shape, Variant
from dfbuild.releases import Release
from dfbuild.session import boot
from dfbuild.shell import open_shell
from dfbuild.shell.protocol import Shell
from dfbuild.workspace import runtime_directory

_BOOT_SECONDS = 900.0


@contextlib.contextmanager
def machine(release: Release, variant: Variant, media: Media, memory: int, kitchen: Kitchen) -> Iterator[Shell]:
    """Implements `build.recipe.Machine`: one CPU of the release's own shape. Its console is in the step's logs."""
    shape = Shape("build", **{**release.shape.given(), "memory": memory})
    cell = Cell(variant, shape)
    runtime = runtime_directory("b")
    try:
        accel = probe(kitchen.workspace, kitchen.deadline)
        guest = create(GuestSpec(f"{variant.id} native build", shape, media, runtime, wire=False), accel)
        deadline = kitchen.deadline.sooner(_BOOT_SECONDS, what="a guest to build in")
        with boot(guest, release, cell, kitchen.log.parent, deadline) as session:
            shell = open_shell(session, release, "ssh" if session.manifest.ssh else "serial", deadline)
            try:
                yield shell
            finally:
                shell.close()
    except GuestError as error:
        if isinstance(error, BuildFailed):
            raise
        raise BuildFailed(
            f"the guest to build in: {error.message}", component=variant.id, log=kitchen.log.parent / "console.log"
        ) from error
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
