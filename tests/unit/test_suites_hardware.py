"""How far a clock is off, and how much of that is the way to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.suites.hardware.conftest import Look, drift, pressure


def look(at: float, trip: float, clock: float, stalled: float = 0.0) -> Look:
    return Look(at, at + trip, {"wall": clock}, stalled)


def test_a_clock_that_loses_a_second_in_a_hundred() -> None:
    found = drift(look(0, 0, 5e6), look(100, 0, 104e6, stalled=25))["wall"]
    assert found.ratio == pytest.approx(-0.01)
    assert found.doubt == 0
    assert found.stalled == 0.25


@given(st.floats(0.9, 1.1), st.floats(10, 1000), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_truth_is_within_the_doubt(
    speed: float, seconds: float, trip: float, trip_back: float, when: float, when_back: float
) -> None:
    """Wherever in the two round trips the guest looked at its clock."""
    first = look(0, trip, trip * when * speed * 1e6)
    last = look(seconds + 2, trip_back, (seconds + 2 + trip_back * when_back) * speed * 1e6)
    found = drift(first, last)["wall"]
    assert abs(found.ratio - (speed - 1)) <= found.doubt + 1e-9


def test_the_pressure_on_the_cpus() -> None:
    said = "some avg10=1.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    assert pressure(said) == 2.5
    assert pressure("") == 0
