"""Each program is run once and its report looked at by several checks."""

from __future__ import annotations

import pytest

from dfbuild.suites.probe import Probes, Report

EXECS = 20


@pytest.fixture(scope="session")
def nx(probe: Probes) -> Report:
    """Whether memory of each kind executes."""
    return probe("nx")


@pytest.fixture(scope="session")
def smash(probe: Probes) -> Report:
    """What becomes of overflown buffers; a program that can't overflow one proves nothing."""
    report = probe("smash")
    report.one_of("control", "returned")
    return report


@pytest.fixture(scope="session")
def layout(probe: Probes) -> Report:
    """Addresses, process numbers and guards of `EXECS` fresh programs."""
    return probe("layout", EXECS)
