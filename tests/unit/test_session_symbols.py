"""Addresses of a kernel become functions and lines; a program of this host's compiler stands for the kernel."""

from __future__ import annotations

import contextlib
import re
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfbuild.errors import InfraError
from dfbuild.model import Symbols
from dfbuild.session.lines import Stabs
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


def test_where_the_registers_say_that_it_is_no_line_before_it_is_told(
    kernel: tuple[Symbols, dict[str, int], str],
) -> None:
    symbols, functions, file = kernel
    call = f"{functions['main'] + 4:016x}"  # the first byte of its line
    told = annotate(f"instruction pointer\t= 0x8:0x{call}\nmain() at main+0x4 0x{call} \n", symbols)
    assert told == (
        f"instruction pointer\t= 0x8:0x{call} main+0x4{lines(file, 9)}\n"
        f"main() at main+0x4 0x{call}{lines(file, 9)} \n"
    )


def test_a_call_that_never_returns_may_be_the_last_of_a_function(
    kernel: tuple[Symbols, dict[str, int], str],
) -> None:
    symbols, functions, file = kernel
    # As `spin` lies right before `main`, what would come back to `main`'s first byte was called by `spin`.
    behind = f"{functions['main']:016x}"
    size = functions["main"] - functions["spin"]
    assert annotate(f"from {behind}", symbols).startswith(f"from {behind} spin+{size:#x}")
    assert annotate(f"at {behind}", symbols) == f"at {behind} main+0x0{lines(file, 8)}"


def test_names_that_stand_there_are_not_said_twice(kernel: tuple[Symbols, dict[str, int], str]) -> None:
    symbols, functions, file = kernel
    line = f"spin() at spin+0x4 0x{functions['spin'] + 4:016x} \n"
    assert annotate(line, symbols) == line.replace(" \n", f"{lines(file, 3)} \n")


def test_values_and_strangers_are_left(kernel: tuple[Symbols, dict[str, int], str]) -> None:
    symbols, functions, _ = kernel
    text = f"RIP={functions['spin']:016x} 0xffffffffffffffff 00000000 dead {functions['spin']:x}"
    assert annotate(text, symbols) == text


def test_many_may_ask_at_a_time(kernel: tuple[Symbols, dict[str, int], str]) -> None:
    symbols, functions, _ = kernel
    text = "".join(f"at {address:016x}\n" for address in functions.values())
    alone = annotate(text, symbols)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: annotate(text, symbols), range(64))) == {alone}
    finally:
        sys.setswitchinterval(before)


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"\x7fELF?")
    for file in (tmp_path / "kernel", tmp_path / "gone"):
        with pytest.raises(InfraError, match="cannot read the symbols"):
            annotate("at ffffffff80000000", Symbols(file, "/usr/src"))


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_any_byte_of_it_may_be_wrong(damaged: bytes, place: float, byte: int) -> None:
    wrong = bytearray(damaged)
    wrong[int(place * len(wrong))] = byte
    with tempfile.NamedTemporaryFile() as file:
        file.write(wrong)
        file.flush()
        text = "at " + " ".join(f"{address:016x}" for address in range(0x401000, 0x401200, 16))
        with contextlib.suppress(InfraError):
            assert annotate(text, Symbols(Path(file.name), "/usr/src")).startswith("at 0000000000401000")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("damaged")
    (place / "spin.c").write_text(SOURCE)
    subprocess.run(["gcc", "-g", "-no-pie", "-o", place / "kernel", place / "spin.c"], check=True)
    return (place / "kernel").read_bytes()


def stabs(*entries: tuple[int, bytes, int, int]) -> Stabs:
    """Lines of stabs: type, string, line, value. Of one unit."""
    table, strings = b"", b"\0"
    for kind, name, line, value in entries:
        at = len(strings) if name else 0
        strings += name + b"\0" if name else b""
        table += struct.pack("<IBBHI", at, kind, 0, line, value)
    return Stabs(table, strings)


