"""The place in the guest where its compilers are at work, and what they made there."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import dfbuild
from dfbuild.deadline import Within
from dfbuild.model import Cell
from dfbuild.releases import Release
from dfbuild.shell.protocol import Shell

SOURCES = Path(dfbuild.__file__).parent / "suites" / "probes"
SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Workshop:
    """A directory in the guest where the cell's compiler is at work."""

    shell: Shell
    directory: str
    release: Release
    cell: Cell
    within: Within

    def compile(self, command: str, words: str) -> None:
        """Run the release's command `command` with `words` there; a compiler that complains is a failed check."""
        compiler = self.release.commands[command].format(toolchain=self.cell.variant.toolchain)
        line = f"cd {self.directory} && {compiler} {words}"
        answer = self.shell.run(line, self.within(SECONDS, what=words))
        assert answer.status == 0, f"{compiler} {words}: {answer.text[-1000:]}"


@pytest.fixture(scope="session")
def workshop(shell: Shell, release: Release, cell: Cell, within: Within) -> Iterator[Workshop]:
    """The programs' sources lie there."""
    directory = f"{release.shell.serial.directory}/native"
    quick = within(60, what="the sources")
    shell.run(f"rm -rf {directory}; mkdir {directory}", quick)
    for path in sorted(SOURCES.glob("*.[ch]")):
        shell.put(path, f"{directory}/{path.name}", quick)
    yield Workshop(shell, directory, release, cell, within)
    shell.run(f"rm -rf {directory}", within(60, what="tidying"))


@pytest.fixture(scope="session")
def made(workshop: Workshop) -> list[str]:
    """The names of the programs, all compiled and linked."""
    flags = workshop.release.stack_protectors[workshop.cell.variant.stack_protector].flags
    names = [path.stem for path in sorted(SOURCES.glob("*.c"))]
    for name in names:
        workshop.compile("native-cc", shlex.join(["-O", *flags, "-c", f"{name}.c"]))
        workshop.compile("native-cc", shlex.join([f"{name}.o", "-o", name]))
    return names
