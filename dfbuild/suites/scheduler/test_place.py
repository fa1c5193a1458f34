"""Where computing processes are put, and what they get of the CPUs."""

from __future__ import annotations

from collections.abc import Callable

from dfbuild.model import Better, Cell
from dfbuild.suites.probe import Report
from dfbuild.suites.scheduler.conftest import FAIR_HOGS

Samples = Callable[..., None]

MOST_MOVES = 20.0
"""Changes of CPU per second of a process with a CPU to itself: a balancer corrects, it does not juggle."""

LEAST_UTILISATION = 0.8
"""Of each CPU, by as many processes as there are CPUs."""

MOST_UNFAIR = 1.3
"""Between the CPU times of equal processes over a second. Accounting by ticks alone costs a few percent."""


def test_placement(free_hogs: Report, cell: Cell) -> None:
    """As many processes as CPUs: each CPU is somebody's home."""
    homes = free_hogs.integers("home", cell.shape.cpus)
    assert len(set(homes)) == cell.shape.cpus, (
        f"{cell.shape.cpus} processes spent their time on CPUs {sorted(homes)}"
    )


def test_ping_pong(free_hogs: Report, cell: Cell, samples: Samples) -> None:
    """A process with a CPU to itself stays there."""
    moves = free_hogs.integers("moves", cell.shape.cpus)
    seconds = max(free_hogs.numbers("wall", cell.shape.cpus)) / 1e6
    rates = [count / seconds for count in moves]
    samples("migrations", rates, unit="1/s")
    assert max(rates) <= MOST_MOVES, f"a process moved {max(moves)} times in {seconds:.2f} s"


def test_utilisation(free_hogs: Report, cell: Cell, samples: Samples) -> None:
    """As many processes as CPUs get nearly all of their time."""
    shares = _shares(free_hogs, cell.shape.cpus)
    total = sum(shares) / cell.shape.cpus
    samples("utilisation", [total], unit="ratio", better=Better.HIGHER)
    assert total >= LEAST_UTILISATION, f"{cell.shape.cpus} processes got {total:.0%} of as many CPUs"


def test_fairness(rival_hogs: Report, samples: Samples) -> None:
    """Equal processes on one CPU get equal shares of it, and together no more than one CPU."""
    used = rival_hogs.numbers("cpu", FAIR_HOGS)
    ratio = max(used) / min(used) if min(used) > 0 else float("inf")
    samples("unfairness", [ratio], unit="ratio")
    assert ratio <= MOST_UNFAIR, (
        f"{FAIR_HOGS} equal processes on one CPU got {[round(us / 1000) for us in used]} ms"
    )
    assert sum(_shares(rival_hogs, FAIR_HOGS)) <= 1.1, "processes pinned to one CPU ran on several"


def _shares(hogs: Report, count: int) -> list[float]:
    """CPU time by wall time, process by process."""
    pairs = zip(hogs.numbers("cpu", count), hogs.numbers("wall", count), strict=True)
    return [cpu / wall for cpu, wall in pairs]
