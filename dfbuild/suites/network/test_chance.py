"""What somebody has to guess who wants to forge segments of the guest's connections."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dfbuild.suites.network.chance import LARGEST_SHARE, common_step, patterns
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
    _unforeseen(dialled.ports, port_range, fact)


def test_source_ports_random_same_target(dialled_again: Dialled, port_range: tuple[int, int], fact: Fact) -> None:
    """The next source port, to the same port of the peer, can't be foreseen."""
    _unforeseen(dialled_again.ports, port_range, fact)


def test_source_ports_random_bound(dialled_bound: Dialled, port_range: tuple[int, int], fact: Fact) -> None:
    """The next source port that bind(2) chooses, in a place of its own in some kernels, can't be foreseen."""
    _unforeseen(dialled_bound.ports, port_range, fact)


def test_isn_random(dialled: Dialled) -> None:
    """The first sequence number of a connection does not follow from another connection's (RFC 6528)."""
    found = patterns([syn.seq for syn in dialled.syns], 0, (1 << 32) - 1)
    assert not found, f"{DIALS} initial sequence numbers: {'; '.join(found)}"


def test_isn_steps(dialled: Dialled) -> None:
    """From one connection's first sequence number to the next there is no usual step, be they random or not."""
    step, share = common_step([syn.seq for syn in dialled.syns], 1 << 32)
    assert share <= LARGEST_SHARE, f"{share:.0%} of the steps between {DIALS} initial sequence numbers are {step}"


def _unforeseen(ports: list[int], port_range: tuple[int, int], fact: Fact) -> None:
    fact("ports", " ".join(map(str, ports)))
    found = patterns(ports, *port_range)
    assert not found, f"{DIALS} source ports: {'; '.join(found)}"
