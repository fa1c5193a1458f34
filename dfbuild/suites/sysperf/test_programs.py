"""Costs of system calls, pipes and locks, as the tree's own programs measure them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dfbuild.deadline import Deadline
from dfbuild.releases import Release
from dfbuild.shell.protocol import Shell
from dfbuild.suites.probe import succeeded
from dfbuild.suites.sysperf.conftest import PROGRAMS
from dfbuild.suites.sysperf.timing import timings

_TAIL = 1000


@pytest.mark.check("program", seconds=300)
@pytest.mark.parametrize("program", PROGRAMS)
def test_program(
    program: str, shell: Shell, release: Release, deadline: Deadline, samples: Callable[..., None]
) -> None:
    """It compiles, runs to its end and measures something; what that may be is for comparisons to say."""
    command = release.commands["sysperf"].format(program=program, arguments=PROGRAMS[program])
    said = succeeded(shell.run(command, deadline))
    found = timings(said)
    for what, microseconds in found.items():
        samples(f"{program} {what}", [microseconds], unit="us")
    assert found and all(found.values()), f"no loop was timed: {said[-_TAIL:]}"
