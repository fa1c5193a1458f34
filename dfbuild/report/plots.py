"""Coordinates of the small drawings in the page. Pure; the template draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from dfbuild.model import StageReached

_MOST_DOTS = 60


@dataclass(frozen=True, slots=True)
class Strip:
    """A row of dots, one a value, on a scale from 0 to 100; `middle` is the median's place."""

    dots: tuple[float, ...]
    middle: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A boot stage on a time line from 0 to 100: it took from `begin` on for `width`."""

    stage: str
    begin: float
    width: float
    seconds: float


def span(*rows: Sequence[float]) -> tuple[float, float]:
    """The common scale of several rows of values: their least and their greatest value."""
    values = [value for row in rows for value in row]
    return (min(values), max(values)) if values else (0.0, 1.0)


def strip(values: Sequence[float], scale: tuple[float, float]) -> Strip:
    """`values` (not empty) on `scale`. Of many values a regular part of the sorted ones is drawn, ends included."""
    low, high = scale
    ordered = sorted(values)
    if len(ordered) > _MOST_DOTS:
        step = (len(ordered) - 1) / (_MOST_DOTS - 1)
        ordered = [ordered[round(index * step)] for index in range(_MOST_DOTS)]

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 1) if high > low else 50.0

    return Strip(tuple(place(value) for value in ordered), place(median(values)))


def timeline(stages: Sequence[StageReached], longest: float) -> tuple[Segment, ...]:
    """The stages of one boot on a scale that ends at `longest` seconds."""

    def place(seconds: float) -> float:
        return round(100 * seconds / longest, 2) if longest > 0 else 0.0

    found = []
    before = 0.0
    for stage in stages:
        # Stages of a guest that was reset need not come in order.
        begin, end = min(before, stage.seconds), max(before, stage.seconds)
        found.append(Segment(stage.stage, place(begin), place(end) - place(begin), stage.seconds))
        before = end
    return tuple(found)
