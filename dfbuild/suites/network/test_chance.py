"""What somebody has to guess who wants to forge segments of the guest's connections."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dfbuild.suites.network.chance import patterns
from dfbuild.suites.network.conftest import DIALS, Dialled
from dfbuild.suites.probe import integers

Ask = Callable[[str], str]
Fact = Callable[[str, object], None]


@pytest.fixture(scope="module")
def port_range(ask: Ask) -> tuple[int, int]:
    """The first and the last source port, by the guest's own settings."""
    first, last = integers(ask("port-range"), 2)
    return first, last


def test_source_ports_range(dialled: Dialled, port_range: tuple[int, int], fact: Fact) -> None:
    """Source ports are where the settings want them."""
    first, last = port_range
    fact("range", f"{first} to {last}")
    strays = [port for port in dialled.ports if not first <= port <= last]
    assert not strays, f"source ports {strays} are not between {first} and {last}"


def test_source_ports_random(dialled: Dialled, port_range: tuple[int, int], fact: Fact) -> None:
    """The next source port, to another port of the peer, can't be foreseen."""
    fact("ports", " ".join(map(str, dialled.ports)))
    found = patterns(dialled.ports, *port_range)
    assert not found, f"{DIALS} source ports: {'; '.join(found)}"


def test_source_ports_random_same_target(dialled_again: Dialled, port_range: tuple[int, int], fact: Fact) -> None:
    """The next source port, to the same port of the peer, can't be foreseen."""
    fact("ports", " ".join(map(str, dialled_again.ports)))
    found = patterns(dialled_again.ports, *port_range)
    assert not found, f"{DIALS} source ports: {'; '.join(found)}"


def test_isn_random(dialled: Dialled) -> None:
    """The first sequence number of a connection does not follow from another connection's (RFC 6528)."""
    found = patterns([syn.seq for syn in dialled.syns], 0, (1 << 32) - 1)
    assert not found, f"{DIALS} initial sequence numbers: {'; '.join(found)}"
