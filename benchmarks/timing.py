"""How the benchmarks take times: medians, with the collector out of the way."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median_seconds(work: Callable[[], object], rounds: int = 5) -> float:
    """Median wall time of `rounds` calls."""
    return statistics.median(seconds(work) for _ in range(rounds))
