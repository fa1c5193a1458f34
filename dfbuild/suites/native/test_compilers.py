"""The suites' programs once more, compiled in the guest by the cell's compiler with the cell's stack protector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dfbuild.build import proof
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed
from dfbuild.suites.native.conftest import SECONDS, Workshop
from dfbuild.suites.probe import Probes

Fact = Callable[[str, object], None]

CPLUSPLUS = r"""
#include <iostream>
#include <string>
struct Base { virtual ~Base() {} virtual std::string name() const = 0; };
template <class T> struct Of : Base { std::string name() const { return T::word(); } };
struct Word { static std::string word() { return "thrown"; } };
int main()
{
    try {
        Of<Word> thrown;
        throw thrown.name();
    } catch (const std::string &text) {
        std::cout << text << std::endl;
        return 0;
    }
    return 1;
}
"""


@pytest.mark.check(seconds=SECONDS)
def test_programs(made: list[str], workshop: Workshop, deadline: Deadline, tmp_path: Path, fact: Fact) -> None:
    """Their objects show the compiler and the stack protector that the cell has."""
    files = [f"{name}.o" for name in made]
    for name in files:
        workshop.shell.get(f"{workshop.directory}/{name}", tmp_path / name, deadline)
    toolchain = workshop.release.toolchains[workshop.cell.variant.toolchain]
    protection = workshop.release.stack_protectors[workshop.cell.variant.stack_protector].of_world
    try:
        facts = proof.prove(
            [tmp_path / name for name in files], toolchain, protection, workshop.release.elf_machine
        )
    except BuildFailed as error:
        raise AssertionError(f"compiled in the guest: {error.message}") from error
    fact("compiler", "; ".join(facts["compiler"]))
    fact("protected calls", facts["protector"]["sites"])


@pytest.mark.check(seconds=SECONDS)
def test_same_answers(made: list[str], workshop: Workshop, probe: Probes) -> None:
    """What they find about stacks is what the programs find that were compiled outside."""
    own = Probes(workshop.shell, workshop.directory, workshop.within)
    answers = own("smash").values, probe("smash").values
    assert answers[0] == answers[1], f"compiled in the guest: {answers[0]}; outside: {answers[1]}"


@pytest.mark.check(seconds=SECONDS)
def test_cplusplus(workshop: Workshop, deadline: Deadline, tmp_path: Path) -> None:
    """Templates, virtual functions, exceptions and streams: the C++ library links and runs."""
    (tmp_path / "words.cc").write_text(CPLUSPLUS)
    workshop.shell.put(tmp_path / "words.cc", f"{workshop.directory}/words.cc", deadline)
    workshop.compile("native-cxx", "-O words.cc -o words")
    answer = workshop.shell.run(f"{workshop.directory}/words", deadline)
    assert (answer.status, answer.text) == (0, "thrown"), f"it said {answer.text!r}, status {answer.status}"
