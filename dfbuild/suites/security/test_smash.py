"""The stack protector, in programs built with the cell's compiler and flags."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dfbuild.suites.probe import Report
from dfbuild.suites.security.conftest import EXECS

Fact = Callable[[str, object], None]


@pytest.mark.parametrize("buffer", [16, 8])
def test_smash(buffer: int, smash: Report, fact: Fact) -> None:
    """An overflow beyond the return address is detected before the return."""
    # Whether the smallest arrays are protected is the flag's choice: worth knowing, nothing to fail for.
    fact("buffer of 7", smash.one_of("buffer7", "detected", "undetected"))
    seen = smash.one_of(f"buffer{buffer}", "detected", "undetected")
    assert seen == "detected", f"an overflown char[{buffer}] sent the return astray"


def test_reorder(smash: Report) -> None:
    """No other local variable lies where an overflown array would write."""
    seen = smash.one_of("variables", "intact", "clobbered")
    assert seen == "intact", "an overflown char[16] overwrote other variables"


def test_guard_random(layout: Report, fact: Fact) -> None:
    """The guard value is another one in every program that is started."""
    different, _, first = layout.integers("guard", 3, base=16)
    fact("low byte", f"{first & 0xFF:#04x}")
    assert different == EXECS, f"{EXECS} programs had {different} different guards"
