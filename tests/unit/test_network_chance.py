"""What gives numbers away: known patterns are found, random numbers are left alone."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import kstest

from dfbuild.suites.network.chance import RARE, common_step, p_order, p_repeats, p_uniform, patterns
from dfbuild.suites.network.conftest import DIALS

LOW, HIGH = 32768, 60999


@given(st.randoms(use_true_random=False), st.integers(20, 200), st.integers(1000, 1 << 32))
def test_random_numbers_have_no_pattern(chance: random.Random, count: int, width: int) -> None:
    fair = random.Random(chance.getrandbits(64))
    values = [fair.randrange(LOW, LOW + width) for _ in range(count)]
    assert patterns(values, LOW, LOW + width - 1) == []


@given(st.integers(0, HIGH - LOW), st.integers(1, 300))
def test_constant_steps_are_found_wherever_they_wrap(start: int, step: int) -> None:
    values = [LOW + (start + step * number) % (HIGH - LOW + 1) for number in range(DIALS)]
    assert any(f"steps are {step}" in found for found in patterns(values, LOW, HIGH))


@given(st.randoms(use_true_random=False), st.integers(LOW, HIGH - 2000))
def test_small_random_steps_upwards_are_found(chance: random.Random, start: int) -> None:
    """What Linux does for connections to one target."""
    steps = [2 * chance.randint(1, 8) for _ in range(DIALS)]
    assert any(
        "steadily" in found for found in patterns(list(itertools.accumulate(steps, initial=start)), LOW, HIGH)
    )


@given(st.randoms(use_true_random=False), st.integers(LOW, HIGH - 3977))
def test_a_narrow_range_is_found(chance: random.Random, start: int) -> None:
    """Random, but only among the 3977 ports that DragonFly 1.0 uses."""
    values = [chance.randrange(start, start + 3977) for _ in range(DIALS)]
    assert any("fill" in found for found in patterns(values, LOW, HIGH))


def test_one_value_all_over_is_found() -> None:
    assert len(patterns([40000] * DIALS, LOW, HIGH)) == 4


@given(st.randoms(use_true_random=False), st.integers(1, 16))
def test_a_handful_of_values_is_found_however_they_are_spread(chance: random.Random, many: int) -> None:
    few = [chance.randrange(1 << 32) for _ in range(many)]
    found = patterns([chance.choice(few) for _ in range(DIALS)], 0, (1 << 32) - 1)
    assert any("are different" in pattern for pattern in found)


@given(st.randoms(use_true_random=False), st.integers(2, 8))
def test_steps_that_come_again_are_found(chance: random.Random, many: int) -> None:
    steps = [chance.randrange(1, HIGH - LOW) for _ in range(many)]
    assume(len(set(steps)) == many)
    values = [LOW]
    for number in range(DIALS):
        values.append(LOW + (values[-1] - LOW + steps[number % many]) % (HIGH - LOW + 1))
    found = patterns(values, LOW, HIGH)
    assert any("come again" in pattern or "of the steps are" in pattern for pattern in found)


@given(st.randoms(use_true_random=False), st.integers(10, 200), st.integers(100, 10000))
def test_p_repeats_never_exaggerates(chance: random.Random, count: int, width: int) -> None:
    """The bound is above the part of fair draws that have as many repeats."""
    fair = random.Random(chance.getrandbits(64))
    draws = [[fair.randrange(width) for _ in range(count)] for _ in range(200)]
    repeats = [count - len(set(values)) for values in draws]
    worst = max(range(200), key=repeats.__getitem__)
    # Of 200 the worst one is expected once.
    assert p_repeats(draws[worst], width) > 1e-5


def test_common_step() -> None:
    assert common_step([1, 3, 5, 2, 4], 10) == (2, 0.75)
    assert common_step([9, 1], 10) == (2, 1.0)


@given(st.lists(st.integers(0, 999), min_size=5, max_size=50))
def test_p_uniform_never_exaggerates(values: list[int]) -> None:
    """The inequality is an upper bound of the exact test's probability, which scipy computes."""
    exact = kstest([(value + 0.5) / 1000 for value in values], "uniform", method="exact").pvalue
    assert p_uniform(values, 0, 999) >= min(1.0, exact) - 1e-9


@pytest.mark.parametrize("count", [20, DIALS, 200])
def test_p_order_seldom_cries_wolf(count: int) -> None:
    """Of all orders of `count` numbers, by the exact (Eulerian) distribution of ascents."""
    orders = [1]
    for n in range(2, count + 1):
        orders = [
            (k + 1) * (orders[k] if k < n - 1 else 0) + (n - k) * (orders[k - 1] if k else 0) for k in range(n)
        ]
    assert sum(orders) == math.factorial(count)

    def with_ascents(ascents: int) -> list[int]:
        return [*range(count - ascents - 1, count), *range(count - ascents - 2, -1, -1)]

    suspicious = sum(orders[k] for k in range(count) if p_order(with_ascents(k)) * RARE < 1)
    assert 0 < suspicious * RARE <= math.factorial(count)
