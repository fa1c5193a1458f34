"""Whether numbers can be foreseen by someone who saw the ones before. Pure, and exact enough without tables.

Every test errs on the side of "random": a sound generator fails one of them less than once in `RARE`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

RARE = 1_000_000
LARGEST_SHARE = 0.25
"""Of the steps from one number to the next, that may be the same."""
LONGEST_PERIOD = 8
"""Numbers after which a generator may go on as before and still be found out."""


def p_uniform(values: Sequence[int], low: int, high: int) -> float:
    """At most how probable it is that numbers spread evenly over `low`…`high` lie as unevenly as these.

    The Dvoretzky-Kiefer-Wolfowitz inequality over the Kolmogorov-Smirnov distance (Massart 1990).
    """
    count, width = len(values), high - low + 1
    distance = 0.0
    for rank, value in enumerate(sorted(values)):
        share = (value - low + 0.5) / width
        distance = max(distance, (rank + 1) / count - share, share - rank / count)
    return min(1.0, 2 * math.exp(-2 * count * distance**2))


def p_order(values: Sequence[int]) -> float:
    """How probable it is that independent numbers go up as often, or as seldom, as these (normal approximation).

    Ascents of a random order of n have a mean of (n-1)/2 and a variance of (n+1)/12. The half is for their coming
    in ones.
    """
    count = len(values)
    ascents = sum(b > a for a, b in pairwise(values))
    excess = max(0.0, abs(ascents - (count - 1) / 2) - 0.5)
    return math.erfc(excess / math.sqrt((count + 1) / 12) / math.sqrt(2))


def common_step(values: Sequence[int], modulus: int) -> tuple[int, float]:
    """The step that occurs most often between neighbours, and its share of all."""
    steps = Counter((b - a) % modulus for a, b in pairwise(values))
    step, count = steps.most_common(1)[0]
    return step, count / (len(values) - 1)


def p_repeats(values: Sequence[int], width: int) -> float:
    """At most how probable it is that so many of independent numbers out of `width` have been there before.

    Number i repeats an earlier one with a probability of (i-1)/width at most: Chernoff's bound for their sum.
    """
    count = len(values)
    repeats, mean = count - len(set(values)), count * (count - 1) / 2 / width
    if repeats <= mean:
        return 1.0
    return math.exp(repeats - mean + repeats * math.log(mean / repeats))


def period(values: Sequence[int], modulus: int) -> int:
    """After how many numbers the steps between them come again, most of them; 0 if after none that is looked at."""
    steps = [(b - a) % modulus for a, b in pairwise(values)]
    for lag in range(2, LONGEST_PERIOD + 1):
        same = sum(now == before for before, now in zip(steps, steps[lag:], strict=False))
        if same * 2 > len(steps) - lag > 0:
            return lag
    return 0


def patterns(values: Sequence[int], low: int, high: int) -> list[str]:
    """What gives `values` away, which ought to be random over `low`…`high`: nothing, if all is well."""
    found = []
    step, share = common_step(values, high - low + 1)
    if share > LARGEST_SHARE:
        found.append(f"{share:.0%} of the steps are {step}")
    elif lag := period(values, high - low + 1):
        found.append(f"the steps come again after {lag}")
    if (p := p_repeats(values, high - low + 1)) * RARE < 1:
        found.append(f"of {len(values)} only {len(set(values))} are different (p={p:.1e})")
    if (p := p_order(values)) * RARE < 1:
        found.append(f"they go up or down too steadily (p={p:.1e})")
    if (p := p_uniform(values, low, high)) * RARE < 1:
        found.append(f"they do not fill {low} to {high} (p={p:.1e})")
    return found
