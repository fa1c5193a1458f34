"""Which CPU owns a TCP connection, by its addresses and ports: what can be known outside of the guest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from dfbuild.wire.frames import Flow


@dataclass(frozen=True, slots=True)
class Partition:
    """How connections are dealt out: by `hash` among the first `owners` of so many CPUs."""

    hash: Callable[[Flow], int]
    owners: Callable[[int], int]

    def owner(self, flow: Flow, cpus: int) -> int:
        """The CPU that owns `flow` in a guest that runs on `cpus` CPUs."""
        return self.hash(flow) % self.owners(cpus)


def low_bytes(flow: Flow) -> int:
    """The exclusive or of the last bytes of both addresses and both ports: sys/netinet/ip_demux.c before 2.4."""
    last = (int(IPv4Address(address)) for address in (flow.source, flow.target))
    found = 0
    for value in (*last, flow.source_port, flow.target_port):
        found ^= value & 0xFF
    return found


_SEED = 0x6D5A


def toeplitz(flow: Flow) -> int:
    """Microsoft's hash for receive side scaling, its key two bytes over and over, so that both directions of a
    connection have the same; its last seven bits count: sys/net/toeplitz.c and netisr2.h.
    """
    data = b"".join(
        (
            IPv4Address(flow.source).packed,
            IPv4Address(flow.target).packed,
            flow.source_port.to_bytes(2, "big"),
            flow.target_port.to_bytes(2, "big"),
        )
    )
    found = 0
    for number in range(8 * len(data)):
        if data[number // 8] & 0x80 >> number % 8:
            # 32 bits of the endless key from this bit on, of which the last 16 are wanted.
            turn = number % 16
            found ^= (_SEED << turn | _SEED >> (16 - turn)) & 0xFFFF
    return found & 0x7F


def _power_of_two(cpus: int) -> int:
    """The largest among `cpus`."""
    return 1 << (cpus.bit_length() - 1)


PARTITIONS: dict[str, Partition] = {
    "low-bytes": Partition(low_bytes, _power_of_two),
    "toeplitz": Partition(toeplitz, lambda cpus: cpus),
}
"""By the name that a release's `wire.partition` gives."""
