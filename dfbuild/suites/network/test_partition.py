"""TCP is partitioned: every connection is one CPU's, by its addresses and ports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from dfbuild.deadline import Deadline
from dfbuild.releases.schema import Wire
from dfbuild.suites.network.conftest import Services
from dfbuild.suites.network.partition import PARTITIONS, Partition
from dfbuild.suites.probe import ProbeError, integers

Ask = Callable[[str], str]
Fact = Callable[[str, object], None]

CONNECTIONS = 64
"""At least, of which every CPU gets another number: who deals them out otherwise is found out."""
AGAIN = 16
PORTS = range(30000, 60000)
"""Of the peer."""


@pytest.fixture(scope="module")
def cpus(ask: Ask) -> int:
    """The CPUs that the guest runs on."""
    return integers(ask("cpu-count"), 1)[0]


def test_protocol_threads(ask: Ask, network: Wire, cpus: int, fact: Fact) -> None:
    """TCP and UDP have a thread on every CPU that owns connections."""
    tcp, udp = integers(ask("protocol-threads"), 2)
    fact("threads", f"{tcp} for TCP, {udp} for UDP")
    wanted = known(network).owners(cpus)
    assert (tcp, udp) == (wanted, wanted), f"{tcp} threads for TCP and {udp} for UDP on {cpus} CPUs"


def test_partition(services: Services, network: Wire, ask: Ask, cpus: int, fact: Fact, deadline: Deadline) -> None:
    """Connections fall to the CPUs exactly as can be told beforehand."""
    ports = unequal(services, network, cpus)
    seen, wanted = _accepted(services, network, ask, cpus, ports, deadline)
    fact("accepted", " ".join(map(str, seen)))
    assert seen == wanted, f"of {len(ports)} connections the {cpus} CPUs accepted {seen}, not {wanted}"


def test_partition_stable(services: Services, network: Wire, ask: Ask, cpus: int, deadline: Deadline) -> None:
    """The same addresses and ports are the same CPU's, every time."""
    seen, wanted = _accepted(services, network, ask, cpus, [PORTS[-1]] * AGAIN, deadline)
    assert seen == wanted, f"of {AGAIN} times the same connection the {cpus} CPUs accepted {seen}, not {wanted}"


def known(network: Wire) -> Partition:
    """How the release partitions connections; `ProbeError` if it does not say."""
    if network.partition is None:
        raise ProbeError(
            "the release does not say how it partitions connections", hint="wire.partition in its TOML"
        )
    return PARTITIONS[network.partition]


def unequal(services: Services, network: Wire, cpus: int) -> list[int]:
    """Ports of the peer from which connections fall to the first CPU once, to the second twice, and so on, times
    what makes them `CONNECTIONS`."""
    partition = known(network)
    left = Counter({cpu: cpu + 1 for cpu in range(partition.owners(cpus))})
    left = Counter({cpu: share * -(-CONNECTIONS // left.total()) for cpu, share in left.items()})
    chosen = []
    for port in PORTS:
        mine = partition.owner(services.flow("echo", port), cpus)
        if left[mine] > 0:
            left[mine] -= 1
            chosen.append(port)
    return chosen


def _accepted(
    services: Services, network: Wire, ask: Ask, cpus: int, ports: list[int], deadline: Deadline
) -> tuple[list[int], list[int]]:
    """How many connections from `ports`, one after the other, each CPU accepted, and how many it should have."""
    partition = known(network)
    before = integers(ask("tcp-accepts"))
    fallen: Counter[int] = Counter()
    for port in ports:
        with services.connect("echo", deadline, source_port=port) as conversation:
            conversation.send(b"?")
            conversation.read(1, deadline)
            fallen[partition.owner(conversation.flow, cpus)] += 1
    after = integers(ask("tcp-accepts"))
    if len(before) != cpus or len(after) != cpus:
        raise ProbeError(f"{len(after)} CPUs count accepted connections, but {cpus} run")
    return [new - old for new, old in zip(after, before, strict=True)], [fallen[cpu] for cpu in range(cpus)]