def test_the_stabs_of_old_compilers() -> None:
    lines = stabs(
        (0x64, b"/usr/obj/usr/src/sys/UP/", 0, 0xC0100000),
        (0x64, b"../../../../../src/sys/kern/spin.c", 0, 0xC0100000),
        (0x24, b"spin:F(0,15)", 0, 0xC0100000),
        (0x44, b"", 3, 0),
        (0x44, b"", 4, 6),
        (0x24, b"", 0, 0x10),
        (0x84, b"machine/lock.h", 0, 0xC0100010),
        (0x24, b"locked:f(0,1)", 0, 0xC0100010),
        (0x44, b"", 70, 0),
    )
    spin, locked = 0xC0100000, 0xC0100010
    assert lines.line(spin, spin) == lines.line(spin + 5, spin) == ("/usr/src/sys/kern/spin.c:3", "")
    assert lines.line(spin + 6, spin) == ("/usr/src/sys/kern/spin.c:4", "")
    assert lines.line(locked + 1, locked) == ("/usr/obj/usr/src/sys/UP/machine/lock.h:70", "")
    assert lines.line(spin - 1, spin - 1) == ("", "")


def test_what_stabs_say_of_headers_that_were_expanded() -> None:
    lines = stabs(
        (0x64, b"/usr/src/sys/kern/spin.c", 0, 0xC0100000),
        (0x24, b"spin:F(0,15)", 0, 0xC0100000),
        (0x44, b"", 3, 0),
        (0x44, b"", 5, 2),
        (0x84, b"/usr/obj/UP/machine/lock.h", 0, 0),
        (0x44, b"", 70, 4),
        (0x84, b"/usr/src/sys/kern/spin.c", 0, 0),
        (0x44, b"", 6, 8),
    )
    header = "/usr/obj/UP/machine/lock.h:70"
    assert lines.line(0xC0100005, 0xC0100000) == ("/usr/src/sys/kern/spin.c:5", header)
    assert lines.line(0xC0100008, 0xC0100000) == ("/usr/src/sys/kern/spin.c:6", "")


@pytest.mark.parametrize("format", ["-gdwarf-2", "-gdwarf-4", "-gdwarf-5"])
def test_of_a_function_that_a_header_expands_the_place_of_that_is_told_first(tmp_path: Path, format: str) -> None:
    (tmp_path / "src/kern").mkdir(parents=True)
    (tmp_path / "obj/machine").mkdir(parents=True)
    (tmp_path / "obj/machine/lock.h").write_text(
        "static inline __attribute__((always_inline)) void lock(volatile int *word)\n{\n    *word = 1;\n}\n"
    )
    (tmp_path / "src/kern/spin.c").write_text(
        '#include "machine/lock.h"\nvolatile int word;\nvoid spin(void)\n{\n    word = 0;\n    lock(&word);\n}\n'
        "int main(void)\n{\n    spin(); return 0;\n}\n"
    )
    words = ["gcc", format, "-O1", "-no-pie", "-Iobj", "-o", "kernel", f"{tmp_path}/src/kern/spin.c"]
    subprocess.run(words, cwd=tmp_path, check=True)
    dumped = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", tmp_path / "kernel"], check=True, capture_output=True, text=True
    ).stdout
    body = dumped.partition("<spin>:")[2].partition("\n\n")[0]
    store = re.search(r"^ +([0-9a-f]+):\s+movl +\$0x1,", body, re.MULTILINE)
    assert store is not None
    told = annotate(f"at {int(store[1], 16):016x}", Symbols(tmp_path / "kernel", f"{tmp_path}/src"))
    assert re.search(r" spin\+0x[0-9a-f]+ \(kern/spin\.c:[56], in machine/lock\.h:3\)$", told)


@given(st.binary(), st.binary(), st.integers(0, 2**64 - 1))
def test_any_bytes_have_lines_or_none(table: bytes, strings: bytes, address: int) -> None:
    for found in Stabs(table, strings).line(address, address):
        assert not found or found.rpartition(":")[2].isdigit()
