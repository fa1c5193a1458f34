"""The other host on the wire, the guest's services, and what was seen of the guest's own connections."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dfbuild.deadline import Deadline, Within
from dfbuild.errors import InfraError
from dfbuild.model import Cell
from dfbuild.releases import Release
from dfbuild.releases.schema import Wire
from dfbuild.shell.protocol import Answer, Shell
from dfbuild.suites.probe import ProbeError, Probes, Report, parse, succeeded
from dfbuild.wire import Conversation, Link, Peer
from dfbuild.wire.frames import Flow, Segment

_LIFETIME = 60
"""Seconds that the services outlive the suites if nobody ends them."""

DIALS = 64
DIAL_PORT = 20000
"""The peer's first port for connections from the guest to as many ports. Behind those comes the one port that as
many go to, and then the ports for those whose source port bind(2) chooses."""


@dataclass(frozen=True, slots=True)
class Services:
    """The guest's TCP services (see `probes/netserve.c`) and the peer that talks to them."""

    peer: Peer
    address: str
    ports: dict[str, int]

    def connect(
        self, service: str, deadline: Deadline, *, source_port: int | None = None, stamp: int | None = None
    ) -> Conversation:
        """An established connection to `echo`, `discard`, `stall` or `status`; with `stamp`, it has timestamps."""
        return self.peer.connect(self.address, self.ports[service], deadline, source_port=source_port, stamp=stamp)

    def flow(self, service: str, source_port: int) -> Flow:
        """What such a connection from `source_port` is, seen from the peer."""
        return Flow(self.peer.address, source_port, self.address, self.ports[service])

    def start(self, service: str) -> Conversation:
        """The beginning of a connection."""
        return self.peer.start(self.address, self.ports[service])

    def status(self, deadline: Deadline) -> Report:
        """The counters, asked for over the wire."""
        with self.connect("status", deadline) as conversation:
            return parse("netserve", Answer("status", 0, conversation.read_all(deadline)))

    def count(self, counter: str, service: str, deadline: Deadline) -> int:
        """`accepted`, `bytes` or `resets` of a service so far."""
        values = self.status(deadline).integers(counter, 3)
        return values[("echo", "discard", "stall").index(service)]


@dataclass(frozen=True, slots=True)
class Dialled:
    """First segments of connections that the guest made one after the other."""

    syns: tuple[Segment, ...]

    @property
    def ports(self) -> list[int]:
        return [syn.flow.source_port for syn in self.syns]


@pytest.fixture(scope="session")
def network(release: Release) -> Wire:
    """What the release says about the wire."""
    if release.wire is None:
        raise InfraError(f"nothing is known about the wire of {release.name}", hint="its TOML needs a [wire] part")
    return release.wire


@pytest.fixture(scope="session")
def peer(wire: Link, shell: Shell, network: Wire, cell: Cell, within: Within) -> Iterator[Peer]:
    """The host at the other end of the wire; the guest's interface is configured."""
    interface = network.interface.get(cell.shape.nic)
    if interface is None:
        raise ProbeError(
            f"the release does not say what a {cell.shape.nic} is called in the guest",
            hint="wire.interface in its TOML",
        )
    command = network.configure.format(interface=interface, address=network.guest_address, prefix=network.prefix)
    succeeded(shell.run(command, within(20, what="the wire interface")))
    with Peer(wire, network.peer_address) as host:
        yield host


@pytest.fixture(scope="session")
def services(peer: Peer, network: Wire, probe: Probes, shell: Shell, within: Within) -> Iterator[Services]:
    """The guest's services; the process that gives them ends with the session."""
    lifetime = within(1e9).remaining() + _LIFETIME
    report = probe("netserve", network.guest_address, round(lifetime))
    (pid,) = report.integers("pid", 1)
    ports = dict(zip(("echo", "discard", "stall", "status"), report.integers("ports", 4), strict=True))
    yield Services(peer, network.guest_address, ports)
    shell.run(f"kill {pid}", within(20, what="the end of netserve"))


@pytest.fixture(scope="session")
def dialled(peer: Peer, network: Wire, probe: Probes) -> Dialled:
    """Connections of the guest to as many ports of the peer."""
    return _dial(peer, network, probe, DIAL_PORT, DIALS)


@pytest.fixture(scope="session")
def dialled_bound(peer: Peer, network: Wire, probe: Probes) -> Dialled:
    """The same, each from a port that the guest's bind(2) chose when there was no target yet."""
    return _dial(peer, network, probe, DIAL_PORT + DIALS + 1, DIALS, bind=True)


@pytest.fixture(scope="session")
def dialled_again(peer: Peer, network: Wire, probe: Probes) -> Dialled:
    """Connections of the guest to one port of the peer."""
    return _dial(peer, network, probe, DIAL_PORT + DIALS, 1)


def _dial(peer: Peer, network: Wire, probe: Probes, port: int, ports: int, *, bind: bool = False) -> Dialled:
    listeners = [peer.listen(port + number) for number in range(ports)]
    for listener in listeners:
        listener.syns.clear()
    report = probe("netdial", network.peer_address, port, DIALS, ports, int(bind))
    if report["refused"] != "0":
        raise ProbeError(f"{report['refused']} of the guest's {DIALS} connections failed")
    # Each port has its own list, in order; the guest goes round the ports.
    syns = tuple(listeners[number % ports].syns[number // ports] for number in range(DIALS))
    if [syn.flow.source_port for syn in syns] != list(report.integers("local", DIALS)):
        raise ProbeError(f"the guest says {report['local']}, the wire {[str(syn) for syn in syns]}")
    return Dialled(syns)
