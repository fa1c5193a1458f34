"""Which CPU owns a TCP connection, by its addresses and ports: what can be known outside of the guest."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from dfbuild.wire.frames import Flow


def owners(cpus: int) -> int:
    """How many of `cpus` own connections: the largest power of two among them."""
    return 1 << (cpus.bit_length() - 1)


def low_bytes(flow: Flow) -> int:
    """The exclusive or of the last bytes of both addresses and both ports: sys/netinet/ip_demux.c before 2.4."""
    last = (int(IPv4Address(address)) for address in (flow.source, flow.target))
    found = 0
    for value in (*last, flow.source_port, flow.target_port):
        found ^= value & 0xFF
    return found


HASHES: dict[str, Callable[[Flow], int]] = {"low-bytes": low_bytes}
"""By the name that a release's `wire.partition` gives."""


def owner(flow: Flow, cpus: int, partition: str) -> int:
    """The CPU that owns `flow` in a guest that runs on `cpus` CPUs."""
    return HASHES[partition](flow) & (owners(cpus) - 1)
