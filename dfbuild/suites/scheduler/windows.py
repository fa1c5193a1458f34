"""A measurement repeated until it is conclusive, which tells the guest's faults from its host's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from dfbuild.suites.probe import Report

MOST = 4


@dataclass(slots=True)
class Windows:
    """The same measurement over up to `MOST` windows of time, made when they are needed and shared by all checks.

    A busy host takes a virtual CPU away for moments, and the guest charges them to whoever was running. `hogs` sees
    them as stalls, so that a bad figure counts only where nothing stalled; a good one counts in any case.
    """

    measure: Callable[[], Report]
    reports: list[Report] = field(default_factory=list)

    def figure(self, figure: Callable[[Report], float], most: float) -> float:
        """`figure` of the first window where it is at most `most` or nothing stalled; else the check is skipped."""
        for number in range(MOST):
            if number == len(self.reports):
                self.reports.append(self.measure())
            report = self.reports[number]
            found = figure(report)
            if found <= most or not any(report.numbers("stalled")):
                return found
        pytest.skip(f"the host was too busy to tell: it took the CPUs away in each of {MOST} windows of time")
