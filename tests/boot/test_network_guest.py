"""The network suite on real guests, its capture, and two guests on one switch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfbuild.deadline import Deadline
from dfbuild.model import Cell, CheckResult, Media, Outcome, Shape, Variant
from dfbuild.releases import load
from dfbuild.releases.schema import Wire
from dfbuild.session import attach, keep
from dfbuild.session.held import MANIFEST
from dfbuild.session.protocol import Manifest
from dfbuild.shell import open_shell
from dfbuild.shell.protocol import Shell
from dfbuild.suites.events import Event, ResultEvent
from dfbuild.suites.probe import Probes
from dfbuild.suites.run import run_suites
from dfbuild.wire import open_wire
from dfbuild.wire.capture import read_capture
from dfbuild.wire.frames import Flag, Segment, decode
from dfbuild.wire.switch import switched
from dfbuild.workspace import Workspace

pytestmark = [pytest.mark.boot, pytest.mark.timeout(600)]

RELEASE = load("reference")
VARIANT = Variant("reference", "gcc-12", "on", "smp")
KNOWN = {"network/source-ports-random-same-target"}
NOT_LINUX = {
    "network/polling",
    "network/protocol-threads",
    "network/partition",
    "network/partition-stable",
    "network/refusals-limited",
    "network/rst-time-wait",
}


def minutes(count: float) -> Deadline:
    return Deadline.after(60 * count)


def network() -> Wire:
    assert RELEASE.wire is not None
    return RELEASE.wire


class Guests:
    """Kept guests, one of each shape, booted when first asked for."""

    def __init__(self, workspace: Workspace, media: Media) -> None:
        self._workspace, self._media = workspace, media
        self._up: dict[str, Manifest] = {}

    def __call__(self, shape: Shape) -> Manifest:
        if shape.name not in self._up:
            name = f"test-network-{shape.name}-{os.getpid()}"
            cell = Cell(VARIANT, shape, ("network",))
            self._up[shape.name] = keep.up(self._workspace, name, RELEASE, cell, self._media, minutes(4), print)
        return self._up[shape.name]

    def down(self) -> None:
        for manifest in self._up.values():
            keep.down(self._workspace, manifest.name, minutes(1))


UP, SMP2 = Shape("up"), Shape("smp2", sockets=2)


@pytest.fixture(scope="module")
def guests(workspace: Workspace, reference_media: Media) -> Iterator[Guests]:
    made = Guests(workspace, reference_media)
    yield made
    made.down()


@pytest.mark.parametrize(("shape", "via"), [(UP, "serial"), (SMP2, "ssh")], ids=["up-serial", "smp2-ssh"])
def test_all_is_as_expected(guests: Guests, shape: Shape, via: str, tmp_path: Path) -> None:
    manifest = guests(shape)
    directory = manifest.transcript.parent
    results: dict[str, CheckResult] = {}

    def event(what: Event) -> None:
        if isinstance(what, ResultEvent):
            results[what.result.check] = what.result

    status = run_suites(directory / MANIFEST, ("network",), via, minutes(3), event, tmp_path / "log")
    expected = {**dict.fromkeys(KNOWN, Outcome.KNOWN), **dict.fromkeys(NOT_LINUX, Outcome.SKIP)}
    odd = {
        check: (result.outcome, result.detail)
        for check, result in results.items()
        if result.outcome is not expected.get(check, Outcome.PASS)
    }
    assert odd == {}
    assert status == 0
    assert len(results) >= 28
    (connects,) = results["network/connect-storm"].samples
    assert (connects.metric, connects.unit) == ("connects", "1/s")
    assert len(results["network/throughput-8"].samples[0].values) == 9

    records = [decode(record.frame) for record in read_capture(directory / "wire.pcap")]
    segments = [segment for segment in records if isinstance(segment, Segment)]
    addresses = {segment.flow.source for segment in segments}
    assert addresses == {network().guest_address, network().peer_address}
    assert any(segment.flags == Flag.RST and segment.flow.source == network().peer_address for segment in segments)

    with attach(manifest) as session:
        shell = open_shell(session, RELEASE, "serial", minutes(1))
        try:
            processes = shell.run("ps", minutes(1)).text
        finally:
            shell.close()
    assert "dropbear" in processes
    assert "netserve" not in processes


def configure(shell: Shell, address: str) -> None:
    wire = network()
    command = wire.configure.format(interface=wire.interface[UP.nic], address=address, prefix=wire.prefix)
    answer = shell.run(command, minutes(1))
    assert answer.status == 0, answer.text


def test_two_guests_talk_over_a_switch(guests: Guests) -> None:
    manifests = guests(UP), guests(SMP2)
    assert manifests[0].wire is not None and manifests[1].wire is not None
    addresses = network().guest_address, network().peer_address
    with (
        open_wire(manifests[0].wire) as first,
        open_wire(manifests[1].wire) as second,
        switched([first, second]),
        attach(manifests[0]) as one,
        attach(manifests[1]) as other,
    ):
        shells = [open_shell(session, RELEASE, "serial", minutes(1)) for session in (one, other)]
        try:
            for shell, address in zip(shells, addresses, strict=True):
                configure(shell, address)
            server, client = (Probes(shell, RELEASE.probes, minutes(2).sooner) for shell in shells)
            report = server("netserve", addresses[0], 60)
            port = report.integers("ports", 4)[0]
            dialled = client("netdial", addresses[0], port, 20, 1, 0)
            shells[0].run(f"kill {report['pid']}", minutes(1))
        finally:
            for shell in shells:
                shell.close()
    assert dialled["refused"] == "0"
    assert len(set(dialled.integers("local", 20))) == 20
    assert first.dropped == second.dropped == 0
