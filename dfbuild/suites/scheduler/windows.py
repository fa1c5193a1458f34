"""A measurement repeated until it is conclusive, which tells the guest's faults from its host's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from dfbuild.suites.host import waited
from dfbuild.suites.probe import Report

MOST = 4


@dataclass(slots=True)
class Windows:
    """The same measurement over up to `MOST` windows of time, made when they are needed and shared by all checks.

    A busy host takes a virtual CPU away for moments, and the guest charges them to whoever was running. `hogs` sees
    them as stalls, and the host, if it can, tells by `waited` for how many seconds so far it had no CPU for some
    process: a bad figure counts unless both say so, a good one counts in any case.
    """

    measure: Callable[[], Report]
    waited: Callable[[], float] = waited
    reports: list[tuple[Report, bool]] = field(default_factory=list)
    """With whether the host was too busy meanwhile."""

    def figure(self, figure: Callable[[Report], float], most: float) -> float:
        """`figure` of the first window where it is at most `most` or the host had time. Else the check is left."""
        for number in range(MOST):
            if number == len(self.reports):
                before = self.waited()
                report = self.measure()
                self.reports.append((report, any(report.numbers("stalled")) and not self.waited() <= before))
            report, busy = self.reports[number]
            found = figure(report)
            if found <= most or not busy:
                return found
        pytest.skip(f"the host was too busy to tell: it took the CPUs away in each of {MOST} windows of time")
