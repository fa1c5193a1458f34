"""A directory in the guest with the packages of several subsystems, and one path by which each sees its own."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from dfbuild.deadline import Within
from dfbuild.releases import Release
from dfbuild.shell.protocol import Shell
from dfbuild.suites.probe import Probes, Report, succeeded

VARIABLE = "DFBUILD_PACKAGES"
SUBSYSTEMS = ("system", "user", "process")
"""Also what the levels of variables are called, at which the probe chooses a subsystem."""
NOBODY = 65534
_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Packages:
    """`directory/<subsystem>/` has the packages of each subsystem, `directory/view/` those of whoever looks."""

    shell: Shell
    release: Release
    within: Within
    directory: str

    def run(self, command: str) -> str:
        """What `command` prints. Raises `ProbeError` if it fails."""
        return succeeded(self.shell.run(command, self.within(_SECONDS, what=command)))

    def install(self, subsystem: str, version: str) -> None:
        """Put that version of the one package into the subsystem's set."""
        script = f"#!/bin/sh\necho {subsystem} {version}\n"
        tool = f"{self.directory}/{subsystem}/tool"
        self.run(
            f"mkdir -p {self.directory}/{subsystem} && printf %s {shlex.quote(script)} > {tool} && chmod 755 {tool}"
        )

    def within_subsystem(self, subsystem: str, command: str) -> str:
        """What `command` prints when the subsystem runs it."""
        line = self.release.commands["subsystem"].format(
            name=subsystem, directory=self.directory, variable=VARIABLE, command=shlex.quote(command)
        )
        return self.run(line)

    def tool(self, subsystem: str) -> str:
        """What the subsystem's tool says of itself, run by the path that all have in common."""
        return self.within_subsystem(subsystem, f"{self.directory}/view/tool")


@pytest.fixture(scope="session")
def packages(shell: Shell, release: Release, within: Within, ask: Callable[[str], str]) -> Iterator[Packages]:
    """Version 1 of every subsystem's package is installed."""
    found = Packages(shell, release, within, f"{release.shell.serial.directory}/packages")
    found.run(f"rm -rf {found.directory} && mkdir -p {found.directory}")
    for subsystem in SUBSYSTEMS:
        found.install(subsystem, "1")
        found.run(f"echo {subsystem} > {found.directory}/{subsystem}/word")
    found.run(release.commands["subsystem-view"].format(directory=found.directory, variable=VARIABLE))
    ask("variants-on")
    yield found
    ask("variants-off")
    found.run(f"rm -rf {found.directory}")


@pytest.fixture(scope="session")
def views(packages: Packages, probe: Probes) -> Report:
    """What the common path leads to, by level, by who looks, and for values that lead nowhere."""
    return probe("variant", f"{packages.directory}/view/word", VARIABLE, NOBODY)
