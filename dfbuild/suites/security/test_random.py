"""Addresses and process numbers that can't be foreseen."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable

import pytest

from dfbuild.suites.probe import Probes, Report
from dfbuild.suites.security.conftest import EXECS

Fact = Callable[[str, object], None]

LEAST_DIFFERENT = EXECS // 2
"""Of `EXECS` addresses: even six random bits, a stack gap of 1 KB, give 17 on average."""

AREAS = ("stack", "heap", "large", "mmap", "text")


@pytest.fixture(scope="module")
def fixed_layout(probe: Probes, ask: Callable[[str], str]) -> Report:
    """The same as `layout`, while the guest is told not to randomise."""
    ask("aslr-off")
    try:
        return probe("layout", EXECS)
    finally:
        ask("aslr-on")


@pytest.mark.parametrize("area", AREAS)
def test_random(area: str, layout: Report, fact: Fact) -> None:
    """The address is another one in nearly every program that is started."""
    different, bits, _ = layout.integers(area, 3, base=16)
    fact("different", f"{different} of {EXECS}")
    fact("bits", bits.bit_count())
    assert different >= LEAST_DIFFERENT, f"{EXECS} programs have {different} {area} addresses"


@pytest.mark.parametrize("area", AREAS)
def test_random_off(area: str, fixed_layout: Report) -> None:
    """The switch for address randomisation turns it off, which also proves that it is what made them differ."""
    different, _, _ = fixed_layout.integers(area, 3, base=16)
    assert different == 1, f"{EXECS} programs have {different} {area} addresses"


def test_pid_random(layout: Report, fact: Fact) -> None:
    """The next process number does not follow from the last one."""
    pids = layout.integers("pid", EXECS)
    steps = [later - earlier for earlier, later in itertools.pairwise(pids)]
    fact("steps", " ".join(map(str, steps)))
    step = statistics.median(map(abs, steps))
    assert step > 2, f"process numbers follow one another: {pids[0]} to {pids[-1]}"
