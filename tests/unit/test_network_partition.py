"""Which CPU owns a connection, and the checks that compare a guest with it."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.deadline import Deadline
from dfbuild.releases.schema import Wire
from dfbuild.suites.network import test_partition as partition
from dfbuild.suites.network.partition import PARTITIONS, toeplitz
from dfbuild.suites.probe import ProbeError
from dfbuild.wire.frames import Flow

GUEST, HOST = "10.9.0.1", "10.9.0.2"
NETWORK = Wire(interface={"e1000": "em1"}, configure="true", partition="low-bytes")
LOW_BYTES = PARTITIONS["low-bytes"]
ports = st.integers(1, 65535)


@pytest.mark.parametrize(
    ("flow", "cpus", "expected"),
    [
        (Flow(HOST, 30000, GUEST, 1024), 2, (2 ^ 1 ^ 0x30 ^ 0x00) & 1),
        (Flow(HOST, 30001, GUEST, 1024), 2, (2 ^ 1 ^ 0x31 ^ 0x00) & 1),
        (Flow("192.168.1.7", 0x1234, "10.0.0.9", 0xABCD), 4, (7 ^ 9 ^ 0x34 ^ 0xCD) & 3),
        (Flow("192.168.1.7", 0x1234, "10.0.0.9", 0xABCD), 1, 0),
    ],
)
def test_owners_as_the_kernel_computes_them(flow: Flow, cpus: int, expected: int) -> None:
    assert LOW_BYTES.owner(flow, cpus) == expected


@pytest.mark.parametrize("name", sorted(PARTITIONS))
@given(cpus=st.integers(1, 64), source=ports, target=ports)
def test_both_directions_of_a_connection_have_one_owner(name: str, cpus: int, source: int, target: int) -> None:
    partition, flow = PARTITIONS[name], Flow(HOST, source, GUEST, target)
    assert 0 <= partition.owner(flow, cpus) < partition.owners(cpus) <= cpus
    assert partition.owner(flow, cpus) == partition.owner(flow.reverse, cpus)


@given(st.integers(1, 64))
def test_how_many_own_connections(cpus: int) -> None:
    assert LOW_BYTES.owners(cpus) <= cpus < 2 * LOW_BYTES.owners(cpus)
    assert PARTITIONS["toeplitz"].owners(cpus) == cpus


def reference(key: bytes, data: bytes) -> int:
    """The hash as Microsoft describes it: for every bit set in the data, 32 bits of the key from there on."""
    bits, found = int.from_bytes(key, "big"), 0
    for number in range(8 * len(data)):
        if data[number // 8] >> (7 - number % 8) & 1:
            found ^= bits >> (8 * len(key) - 32 - number) & 0xFFFFFFFF
    return found


# The key and the first example of Microsoft's own verification suite for IPv4.
_KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")


def words(flow: Flow) -> bytes:
    addresses = IPv4Address(flow.source).packed + IPv4Address(flow.target).packed
    return addresses + flow.source_port.to_bytes(2, "big") + flow.target_port.to_bytes(2, "big")


def test_the_reference_is_microsofts() -> None:
    flow = Flow("66.9.149.187", 2794, "161.142.100.80", 1766)
    assert reference(_KEY, words(flow)) == 0x51CCC178


@given(st.ip_addresses(v=4), ports, st.ip_addresses(v=4), ports)
def test_toeplitz_is_the_references_with_two_bytes_for_a_key(
    source: IPv4Address, source_port: int, target: IPv4Address, target_port: int
) -> None:
    flow = Flow(str(source), source_port, str(target), target_port)
    assert toeplitz(flow) == reference(b"\x6d\x5a" * 20, words(flow)) & 0x7F


def test_every_way_that_a_release_can_name_is_known() -> None:
    names, _ = get_args(Wire.model_fields["partition"].annotation)
    assert set(get_args(names)) == set(PARTITIONS)


class PartitionedGuest:
    """Accepts connections on the CPU that `choose` names, and counts them there."""

    def __init__(self, cpus: int, choose: Callable[[Flow], int]) -> None:
        self.counts = [0] * cpus
        self.choose = choose

    def flow(self, service: str, source_port: int) -> Flow:
        return Flow(HOST, source_port, GUEST, {"echo": 4243}[service])

    def connect(self, service: str, deadline: Deadline, *, source_port: int) -> Any:
        flow = self.flow(service, source_port)
        self.counts[self.choose(flow)] += 1

        class Conversation:
            def __enter__(self) -> Any:
                return SimpleNamespace(flow=flow, send=lambda data: None, read=lambda count, deadline: b"?")

            def __exit__(self, *exception: object) -> None: ...

        return Conversation()

    def ask(self, name: str) -> str:
        assert name == "tcp-accepts"
        return "\n".join(map(str, self.counts))


def check(guest: Any, cpus: int, facts: dict[str, object], network: Wire = NETWORK) -> None:
    deadline = Deadline.after(10)
    partition.test_partition(guest, network, guest.ask, cpus, facts.__setitem__, deadline)
    partition.test_partition_stable(guest, network, guest.ask, cpus, deadline)


@pytest.mark.parametrize("cpus", [1, 2, 3, 4])
def test_a_guest_that_partitions_passes(cpus: int) -> None:
    facts: dict[str, object] = {}
    check(PartitionedGuest(cpus, lambda flow: LOW_BYTES.owner(flow, cpus)), cpus, facts)
    counts = [int(word) for word in str(facts["accepted"]).split()]
    assert sum(counts) >= partition.CONNECTIONS
    owners = LOW_BYTES.owners(cpus)
    assert len(set(counts[:owners])) == owners
    assert [count > 0 for count in counts] == [cpu < owners for cpu in range(cpus)]


@pytest.mark.parametrize("choose", [lambda flow: 0, lambda flow: (flow.source_port + 1) % 2])
def test_a_guest_that_does_otherwise_fails(choose: Callable[[Flow], int]) -> None:
    with pytest.raises(AssertionError, match="accepted"):
        check(PartitionedGuest(2, choose), 2, {})


def test_what_cannot_be_told_is_an_error_of_the_check() -> None:
    guest = PartitionedGuest(1, lambda flow: 0)
    with pytest.raises(ProbeError, match="1 CPUs count"):
        check(guest, 2, {})
    with pytest.raises(ProbeError, match="does not say"):
        check(guest, 1, {}, Wire(interface={"e1000": "em1"}, configure="true"))


def test_protocol_threads_are_one_for_each_owner() -> None:
    facts: dict[str, object] = {}
    partition.test_protocol_threads(lambda name: "2 2\n", NETWORK, 3, facts.__setitem__)
    for said in ("1 1", "2 1", "3 3"):
        with pytest.raises(AssertionError):
            partition.test_protocol_threads(lambda name, said=said: said, NETWORK, 3, facts.__setitem__)
    with pytest.raises(ProbeError):
        partition.test_protocol_threads(lambda name: "none", NETWORK, 3, facts.__setitem__)
