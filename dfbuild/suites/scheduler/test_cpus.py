"""The CPUs that the guest sees are the CPUs that its shape has."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dfbuild.deadline import Deadline
from dfbuild.model import Cell
from dfbuild.releases import Release
from dfbuild.shell.protocol import Shell
from dfbuild.suites.probe import ProbeError, Report

Ask = Callable[[str], int]


@pytest.fixture
def ask(shell: Shell, release: Release, deadline: Deadline) -> Ask:
    """The number that a command of the release's data answers."""

    def run(name: str) -> int:
        answer = shell.run(release.commands[name], deadline)
        try:
            return int(answer.text.strip())
        except ValueError:
            raise ProbeError(
                f"{answer.command!r} answered {answer.text[:200]!r} (status {answer.status})"
            ) from None

    return run


def test_cpu_count(ask: Ask, cell: Cell, fact: Callable[[str, object], None]) -> None:
    count = ask("cpu-count")
    fact("cpus", count)
    assert count == cell.shape.cpus, f"the guest runs on {count} of {cell.shape.cpus} CPUs"


def test_cpu_threads(ask: Ask, cell: Cell, fact: Callable[[str, object], None]) -> None:
    """Hyperthreading siblings are seen where there are some, and nowhere else."""
    threads = ask("cpu-threads")
    fact("threads", threads)
    assert threads == cell.shape.threads, f"the guest sees {threads} threads a core instead of {cell.shape.threads}"


def test_cpus_work(pinned_hogs: Report, cell: Cell, fact: Callable[[str, object], None]) -> None:
    """A process pinned to each CPU really computes there."""
    homes = pinned_hogs.integers("home", cell.shape.cpus)
    fact("apic ids", " ".join(map(str, homes)))
    assert len(set(homes)) == cell.shape.cpus, (
        f"pinned to {cell.shape.cpus} CPUs, computing on {sorted(set(homes))}"
    )
