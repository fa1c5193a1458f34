"""A guest on a Xen host behind SSH: the host is dfbuild's own with an SSH server, and knows nothing of dfbuild."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from arp import arp_reply
from given_xen_host import GivenHost, given_host

from dfbuild.build.recipe import Artefact
from dfbuild.build.store import ArtefactStore, build_all
from dfbuild.build.targets import target
from dfbuild.config.shapes import Shapes
from dfbuild.deadline import Deadline
from dfbuild.errors import GuestCrashed
from dfbuild.guest import create
from dfbuild.guest.accel import Accel
from dfbuild.guest.protocol import GuestSpec
from dfbuild.guest.xen.examine import examine
from dfbuild.matrix import xen
from dfbuild.model import Cell, GivenXenHost, Variant
from dfbuild.releases import load
from dfbuild.releases.schema import ShapeFields
from dfbuild.runtime import runtime_directory
from dfbuild.session import boot
from dfbuild.shell import open_shell
from dfbuild.workspace import Workspace

pytestmark = [pytest.mark.boot, pytest.mark.timeout(900)]

RELEASE = load("reference")
CONFIG = Path(__file__).parents[2] / "configs" / "xen.toml"


@pytest.fixture(scope="module")
def host(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GivenHost]:
    with given_host(workspace, tmp_path_factory.mktemp("host"), 1280) as host:
        yield host


@pytest.fixture
def known(host: GivenHost, monkeypatch: pytest.MonkeyPatch) -> GivenHost:
    """The host, with an `ssh` on PATH that knows it."""
    monkeypatch.setenv("PATH", f"{host.path}:{os.environ['PATH']}")
    return host


def minutes(count: float) -> Deadline:
    return Deadline.after(count * 60)


def left(host: GivenHost) -> str:
    """What is on the host of guests, once that is nothing or a minute has passed."""
    seen = "ls /var/tmp; xl list | tail -n +3; ls /sys/class/net | grep ^dfb; losetup -a"
    return host.run(f'for _ in $(seq 60); do [ -n "$({seen})" ] || break; sleep 1; done; {seen}; true')


def test_a_host_whose_key_is_not_known_is_refused(workspace: Workspace, host: GivenHost) -> None:
    line = [
        "matrix",
        str(CONFIG),
        "--work",
        str(workspace.root),
        "--filter",
        "shape=xen-pv",
        "--xen-host",
        host.url,
    ]
    done = subprocess.run(  # by the plain ssh
        [sys.executable, "-m", "dfbuild", *line], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Host key verification failed" in done.stderr and "known_hosts" in done.stderr


def test_a_guest_on_it_is_reached_every_way_and_its_crash_is_told(
    workspace: Workspace, reference_image: Artefact, known: GivenHost, tmp_path: Path
) -> None:
    shape = Shapes(RELEASE.shape, ShapeFields(), {}).compose("xen-pv")
    wanted = Cell(Variant("reference", "gcc-12", "on", "smp"), shape)
    given = GivenXenHost(known.url)
    examine(given, [shape], minutes(1))
    recipe = xen.host(shape, workspace, given)
    assert recipe is not None
    build_all(recipe, ArtefactStore(workspace), minutes(2), print)
    media = xen.media(target(RELEASE), RELEASE, wanted, reference_image, workspace, recipe, given)
    guest = create(GuestSpec(wanted.id, shape, media, runtime_directory("t")), Accel("tcg"))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
            wire.bind(str(guest.wire_ends().peer))
            with boot(guest, RELEASE, wanted, tmp_path, minutes(8)) as session:
                assert guest.accel == "tcg", "its host is emulated, and says so"
                ssh = open_shell(session, RELEASE, "ssh", minutes(2))
                assert "Xen PV" in ssh.run("dmesg | grep 'Hypervisor detected'", minutes(1)).text
                ssh.run("ip addr add 10.9.0.1/24 dev eth1 && ip link set eth1 up", minutes(1))
                assert arp_reply(wire, guest.wire_ends().guest, minutes(1))[28:32] == bytes([10, 9, 0, 1])
                with pytest.raises(GuestCrashed) as caught:
                    ssh.run("echo c > /proc/sysrq-trigger", minutes(2))
                assert caught.value.report.title.startswith("panic: ")
                ssh.close()
    finally:
        guest.stop(minutes(1))
        shutil.rmtree(guest.spec.directory)
    assert left(known) == ""
