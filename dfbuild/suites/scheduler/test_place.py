"""Where computing processes are put, and what they get of the CPUs."""

from __future__ import annotations

from collections.abc import Callable

from dfbuild.model import Cell
from dfbuild.suites.probe import Report
from dfbuild.suites.scheduler.conftest import FAIR_HOGS, homes
from dfbuild.suites.scheduler.windows import Windows

Samples = Callable[..., None]

MOST_MOVES = 20.0
"""Changes of CPU per second of a process with a CPU to itself: a balancer corrects, it does not juggle."""

MOST_IDLE = 0.2
"""Of all CPUs, with as many processes as there are CPUs."""

MOST_SHORT = 0.9
"""Of an equal share. With turns of 100 ms (DragonFly 5.x) half of one is nothing unusual, over seconds."""

MOST_SHARED = 1.1
"""CPUs that processes on one CPU can have used, with the errors of its clock."""


def test_placement(free_hogs: Windows, cell: Cell) -> None:
    """As many processes as CPUs: each CPU is somebody's home."""
    cpus = cell.shape.cpus
    empty = free_hogs.figure(lambda hogs: cpus - len(set(homes(hogs, cpus))), 0)
    assert empty == 0, f"of {cpus} CPUs {empty} were no home to any of {cpus} processes"


def test_ping_pong(free_hogs: Windows, cell: Cell, samples: Samples) -> None:
    """A process with a CPU to itself stays there."""
    cpus = cell.shape.cpus

    def rate(hogs: Report) -> float:
        pairs = zip(hogs.integers("moves", cpus), hogs.numbers("wall", cpus), strict=True)
        return max(moves / wall * 1e6 for moves, wall in pairs)

    moves = free_hogs.figure(rate, MOST_MOVES)
    samples("migrations", [moves], unit="1/s")
    assert moves <= MOST_MOVES, f"a process with a CPU to itself moved {moves:.0f} times a second"


def test_utilisation(free_hogs: Windows, cell: Cell, samples: Samples) -> None:
    """As many processes as CPUs get nearly all of their time."""
    cpus = cell.shape.cpus
    idle = free_hogs.figure(lambda hogs: 1 - _used(hogs, cpus) / cpus, MOST_IDLE)
    samples("idle", [idle], unit="ratio")
    assert idle <= MOST_IDLE, f"{cpus} processes left {idle:.0%} of {cpus} CPUs idle"


def test_fairness(rival_hogs: Windows, samples: Samples) -> None:
    """Of equal processes on one CPU none starves. How equal their shares are is a figure to compare runs by."""

    def short(hogs: Report) -> float:
        shares = hogs.numbers("cpu", FAIR_HOGS)
        return 1 - FAIR_HOGS * min(shares) / max(1.0, sum(shares))

    least = rival_hogs.figure(short, MOST_SHORT)
    samples("short-of-fair", [least], unit="ratio")
    assert least <= MOST_SHORT, f"one of {FAIR_HOGS} equal processes got {1 - least:.0%} of an equal share"


def test_sharing(rival_hogs: Windows) -> None:
    """The control: the processes of `test_fairness` did share one CPU."""
    used = rival_hogs.figure(lambda hogs: _used(hogs, FAIR_HOGS), MOST_SHARED)
    assert used <= MOST_SHARED, f"processes pinned to one CPU used {used:.2f}"


def _used(hogs: Report, count: int) -> float:
    """CPU time by wall time, of all processes together: the CPUs that they used."""
    pairs = zip(hogs.numbers("cpu", count), hogs.numbers("wall", count), strict=True)
    return sum(cpu / wall for cpu, wall in pairs)
