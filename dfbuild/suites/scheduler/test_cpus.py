"""The CPUs that the guest sees are the CPUs that its shape has."""

from __future__ import annotations

from collections.abc import Callable

from dfbuild.model import Cell
from dfbuild.suites.probe import Report, integers
from dfbuild.suites.scheduler.conftest import homes

Ask = Callable[[str], str]
Fact = Callable[[str, object], None]


def test_cpu_count(ask: Ask, cell: Cell, fact: Fact) -> None:
    (count,) = integers(ask("cpu-count"), 1)
    fact("cpus", count)
    assert count == cell.shape.cpus, f"the guest runs on {count} of {cell.shape.cpus} CPUs"


def test_cpu_threads(ask: Ask, cell: Cell, fact: Fact) -> None:
    """Hyperthreading siblings are seen where there are some, and nowhere else."""
    (threads,) = integers(ask("cpu-threads"), 1)
    fact("threads", threads)
    assert threads == cell.shape.threads, f"the guest sees {threads} threads a core instead of {cell.shape.threads}"


def test_cpus_work(pinned_hogs: Report, cell: Cell, fact: Fact) -> None:
    """A process pinned to each CPU really computes there, sleeps, and is woken."""
    at = homes(pinned_hogs, cell.shape.cpus)
    fact("apic ids", " ".join(map(str, at)))
    assert len(set(at)) == cell.shape.cpus, f"pinned to {cell.shape.cpus} CPUs, computing on {sorted(set(at))}"
    late = pinned_hogs.numbers("late", cell.shape.cpus)
    assert min(late) >= 0, f"a sleep of 1 ms ended {-min(late):.0f} us early"
