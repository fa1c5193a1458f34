"""What this host was too busy for, while a guest was looked at."""

from __future__ import annotations

import math
import re
from pathlib import Path

_PRESSURE = Path("/proc/pressure/cpu")


def pressure(said: str) -> float:
    """The seconds of the line `some` in /proc/pressure/cpu (Documentation/accounting/psi.rst), 0 without one."""
    found = re.search(r"^some .*\btotal=(\d+)", said, re.MULTILINE)
    return int(found[1]) / 1e6 if found else 0.0


def waited() -> float:
    """For how many seconds so far some process of the host has waited for a CPU; NaN on a kernel without PSI."""
    try:
        return pressure(_PRESSURE.read_text())
    except OSError:
        return math.nan
