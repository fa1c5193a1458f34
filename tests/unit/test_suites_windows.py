"""Measuring again, but only while nobody can tell."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.suites.probe import Report
from dfbuild.suites.scheduler.windows import MOST, Windows


def windows(*measured: tuple[float, bool]) -> Windows:
    """Of a value, and whether something stalled meanwhile."""
    ahead = iter(measured)

    def measure() -> Report:
        value, stalled = next(ahead)
        return Report("hogs", {"value": str(value), "stalled": f"0 {30000 * stalled}"})

    clock = iter(range(1000))
    return Windows(measure, lambda: next(clock))


def value(report: Report) -> float:
    return report.numbers("value", 1)[0]


measurements = st.tuples(st.floats(0, 10), st.booleans())


@given(st.lists(measurements, min_size=MOST, max_size=MOST), st.floats(0, 10))
def test_the_first_window_that_is_conclusive_counts(measured: list[tuple[float, bool]], most: float) -> None:
    conclusive = [found for found, stalled in measured if found <= most or not stalled]
    looked_at = windows(*measured)
    if conclusive:
        assert looked_at.figure(value, most) == conclusive[0]
    else:
        with pytest.raises(pytest.skip.Exception, match="too busy"):
            looked_at.figure(value, most)


def test_a_quiet_window_is_enough() -> None:
    assert windows((9, False)).figure(value, 1) == 9


@pytest.mark.parametrize(("waited", "counts"), [(lambda: 5.0, True), (lambda: math.nan, False)])
def test_a_stall_that_the_host_knows_nothing_of_is_the_guests(waited: Callable[[], float], counts: bool) -> None:
    looked_at = windows(*[(9, True)] * MOST)
    looked_at.waited = waited
    if counts:
        assert looked_at.figure(value, 1) == 9
    else:
        with pytest.raises(pytest.skip.Exception, match="too busy"):
            looked_at.figure(value, 1)


def test_checks_share_the_windows() -> None:
    shared = windows((5, True), (1, True), (9, False))
    assert shared.figure(value, 6) == 5
    assert shared.figure(value, 3) == 1
    assert shared.figure(value, 6) == 5
    assert len(shared.reports) == 2
