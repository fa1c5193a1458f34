"""What a guest under Xen costs: exec ▸ dom0 ready ▸ domain created ▸ login ▸ SSH, and through the scheduler suite.

    python benchmarks/bench_xen.py [ROUNDS] [SHAPE ...]

Each round has, one after another, the same guest right under QEMU, and for every shape (default: xen-pv, xen-pvh)
as a domain on a Xen host that is booted for it and on one that is restored from its state. What is printed are
medians of the rounds (default: 3), and what they are divided by the bare guest's. `DFBUILD_WORK` names the work
directory; what is missing is built into it first. There is no budget: under emulation the host's load decides.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from dfbuild.build.store import ArtefactStore, build_all
from dfbuild.build.targets import target
from dfbuild.config.shapes import Shapes
from dfbuild.deadline import Deadline
from dfbuild.guest import create
from dfbuild.guest.accel import Accel
from dfbuild.guest.protocol import GuestSpec
from dfbuild.guest.xen.machine import XenMachine
from dfbuild.matrix import xen
from dfbuild.model import Cell, Media, Shape, Variant, XenHost
from dfbuild.releases import load
from dfbuild.releases.schema import ShapeFields
from dfbuild.runtime import runtime_directory
from dfbuild.session import boot
from dfbuild.shell import open_shell
from dfbuild.suites.run import Event, ResultEvent, run_suites
from dfbuild.workspace import Workspace

RELEASE = load("reference")
SHAPES = Shapes(RELEASE.shape, ShapeFields(), {})
BARE = "up"

Figures = dict[str, float]
"""What was measured ▸ seconds, or microseconds for what the suite samples."""


def soon() -> Deadline:
    return Deadline.after(900)


def cold(host: XenHost) -> XenHost:
    """The same host, to be booted."""
    return replace(host, state=None, log=None)


def dom0(host: XenHost) -> float:
    """Seconds from the host's exec until its dom0 answers."""
    directory = runtime_directory("t")
    spec = GuestSpec("xen", Shape("xen"), Media(xen=host), directory, ssh_port=None, wire=False)
    machine = XenMachine(spec, Accel("tcg"))
    began = time.perf_counter()
    try:
        with machine.start(soon()):
            return time.perf_counter() - began
    finally:
        machine.stop(soon())
        shutil.rmtree(directory)


def guest(cell: Cell, media: Media) -> Figures:
    """Seconds from a guest's exec to each of its stages; with suites what these take, and what they sampled."""
    directory, logs = runtime_directory("t"), Path(tempfile.mkdtemp())
    found: Figures = {}

    def sampled(event: Event) -> None:
        for sample in event.result.samples if isinstance(event, ResultEvent) else ():
            if sample.unit == "us":
                found[sample.metric] = statistics.median(sample.values)

    began = time.perf_counter()
    try:
        made = create(GuestSpec(cell.id, cell.shape, media, directory), Accel("tcg"))
        with boot(made, RELEASE, cell, logs, soon()) as session:
            found["login"] = time.perf_counter() - began
            found["running"] = found["login"] - session.stages[-1].seconds
            shell = open_shell(session, RELEASE, "ssh", soon())
            shell.run("true", soon())
            found["SSH"] = time.perf_counter() - began
            shell.close()
            if cell.suites:
                began = time.perf_counter()
                run_suites(session.manifest_path, cell.suites, "ssh", soon(), sampled, logs / "suites.log")
                found["suite"] = time.perf_counter() - began
    finally:
        shutil.rmtree(directory)
        shutil.rmtree(logs)
    return found


def prepare(name: str, workspace: Workspace) -> tuple[Cell, Media]:
    """The cell of the shape `name`, and what it boots from, built."""
    cell = Cell(Variant("reference", "gcc-12", "on", "smp"), SHAPES.compose(name), ("scheduler",))
    store = ArtefactStore(workspace)
    image = build_all(target(RELEASE).image(RELEASE, cell, workspace), store, soon(), print)
    host = xen.host(cell.shape, workspace)
    if host is not None:
        build_all(host, store, soon(), print)
    return cell, xen.media(target(RELEASE), RELEASE, cell, image, workspace, host)


def one_round(guests: dict[str, tuple[Cell, Media]]) -> dict[str, Figures]:
    """Who ▸ its figures, of each guest and each host once."""
    found: dict[str, Figures] = {}
    for name, (cell, media) in guests.items():
        if isinstance(media.xen, XenHost):
            hosts = {"booted": cold(media.xen), "restored": media.xen}
            for how, host in hosts.items():
                found.setdefault(f"dom0 {how}", {"ready": dom0(host)})
            booted = replace(media, xen=hosts["booted"])
            found[f"{name} on a booted host"] = guest(replace(cell, suites=()), booted)
        found[name] = guest(cell, media)
    return found


def main(rounds: int = 3, names: tuple[str, ...] = ("xen-pv", "xen-pvh")) -> None:
    workspace = Workspace.locate()
    guests = {name: prepare(name, workspace) for name in (BARE, *names)}
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(rounds):
        for who, figures in one_round(guests).items():
            for what, value in figures.items():
                seen[who, what].append(value)
    bare = {what: statistics.median(values) for (who, what), values in seen.items() if who == BARE}
    for (who, what), values in seen.items():
        median = statistics.median(values)
        ratio = f"  {median / bare[what]:5.1f}" if what in bare and who != BARE else ""
        print(f"{who:26}  {what:9}  {median:10.2f}{ratio}   ({', '.join(f'{value:.2f}' for value in values)})")


if __name__ == "__main__":
    main(*([int(sys.argv[1])] if sys.argv[1:] else []), *([tuple(sys.argv[2:])] if sys.argv[2:] else []))
