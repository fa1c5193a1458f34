"""Addresses and process numbers that can't be foreseen."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable

import pytest

from dfbuild.suites.network.chance import LARGEST_SHARE, common_step
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
def test_random_off(area: str, layout: Report, fixed_layout: Report) -> None:
    """The switch for address randomisation turns it off, which also proves that it is what made them differ."""
    if layout.integers(area, 3, base=16)[0] == 1:
        pytest.skip("it is the same with the switch on")
    different, _, _ = fixed_layout.integers(area, 3, base=16)
    assert different == 1, f"{EXECS} programs have {different} {area} addresses"


@pytest.fixture
def switched(probe: Probes, ask: Callable[[str], str]) -> Callable[[str], Report]:
    """The same as `layout`, while the guest's switch of that name is on, which is off by itself."""

    def switched(name: str) -> Report:
        ask(f"{name}-on")
        try:
            return probe("layout", EXECS)
        finally:
            ask(f"{name}-off")

    return switched


def test_mmap_random_on(switched: Callable[[str], Report], fact: Fact) -> None:
    """The switch for what mmap(2) places makes that another address in nearly every program."""
    test_random("mmap", switched("mmap-random"), fact)


def test_pid_random(layout: Report, fact: Fact) -> None:
    """The next process number does not follow from the last one."""
    _unforeseen(layout, fact)


def test_pid_random_on(switched: Callable[[str], Report], fact: Fact) -> None:
    """Nor does it with the switch for that, whatever it is set to by itself."""
    _unforeseen(switched("pid-random"), fact)


def _unforeseen(layout: Report, fact: Fact) -> None:
    pids = layout.integers("pid", EXECS)
    steps = [later - earlier for earlier, later in itertools.pairwise(pids)]
    fact("steps", " ".join(map(str, steps)))
    step = statistics.median(map(abs, steps))
    usual, share = common_step(pids, 1 << 31)
    assert step > 2, f"process numbers follow one another: {pids[0]} to {pids[-1]}"
    assert share <= LARGEST_SHARE, f"{share:.0%} of the steps between process numbers are {usual}"
