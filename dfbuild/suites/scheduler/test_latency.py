"""What small things cost, for comparison with other runs, and whether sleeps last as long as was asked."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest

from dfbuild.suites.probe import Report

LONGEST_NAP = 50_000.0
"""Microseconds. Half of the sleeps of 1 ms must be over by then: five ticks of the coarsest clock (100 Hz)."""


@pytest.mark.parametrize("what", ["syscall", "pipe", "switch", "fork", "exec"])
def test_latency(what: str, latencies: Report, samples: Callable[..., None]) -> None:
    """Costs something, and is recorded: what it may cost is for the comparison with other runs to say."""
    batches = latencies.numbers(what)
    samples(what, batches, unit="us")
    assert min(batches) > 0, f"{what} took no time: the clock stands still"


def test_nap(latencies: Report, samples: Callable[..., None]) -> None:
    """A sleep is never too short, and mostly not much too long."""
    late = latencies.numbers("nap")
    samples("nap", late, unit="us")
    assert min(late) >= 0, f"a sleep of 1 ms ended {-min(late):.1f} us early"
    assert statistics.median(late) <= LONGEST_NAP, (
        f"half of the sleeps were {statistics.median(late):.0f} us late or more"
    )
