"""Guests under Xen: to their login prompts, how they end, what is left of a crash, and cells of all kinds."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from arp import arp_reply
from raw_console import read_until

from dfbuild.build.recipe import Artefact
from dfbuild.build.targets import target
from dfbuild.config.shapes import Shapes
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, GuestCrashed, InfraError
from dfbuild.guest import create
from dfbuild.guest.accel import Accel
from dfbuild.guest.protocol import Guest, GuestSpec, State
from dfbuild.guest.xen.argv import LOG
from dfbuild.guest.xen.dom0 import CONTEXTS, DMESG
from dfbuild.guest.xen.guest import XenGuest
from dfbuild.matrix import xen
from dfbuild.model import Cell, Media, Variant, XenHost
from dfbuild.releases import load
from dfbuild.releases.schema import ShapeFields
from dfbuild.results.directory import cell_directory
from dfbuild.runtime import runtime_directory
from dfbuild.session import boot
from dfbuild.shell import open_shell
from dfbuild.workspace import Workspace

pytestmark = [pytest.mark.boot, pytest.mark.timeout(900)]

RELEASE = load("reference")
SHAPES = Shapes(RELEASE.shape, ShapeFields(), {})


def minutes(count: float) -> Deadline:
    return Deadline.after(count * 60)


def cell(kind: str, **more: object) -> Cell:
    return Cell(Variant("reference", "gcc-12", "on", "smp"), replace(SHAPES.compose(kind), **more))  # type: ignore[arg-type]


@dataclass
class Maker:
    """Makes guests, and ends them."""

    image: Artefact
    workspace: Workspace
    made: list[Guest]

    def media(self, wanted: Cell) -> Media:
        host = xen.host(wanted.shape, self.workspace)
        return xen.media(target(RELEASE), RELEASE, wanted, self.image, self.workspace, host)

    def guest(self, wanted: Cell, *words: str) -> Guest:
        media = self.media(wanted)
        media = replace(media, append=" ".join([media.append, *words]))
        self.made.append(create(GuestSpec(wanted.id, wanted.shape, media, runtime_directory("t")), Accel("tcg")))
        return self.made[-1]


@pytest.fixture
def maker(xen_host: XenHost, reference_image: Artefact, workspace: Workspace) -> Iterator[Maker]:
    maker = Maker(reference_image, workspace, [])
    yield maker
    for guest in maker.made:
        guest.stop(minutes(1))
        shutil.rmtree(guest.spec.directory)


@pytest.mark.parametrize(
    ("kind", "more", "says"),
    [
        ("xen-pv", {"nx": False}, "Xen PV"),
        ("xen-pvh", {}, "Xen HVM"),
    ],
)
def test_it_boots_and_is_reached_every_way(
    maker: Maker, tmp_path: Path, kind: str, more: dict[str, object], says: str
) -> None:
    wanted = cell(kind, **more)
    guest = maker.guest(wanted)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.bind(str(guest.wire_ends().peer))
        with boot(guest, RELEASE, wanted, tmp_path, minutes(8)) as session:
            assert [reached.stage for reached in session.stages] == ["kernel", "login"]
            assert guest.accel == "tcg"
            ssh = open_shell(session, RELEASE, "ssh", minutes(2))
            seen = ssh.run("dmesg | grep 'Hypervisor detected'; grep -c ^processor /proc/cpuinfo", minutes(1)).text
            assert says in seen and seen.split()[-1] == str(wanted.shape.cpus)
            flags = ssh.run("grep -cw nx /proc/cpuinfo", minutes(1)).text.strip()
            assert (flags != "0") == wanted.shape.nx
            ssh.run("ip addr add 10.9.0.1/24 dev eth1 && ip link set eth1 up", minutes(1))
            ssh.close()
            assert arp_reply(wire, guest.wire_ends().guest, minutes(1))[28:32] == bytes([10, 9, 0, 1])
            serial = open_shell(session, RELEASE, "serial", minutes(2))
            assert serial.run("echo over the console", minutes(1)).text == "over the console"
            guest.pause(minutes(1))
            assert guest.state is State.PAUSED
            diagnosis = guest.diagnose(minutes(1))
            assert "paused" in diagnosis and f"CPU#{wanted.shape.cpus - 1}" in diagnosis and "rip:" in diagnosis
            guest.resume(minutes(1))
            assert serial.run("echo again", minutes(1)).text == "again"
    messages = (guest.spec.directory / DMESG).read_text()
    assert "Xen version 4.17" in messages and "guest" in messages
    assert "Xen version 4.17" in (guest.spec.directory / LOG).read_text()


def test_a_panic_is_told_with_what_its_cpus_were_doing(maker: Maker, tmp_path: Path) -> None:
    wanted = cell("xen-pv")
    guest = maker.guest(wanted, "dfbuild.fault=panic")
    with pytest.raises(GuestCrashed) as caught:
        boot(guest, RELEASE, wanted, tmp_path, minutes(5))
    assert caught.value.report.title.startswith("panic: ")
    contexts = (guest.spec.directory / CONTEXTS).read_text()
    assert "CPU#0" in contexts and "rip: " in contexts and "Call Trace:" in contexts


def test_a_domain_that_ends_ends_its_guest_and_one_that_crashes_is_kept(maker: Maker) -> None:
    guest = maker.guest(cell("xen-pv"))
    with guest.start(minutes(2)) as console:
        read_until(console, b"login: ", minutes(4))
        console.sendall(b"root\n")
        read_until(console, b"# ", minutes(4))
        # A reset from here goes on with the same console.
        guest.reset(minutes(1))
        read_until(console, b"Linux version", minutes(4))
        read_until(console, b"login: ", minutes(4))
        console.sendall(b"root\n")
        read_until(console, b"# ", minutes(4))
        console.sendall(b"echo c > /proc/sysrq-trigger\n")
        printed = read_until(console, b"xen: domain 2 crashed", minutes(4))
        assert b"Kernel panic - not syncing: sysrq triggered crash" in printed
        context = read_until(console, b"Call Trace:", minutes(4), printed)
        assert b"CPU#0" in context and b"rip: " in context
        assert "shut down" in guest.diagnose(minutes(1))
        guest.reset(minutes(1))
        read_until(console, b"login: ", minutes(4))
        guest.power_button(minutes(1))
        end = guest.wait(minutes(2))
    assert (end.status, end.rung, end.cause) == (0, "guest", "guest-shutdown")


def test_of_a_host_that_does_not_answer_its_own_registers_are_told(maker: Maker) -> None:
    guest = maker.guest(cell("xen-pv"))
    assert isinstance(guest, XenGuest)
    guest.start(minutes(2)).close()
    with pytest.raises(DeadlineExceeded):
        guest._domain("sleep 8", Deadline.after(0.5))
    said = guest.diagnose(Deadline.after(4))
    assert "dom0 does not answer" in said and "RIP=" in said


def test_a_host_that_dies_before_its_guest_runs_is_told_at_once(maker: Maker, tmp_path: Path) -> None:
    wanted = cell("xen-pv")
    media = maker.media(wanted)
    assert isinstance(media.xen, XenHost)
    (tmp_path / "state").write_bytes(b"no state at all")
    spoilt = replace(media, xen=replace(media.xen, state=tmp_path / "state"))
    maker.made.append(create(GuestSpec("g", wanted.shape, spoilt, runtime_directory("t")), Accel("tcg")))
    with pytest.raises(InfraError, match="before the guest ran"):
        maker.made[-1].start(Deadline.after(60))


def test_cells_of_every_kind_pass(workspace: Workspace, xen_host: XenHost) -> None:
    """The whole way, as `dfbuild matrix` goes it, with a suite that says what the CPU is."""
    config = Path(__file__).parents[2] / "configs" / "xen.toml"
    done = subprocess.run(
        [
            sys.executable, "-m", "dfbuild", "matrix", str(config), "--work", str(workspace.root), "--json",
            "--filter", "shape=xen-pv,xen-pvh,xen-hvm", "--check", "security/*", "--guests", "1",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    run = json.loads(done.stdout)["run"]
    assert [cell["verdict"] for cell in run["cells"]] == ["PASS"] * 3
    for found in run["cells"]:
        checks = {check["check"]: check["outcome"] for check in found["checks"]}
        assert checks["security/nx-stack"] == "pass"
        logs = cell_directory(workspace, run["id"], found["id"])
        assert "Xen version 4.17" in (logs / LOG).read_text()
        assert (logs / DMESG).exists()
