"""What is read from i386 ELF files: compared with the general reader, and with what was compiled."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dfbuild.build import proof
from dfbuild.build.dragonfly import elf
from dfbuild.errors import BuildFailed

CODE = """\
extern void handler(void); extern int table[]; extern void other(void);
const void *kept = handler;
void first(int i) { if (i) handler(); else other(); }
void second(void) { handler(); other(); first(table[3]); }
"""
REST = "int table[8]; void handler(void) {} void other(void) {} void _start(void) { }\n"
FLAGS = ["-fno-pic", "-fno-pie", "-O0", "-ffreestanding", "-fno-asynchronous-unwind-tables"]


def cc(*words: str | Path, cwd: Path) -> None:
    subprocess.run(["gcc", *words], cwd=cwd, check=True)


@pytest.fixture(scope="module", params=["i386", "x86_64"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc here")
    here = tmp_path_factory.mktemp("elf")
    width = "-m32" if request.param == "i386" else "-m64"
    (here / "code.c").write_text(CODE)
    (here / "rest.c").write_text(REST)
    (here / "asm.s").write_text(".text\n nop\n")
    (here / "ident.c").write_text('asm(".ident \\"$Id: a version $\\"");\n')
    (here / "own.c").write_text("int guard[8]; void handler(int i) { if (guard[i]) handler(i); }\n")
    for name in ("code.c", "rest.c", "asm.s", "ident.c", "own.c"):
        cc(width, *FLAGS, "-c", name, cwd=here)
    subprocess.run(["ld", "-m", f"elf_{request.param}", "-o", "program", "code.o", "rest.o"], cwd=here, check=True)
    return here


def test_an_object_tells_its_compiler_and_its_call_sites(made: Path) -> None:
    found = elf.objects(made / "code.o", {"handler", "other", "absent"})
    known = proof.elf_facts(made / "code.o")
    assert found.comments == set(known.comments)
    # The pointer in the data is no call site.
    assert found.references == {"handler": 2, "other": 2}
    assert {name: known.references[name] for name in ("handler", "other")} == found.references


def test_what_an_object_defines_it_does_not_want_of_others(made: Path) -> None:
    assert elf.objects(made / "own.o", {"handler", "guard"}).references == {}


def test_what_is_assembled_has_no_compiler(made: Path) -> None:
    assert elf.objects(made / "asm.o", {"handler"}).comments == set()


def test_versions_of_sources_are_no_compilers(made: Path) -> None:
    comments = elf.objects(made / "ident.o", ()).comments
    assert len(comments) == 1
    assert comments.pop().startswith("GCC: ")


@pytest.mark.parametrize(
    "words", ["Debian clang version 14.0.6", "clang version 15.0.7 (https://example.org 8dfdcc7)"]
)
def test_clang_signs_in_its_own_way(tmp_path: Path, words: str) -> None:
    (tmp_path / "signed.s").write_text(f'.ident "{words}"\n.ident "not clang version 3"\n')
    cc("-c", "signed.s", cwd=tmp_path)
    assert elf.objects(tmp_path / "signed.o", ()).comments == {words}


def test_a_linked_program_calls_as_often_as_its_objects(made: Path) -> None:
    for symbol in ("handler", "other", "first"):
        in_objects = sum(elf.objects(made / name, {symbol}).references[symbol] for name in ("code.o", "rest.o"))
        assert elf.calls(made / "program", symbol) == max(in_objects, 1)
    assert elf.calls(made / "program", "nowhere") == 0


def test_sizes_are_those_of_the_sections(made: Path) -> None:
    sizes = elf.sizes(made / "program")
    assert sizes[".bss"] >= 32
    assert ".comment" not in sizes
    assert elf.sizes(made / "asm.o") == {".text": 1}


def test_a_file_for_another_machine(tmp_path: Path) -> None:
    data = bytearray(Path("/bin/true").read_bytes())
    data[18] += 1  # its machine
    (tmp_path / "x.o").write_bytes(data)
    with pytest.raises(BuildFailed, match="no ELF file for a PC"):
        elf.sizes(tmp_path / "x.o")


@given(cut=st.integers(0, 2000), at=st.integers(0, 2000), byte=st.integers(0, 255))
@example(cut=0, at=47, byte=128)  # sections beyond what an address can be
def test_damaged_files_are_refused_or_read(made: Path, cut: int, at: int, byte: int) -> None:
    data = bytearray((made / "code.o").read_bytes())[: -cut or None]
    if at < len(data):
        data[at] = byte
    broken = made / "broken.o"
    broken.write_bytes(data)
    try:
        elf.objects(broken, {"handler"})
        elf.calls(broken, "handler")
    except BuildFailed as error:
        assert error.component == "broken.o"
