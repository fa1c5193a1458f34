"""Did a metric change? Mann-Whitney U with an effect size, corrected for the number of metrics. Pure.

The samples of one run come from one boot of a guest, so they share that boot's luck. Hence three conditions, and
not the p value alone: significant after the correction, a large effect, and a median that moved.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    """`effect` is Cliff's delta, from -1 (every value after is below every value before) to 1. `ratio` is median
    after / before, None where that is meaningless (a median that is not positive). `p` is corrected, and None where
    it was not needed: too few samples for any test, or nothing that a test could have confirmed."""

    trend: Trend
    p: float | None
    effect: float
    ratio: float | None
    before: float
    after: float


def judge(pairs: Mapping[Key, Pair]) -> dict[Key, Judgement]:
    """Judge all metrics of a comparison together; pairs with an empty side are left out."""
    usable = {key: pair for key, pair in pairs.items() if pair.before and pair.after}
    judged = {key: _look(pair) for key, pair in usable.items()}
    testable = _testable(usable)
    suspects = {key for key in testable if _is_suspect(judged[key])}
    # The tests come last and only if there is something to confirm: the library alone takes longer to import than
    # a quiet night takes to compare.
    corrected = holm({key: p_value(usable[key]) for key in testable}) if suspects else {}
    able = set(testable)
    for key, pair in usable.items():
        p = corrected.get(key)
        if key not in able:
            trend = Trend.TOO_FEW
        elif key in suspects and p is not None and p < ALPHA:
            lower = judged[key].after < judged[key].before
            trend = Trend.BETTER if lower == (pair.better is Better.LOWER) else Trend.WORSE
        else:
            trend = Trend.SAME
        judged[key] = replace(judged[key], trend=trend, p=p)
    return judged


def _look(pair: Pair) -> Judgement:
    """All that can be said without a test."""
    before, after = median(pair.before), median(pair.after)
    ratio = after / before if before > 0 and after > 0 else None
    if ratio is not None and not (math.isfinite(ratio) and ratio > 0):
        ratio = None
    return Judgement(Trend.SAME, None, cliffs_delta(pair.before, pair.after), ratio, before, after)


def _is_suspect(one: Judgement) -> bool:
    """A large effect and a median that moved: a change, if a test confirms it."""
    moved = abs(one.after - one.before) > MOVED * min(abs(one.before), abs(one.after))
    return moved and abs(one.effect) >= LARGE_EFFECT


def cliffs_delta(before: Sequence[float], after: Sequence[float]) -> float:
    """Of all pairs, the part in which `after` is greater less the part in which it is smaller (Cliff 1993)."""
    ordered = sorted(before)
    balance = sum(
        bisect.bisect_left(ordered, value) - (len(ordered) - bisect.bisect_right(ordered, value)) for value in after
    )
    return balance / (len(before) * len(after))


def p_value(pair: Pair) -> float:
    """Two-sided p of the Mann-Whitney U test: exact for small samples without ties, otherwise asymptotic."""
    distinct = len({*pair.before, *pair.after})
    if distinct == 1:
        return 1.0
    from scipy.stats import mannwhitneyu

    ties = distinct < len(pair.before) + len(pair.after)
    exact = not ties and max(len(pair.before), len(pair.after)) <= _EXACT
    method = "exact" if exact else "asymptotic"
    return min(1.0, float(mannwhitneyu(pair.before, pair.after, alternative="two-sided", method=method).pvalue))


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Holm's step-down correction (Holm 1979): adjusted p values, comparable with alpha itself."""
    adjusted: dict[Key, float] = {}
    highest = 0.0
    for rank, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, p * (len(p_values) - rank)))
        adjusted[key] = highest
    return adjusted


def samples_needed(metrics: int) -> int:
    """How many samples a metric needs in each run, so that one among `metrics` can be significant at all.

    >>> samples_needed(1), samples_needed(200)
    (5, 9)
    """
    count = 1
    while _floor(count, count) >= ALPHA / max(1, metrics):
        count += 1
    return count


def _floor(before: int, after: int) -> float:
    """The least p value that samples of these sizes can give: all of one side below all of the other."""
    return 2.0 / math.comb(before + after, before)


def _testable(pairs: Mapping[Key, Pair]) -> list[Key]:
    """The metrics whose sample sizes can give a significant result at all (Tarone 1990).

    A metric with three samples on each side can't be significant whatever they are; counting it as a test would
    only blunt the others.
    """
    floor = {key: _floor(len(pair.before), len(pair.after)) for key, pair in pairs.items()}
    for tests in range(1, len(pairs) + 1):
        able = [key for key, least in floor.items() if least < ALPHA / tests]
        if len(able) <= tests:
            return able
    return []
