"""Addresses of a kernel become functions and lines; a program of this host's compiler stands for the kernel."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from dfbuild.errors import InfraError
from dfbuild.model import Symbols
from dfbuild.session.symbols import annotate

SOURCE = """\
static volatile int stuck = 1;
void spin(void)
{
    while (stuck)
        ;
}
int main(void)
{
    spin(); return 1;
}
"""


@pytest.fixture(scope="module", params=["-gdwarf-2", "-gdwarf-4", "-gdwarf-5", "-g0"])
def kernel(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Symbols, dict[str, int], str]:
    """A program, its functions' addresses, and where its lines are known the name of its file."""
    tree = tmp_path_factory.mktemp("tree")
    (tree / "kern").mkdir()
    (tree / "kern" / "spin.c").write_text(SOURCE)
    words = ["gcc", request.param, "-O0", "-no-pie", "-o", "kernel", "kern/spin.c"]
    subprocess.run(words, cwd=tree, check=True)
    listed = subprocess.run(["nm", tree / "kernel"], check=True, capture_output=True, text=True).stdout
    functions = {name: int(address, 16) for address, name in re.findall(r"^(\w+) T (\w+)$", listed, re.MULTILINE)}
    return Symbols(tree / "kernel", str(tree)), functions, "" if request.param == "-g0" else "kern/spin.c"


def lines(file: str, line: int) -> str:
    return f" ({file}:{line})" if file else ""


def test_a_cpu_and_who_called(kernel: tuple[Symbols, dict[str, int], str]) -> None:
    symbols, functions, file = kernel
    spin, main = functions["spin"], functions["main"]
    assert annotate(f"  at {spin:016x}\n", symbols) == f"  at {spin:016x} spin+0x0{lines(file, 3)}\n"
    # The call of spin() is the line's, the return from it the next one's, had it one.
    told = annotate(f"from {main + 9:016x}", symbols)
    assert told == f"from {main + 9:016x} main+0x9{lines(file, 9)}"


def test_names_that_stand_there_are_not_said_twice(kernel: tuple[Symbols, dict[str, int], str]) -> None:
    symbols, functions, file = kernel
    line = f"spin() at spin+0x4 0x{functions['spin'] + 4:016x} \n"
    assert annotate(line, symbols) == line.replace(" \n", f"{lines(file, 3)} \n")


def test_values_and_strangers_are_left(kernel: tuple[Symbols, dict[str, int], str]) -> None:
    symbols, functions, _ = kernel
    text = f"RIP={functions['spin']:016x} 0xffffffffffffffff 00000000 dead {functions['spin']:x}"
    assert annotate(text, symbols) == text


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"\x7fELF?")
    for file in (tmp_path / "kernel", tmp_path / "gone"):
        with pytest.raises(InfraError, match="cannot read the symbols"):
            annotate("at ffffffff80000000", Symbols(file, "/usr/src"))
