"""The Xen hosts that cells with Xen shapes run on: booted once, and kept as the state of a host that is up."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dfbuild.build import xen
from dfbuild.build.recipe import Artefact, Kitchen, Recipe
from dfbuild.build.store import ArtefactStore
from dfbuild.build.targets import Target
from dfbuild.build.xen import tap
from dfbuild.guest.accel import Accel, qemu_version
from dfbuild.guest.protocol import GuestSpec
from dfbuild.guest.xen.argv import LOG, host_argv, host_memory
from dfbuild.guest.xen.machine import XenMachine
from dfbuild.model import Cell, GivenXenHost, Media, Shape, StepKind, XenHost
from dfbuild.releases import Release
from dfbuild.runtime import runtime_directory
from dfbuild.workspace import Workspace

STATE = "state"
_STOP_SECONDS = 15.0


def host(shape: Shape, workspace: Workspace, given: GivenXenHost | None = None) -> Recipe | None:
    """The recipe of the host of guests of `shape`, or what a `given` one needs; None for those of QEMU."""
    if not shape.on_xen:
        return None
    if given is not None:
        return tap.recipe()
    return _booted(host_memory(shape.memory), xen.recipe(workspace))


def media(
    target: Target,
    release: Release,
    cell: Cell,
    image: Artefact,
    workspace: Workspace,
    recipe: Recipe | None,
    given: GivenXenHost | None = None,
) -> Media:
    """What the guest of `cell` boots from: what `target` says, and on what host: the `given` one, or a made one.

    `recipe` is that of `host`, as it was planned and made.
    """
    found = target.media(release, cell, image, workspace)
    if recipe is None:
        return found
    if given is not None:
        return replace(found, xen=replace(given, tap=ArtefactStore(workspace).path(recipe) / tap.TAP))
    return replace(found, xen=ready(recipe, cell.shape, workspace))


def ready(recipe: Recipe, shape: Shape, workspace: Workspace) -> XenHost:
    """The host that `recipe` made for guests of `shape`, up as it was left."""
    (files,) = recipe.needs
    store = ArtefactStore(workspace)
    state = store.path(recipe)
    return replace(_host(store.path(files), host_memory(shape.memory)), state=state / STATE, log=state / LOG)


def _host(files: Path, memory: int) -> XenHost:
    return XenHost(files / xen.XEN, files / xen.KERNEL, files / xen.INITRD, memory)


def _spec(files: Path, memory: int, directory: Path) -> GuestSpec:
    """A host of `memory` MiB with nothing on it and networks that lead nowhere."""
    return GuestSpec("xen", Shape("xen"), Media(xen=_host(files, memory)), directory, ssh_port=None, wire=False)


def _booted(memory: int, files: Recipe) -> Recipe:
    """The recipe of the state of a host with `memory` MiB whose dom0 is up, and of what Xen printed until then."""

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        kitchen.say(f"booting a Xen host of {memory} MiB")
        directory = runtime_directory("x")
        machine = XenMachine(_spec(kitchen.needs[0].path, memory, directory), Accel("tcg"))
        try:
            console = machine.start(kitchen.deadline)
            with console:
                kitchen.say("saving its state")
                machine.write_state(kitchen.directory / STATE, kitchen.deadline)
                shutil.copyfile(directory / LOG, kitchen.directory / LOG)
        finally:
            machine.stop(kitchen.deadline.sooner(_STOP_SECONDS, what="the Xen host's end"))
            if (directory / LOG).exists():
                shutil.copyfile(directory / LOG, kitchen.log)
            shutil.rmtree(directory, ignore_errors=True)
        return {"bytes": (kitchen.directory / STATE).stat().st_size}

    # Another QEMU or other devices have another state. The paths say nothing: they stand for any.
    anywhere = Path("/x")
    machine = [qemu_version(), *host_argv(_spec(anywhere, memory, anywhere), {}, restored=False)]
    inputs = {"machine": machine, "form": 2}
    title = f"Xen host {memory} MiB"
    return Recipe(StepKind.GUEST, title, inputs, make, needs=(files,), minutes=8, guest=memory)
