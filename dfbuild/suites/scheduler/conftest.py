"""Each measurement is made once and looked at by several checks."""

from __future__ import annotations

import pytest

from dfbuild.model import Cell
from dfbuild.suites.probe import Probes, Report
from dfbuild.suites.scheduler.windows import Windows

FAIR_HOGS = 3


def homes(hogs: Report, count: int) -> list[int]:
    """APIC ids of the CPUs that the processes were on most, of those that computed at all."""
    computed = zip(hogs.integers("home", count), hogs.numbers("cpu", count), strict=True)
    return [home for home, cpu in computed if cpu > 0]


@pytest.fixture(scope="session")
def free_hogs(probe: Probes, cell: Cell) -> Windows:
    """As many computing processes as CPUs, placed by the scheduler."""
    return Windows(lambda: probe("hogs", cell.shape.cpus, 700, "free"))


@pytest.fixture(scope="session")
def rival_hogs(probe: Probes) -> Windows:
    """Computing processes that all want the first CPU, long enough for many turns of each."""
    return Windows(lambda: probe("hogs", FAIR_HOGS, 2000, "one"))


@pytest.fixture(scope="session")
def pinned_hogs(probe: Probes, cell: Cell) -> Report:
    """One computing process on each CPU."""
    return probe("hogs", cell.shape.cpus, 300, "spread")


@pytest.fixture(scope="session")
def latencies(probe: Probes) -> Report:
    # A comparison of a whole matrix needs nine samples of each metric (results.statistics.samples_needed).
    return probe("latency", 12, 12)
