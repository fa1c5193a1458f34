"""What the guest's clocks say at the beginning and at the end of two minutes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from dfbuild.deadline import Within
from dfbuild.shell.protocol import Shell
from dfbuild.suites.host import waited
from dfbuild.suites.probe import Probes

SECONDS = 120.0
_LOOKS = 5


@dataclass(frozen=True, slots=True)
class Look:
    """Microseconds of the guest's clocks, at some moment between `before` and `after` on the host's, in seconds.

    `stalled` is for how many seconds so far some process of the host has waited for a CPU.
    """

    before: float
    after: float
    clocks: dict[str, float]
    stalled: float


@dataclass(frozen=True, slots=True)
class Drift:
    """How much faster than the host's a clock runs, and the most that the ways there and back make of it.

    `stalled` is the part of the time in which the host had too few CPUs: an emulated timer then loses ticks.
    """

    ratio: float
    doubt: float
    stalled: float


@pytest.fixture(scope="session")
def drifts(probe: Probes, shell: Shell, within: Within) -> dict[str, Drift]:
    """By clock of the guest."""
    first = _look(probe)
    # The guest's own sleep; however long it takes by its clocks, the host's say how long it was.
    shell.run(f"sleep {SECONDS:.0f}", within(3 * SECONDS, what=f"{SECONDS:.0f} seconds in the guest"))
    return drift(first, _look(probe))


def _look(probe: Probes) -> Look:
    """The best of several: the one that took the shortest time."""
    return min((_once(probe) for _ in range(_LOOKS)), key=lambda look: look.after - look.before)


def _once(probe: Probes) -> Look:
    before = time.monotonic()
    report = probe("clock")
    after = time.monotonic()
    clocks = {name: report.numbers(name, 1)[0] for name in ("wall", "steady")}
    return Look(before, after, clocks, waited())


def drift(first: Look, last: Look) -> dict[str, Drift]:
    """By clock, what two looks say."""
    shortest, longest = last.before - first.after, last.after - first.before
    here = (shortest + longest) / 2
    found = {}
    for name in first.clocks:
        there = (last.clocks[name] - first.clocks[name]) / 1e6
        stalled = (last.stalled - first.stalled) / here
        found[name] = Drift(there / here - 1, there / shortest - there / here, stalled)
    return found
