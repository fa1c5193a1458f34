"""Did a metric change? Mann-Whitney U with an effect size, corrected for the number of metrics. Pure.

The samples of one run come from one boot of a guest, so they share that boot's luck. Hence three conditions, and
not the p value alone: significant after the correction, a large effect, and a median that moved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import TypeVar

from dfbuild.model import Better

ALPHA = 0.01
"""Probability of even one false alarm in a comparison."""
LARGE_EFFECT = 0.474
"""Cliff's delta from which an effect is called large (Romano et al. 2006)."""
MOVED = 0.05
"""Least part of the smaller median by which the medians must differ."""

_EXACT = 50
"""Sample size up to which the exact distribution is used (where there are no ties)."""

Key = TypeVar("Key")


class Trend(StrEnum):
    SAME = "same"
    BETTER = "better"
    WORSE = "worse"
    TOO_FEW = "too few samples"


@dataclass(frozen=True, slots=True)
class Pair:
    """One metric as it was and as it is."""

    before: Sequence[float]
    after: Sequence[float]
    better: Better


@dataclass(frozen=True, slots=True)
class Judgement:
    """`p` is corrected (None where too few samples made a test pointless). `effect` is Cliff's delta, from -1
    (every value after is below every value before) to 1. `ratio` is median after / before, None where that is
    meaningless (a median that is not positive)."""

    trend: Trend
    p: float | None
    effect: float
    ratio: float | None
    before: float
    after: float


def judge(pairs: Mapping[Key, Pair]) -> dict[Key, Judgement]:
    """Judge all metrics of a comparison together; pairs with an empty side are left out."""
    usable = {key: pair for key, pair in pairs.items() if pair.before and pair.after}
    testable = _testable(usable)
    raw = {key: mann_whitney(usable[key].before, usable[key].after) for key in usable}
    corrected = holm({key: raw[key][0] for key in testable})
    return {key: _judgement(pair, raw[key][1], corrected.get(key)) for key, pair in usable.items()}


def _judgement(pair: Pair, effect: float, p: float | None) -> Judgement:
    before, after = median(pair.before), median(pair.after)
    moved = abs(after - before) > MOVED * min(abs(before), abs(after))
    if p is None:
        trend = Trend.TOO_FEW
    elif p < ALPHA and abs(effect) >= LARGE_EFFECT and moved:
        trend = Trend.BETTER if (after < before) == (pair.better is Better.LOWER) else Trend.WORSE
    else:
        trend = Trend.SAME
    ratio = after / before if before > 0 and after > 0 else None
    return Judgement(trend, p, effect, ratio if ratio is not None and math.isfinite(ratio) else None, before, after)


def mann_whitney(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """(two-sided p, Cliff's delta of `after` against `before`)."""
    if len({*before, *after}) == 1:
        return 1.0, 0.0
    from scipy.stats import mannwhitneyu

    ties = len({*before, *after}) < len(before) + len(after)
    method = "exact" if not ties and max(len(before), len(after)) <= _EXACT else "asymptotic"
    u, p = mannwhitneyu(after, before, alternative="two-sided", method=method)
    return min(1.0, float(p)), 2.0 * float(u) / (len(before) * len(after)) - 1.0


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Holm's step-down correction (Holm 1979): adjusted p values, comparable with alpha itself."""
    adjusted: dict[Key, float] = {}
    highest = 0.0
    for rank, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, p * (len(p_values) - rank)))
        adjusted[key] = highest
    return adjusted


def _testable(pairs: Mapping[Key, Pair]) -> list[Key]:
    """The metrics whose sample sizes can give a significant result at all (Tarone 1990).

    A metric with three samples on each side can't be significant whatever they are; counting it as a test would
    only blunt the others.
    """
    floor = {key: 2.0 / math.comb(len(p.before) + len(p.after), len(p.before)) for key, p in pairs.items()}
    for tests in range(1, len(pairs) + 1):
        able = [key for key, least in floor.items() if least < ALPHA / tests]
        if len(able) <= tests:
            return able
    return []
