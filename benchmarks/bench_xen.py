"""What a guest under Xen costs: exec ▸ dom0 ready ▸ domain created ▸ login ▸ SSH, cold and from the host's state.

    python benchmarks/bench_xen.py [SHAPE ...]

For every shape (default: up, xen-pv, xen-pvh) also the time of the scheduler suite: a domain can be compared with
the same guest right under QEMU. Builds what is missing into the work directory first. There is no budget: under
emulation the host's load decides.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from dfbuild.build.recipe import Artefact
from dfbuild.build.store import ArtefactStore, build_all
from dfbuild.build.targets import target
from dfbuild.config.shapes import Shapes
from dfbuild.deadline import Deadline
from dfbuild.guest import create
from dfbuild.guest.accel import Accel
from dfbuild.guest.protocol import GuestSpec
from dfbuild.guest.xen.machine import XenMachine
from dfbuild.matrix import xen
from dfbuild.model import Cell, Media, Shape, Variant
from dfbuild.releases import load
from dfbuild.releases.schema import ShapeFields
from dfbuild.session import boot
from dfbuild.shell import open_shell
from dfbuild.suites.run import run_suites
from dfbuild.workspace import Workspace, runtime_directory

RELEASE = load("reference")


def soon() -> Deadline:
    return Deadline.after(900)


def host(media: Media, *, cold: bool) -> float:
    """Seconds from the host's exec until its dom0 answers."""
    assert media.xen is not None
    given = replace(media.xen, state=None, log=None) if cold else media.xen
    directory = runtime_directory("t")
    machine = XenMachine(
        GuestSpec("xen", Shape("xen"), Media(xen=given), directory, ssh_port=None, wire=False), Accel("tcg")
    )
    began = time.perf_counter()
    try:
        with machine.start(soon()):
            return time.perf_counter() - began
    finally:
        machine.stop(soon())
        shutil.rmtree(directory)


def guest(cell: Cell, media: Media) -> dict[str, float]:
    """Seconds from a guest's exec to each of its stages, and what the scheduler suite takes."""
    directory, logs = runtime_directory("t"), Path(tempfile.mkdtemp())
    found: dict[str, float] = {}
    began = time.perf_counter()
    try:
        made = create(GuestSpec(cell.id, cell.shape, media, directory), Accel("tcg"))
        with boot(made, RELEASE, cell, logs, soon()) as session:
            login = session.stages[-1].seconds
            found["running"] = time.perf_counter() - began - login
            found["login"] = time.perf_counter() - began
            shell = open_shell(session, RELEASE, "ssh", soon())
            shell.run("true", soon())
            found["SSH"] = time.perf_counter() - began
            shell.close()
            began = time.perf_counter()
            run_suites(session.manifest_path, ("scheduler",), "ssh", soon(), lambda _: None, logs / "suites.log")
            found["scheduler suite"] = time.perf_counter() - began
    finally:
        shutil.rmtree(directory)
        shutil.rmtree(logs)
    return found


def main() -> None:
    workspace = Workspace.locate()
    store = ArtefactStore(workspace)
    shapes = Shapes(RELEASE.shape, ShapeFields(), {})
    measured: set[int] = set()
    for name in sys.argv[1:] or ["up", "xen-pv", "xen-pvh"]:
        cell = Cell(Variant("reference", "gcc-12", "on", "smp"), shapes.compose(name), ("scheduler",))
        image: Artefact = build_all(target(RELEASE).image(RELEASE, cell, workspace), store, soon(), print)
        recipe = xen.host(cell.shape, workspace)
        if recipe is not None:
            build_all(recipe, store, soon(), print)
        media = xen.media(target(RELEASE), RELEASE, cell, image, workspace)
        if media.xen is not None and media.xen.memory not in measured:
            measured.add(media.xen.memory)
            for cold in (True, False):
                how = "booted" if cold else "restored"
                print(f"Xen host of {media.xen.memory} MiB, {how}: dom0 ready after {host(media, cold=cold):.1f} s")
        times = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in guest(cell, media).items())
        print(f"{name}: {times}")


if __name__ == "__main__":
    main()
