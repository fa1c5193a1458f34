"""The proof accepts what was made as asked and nothing else, shown on objects that real compilers made."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path

import pytest

from dfbuild.build.proof import elf_facts, prove
from dfbuild.errors import BuildFailed
from dfbuild.releases import load
from dfbuild.releases.schema import StackProtector, Toolchain

REFERENCE = load("reference")
CELLS = list(itertools.product(REFERENCE.toolchains, REFERENCE.stack_protectors))
SOURCE = """
#include <stdio.h>
int fill(int n) { volatile char buffer[64]; buffer[n] = 1; return buffer[n + 1]; }
int main(int argc, char **argv) { (void)argv; return printf("%d", fill(argc)) > 99; }
"""


class Compiler:
    """Compiles into a directory; every call makes a new file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.count = itertools.count()

    def object(self, toolchain: str, protector: str, *flags: str, source: str = SOURCE) -> Path:
        chosen = REFERENCE.toolchains[toolchain]
        if shutil.which(chosen.cc) is None:
            pytest.skip(f"{chosen.cc} is not installed")
        stem = self.directory / f"{toolchain}-{protector}-{next(self.count)}"
        text = stem.with_suffix(".c")
        text.write_text(source)
        words = [*chosen.flags, *REFERENCE.stack_protectors[protector].flags, "-O1", "-fPIE", *flags]
        self.run(chosen.cc, *words, "-c", text, "-o", stem.with_suffix(".o"))
        return stem.with_suffix(".o")

    def program(self, toolchain: str, made: Path, *flags: str) -> Path:
        chosen = REFERENCE.toolchains[toolchain]
        target = made.with_suffix("")
        self.run(chosen.cc, *chosen.flags, *(flags or ("-pie",)), made, "-o", target)
        return target

    def run(self, *words: str | Path) -> None:
        subprocess.run([str(word) for word in words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    return Compiler(tmp_path_factory.mktemp("proof"))


def promise(toolchain: str, protector: str) -> tuple[Toolchain, StackProtector, str]:
    return REFERENCE.toolchains[toolchain], REFERENCE.stack_protectors[protector], REFERENCE.elf_machine


@pytest.mark.parametrize("made_as", CELLS, ids="+".join)
def test_only_the_cell_it_was_made_for_accepts_an_object(compiler: Compiler, made_as: tuple[str, str]) -> None:
    made = compiler.object(*made_as)
    for paths in ([made], [made, compiler.program(made_as[0], made)]):
        for asked in CELLS:
            if asked == made_as:
                facts = prove(paths, *promise(*asked))
                assert facts["objects"] == 1 and facts["programs"] == len(paths) - 1
            else:
                with pytest.raises(BuildFailed) as caught:
                    prove(paths, *promise(*asked))
                assert caught.value.component.startswith(made.stem)


def test_a_program_alone_is_held_to_the_promise_too(compiler: Compiler) -> None:
    good = compiler.object("gcc-12", "on")
    bare = compiler.program("gcc-12", compiler.object("gcc-12", "off"))
    with pytest.raises(BuildFailed, match=bare.name):
        prove([good, bare], *promise("gcc-12", "on"))
    foreign = compiler.program("gcc-12", good)
    with pytest.raises(BuildFailed, match=foreign.name):
        prove([compiler.object("clang-14", "on"), foreign], *promise("clang-14", "on"))
    protected = compiler.program("gcc-12", good)
    with pytest.raises(BuildFailed, match=protected.name):
        prove([compiler.object("gcc-12", "off"), protected], *promise("gcc-12", "off"))


def test_static_programs_may_hold_the_librarys_protector(compiler: Compiler) -> None:
    made = compiler.object("gcc-12", "off")
    static = compiler.program("gcc-12", made, "-static-pie")
    assert elf_facts(static).static
    assert prove([made, static], *promise("gcc-12", "off"))["programs"] == 1


def test_one_bare_object_among_many_is_found(compiler: Compiler) -> None:
    good, bare = compiler.object("gcc-12", "on"), compiler.object("gcc-12", "off")
    with pytest.raises(BuildFailed, match=bare.name):
        prove([good, bare], *promise("gcc-12", "on"))
    toolchain, protector, machine = promise("gcc-12", "on")
    somewhere = protector.model_copy(update={"everywhere": False})
    assert prove([good, bare], toolchain, somewhere, machine)["protector"]["objects"] == 1
    with pytest.raises(BuildFailed, match=bare.name):
        prove([bare], toolchain, somewhere, machine)


def test_facts_count_the_calls(compiler: Compiler) -> None:
    made = compiler.object("gcc-12", "on")
    facts = prove([made], *promise("gcc-12", "on"))
    assert facts["protector"]["symbols"] == ["__stack_chk_fail"]
    assert facts["protector"]["sites"] == facts["files"][made.name]["sites"] == 2
    assert facts["files"][made.name]["functions"] == 2
    assert len(facts["compiler"]) == 1
    read = elf_facts(made)
    assert {"fill", "main"} <= read.defined and "printf" in read.undefined


def test_an_object_without_code_needs_no_protector(compiler: Compiler) -> None:
    data = compiler.object("gcc-12", "on", source="int table[] = {1, 2};\n")
    prove([data, compiler.object("gcc-12", "on")], *promise("gcc-12", "on"))


def test_an_object_that_names_no_compiler_proves_nothing(compiler: Compiler) -> None:
    with pytest.raises(BuildFailed, match="unnamed"):
        prove([compiler.object("gcc-12", "on", "-fno-ident")], *promise("gcc-12", "on"))


def test_an_object_mixed_of_two_compilers_is_found(compiler: Compiler) -> None:
    mixed = compiler.directory / "mixed.o"
    data = compiler.object("clang-14", "on", source="int table[] = {1, 2};\n")
    compiler.run("ld", "-r", "-o", mixed, compiler.object("gcc-12", "on"), data)
    assert len(elf_facts(mixed).comments) == 2
    with pytest.raises(BuildFailed, match="mixed"):
        prove([mixed], *promise("gcc-12", "on"))


def test_other_machines_are_found(compiler: Compiler) -> None:
    toolchain, protector, _ = promise("gcc-12", "on")
    with pytest.raises(BuildFailed, match="EM_386"):
        prove([compiler.object("gcc-12", "on")], toolchain, protector, "EM_386")


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF\x02\x01\x01" + bytes(200)])
def test_what_is_no_elf_file_fails_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "strange.o"
    path.write_bytes(content)
    with pytest.raises(BuildFailed, match=r"strange\.o"):
        prove([path], *promise("gcc-12", "on"))


def test_no_objects_prove_nothing(compiler: Compiler) -> None:
    program = compiler.program("gcc-12", compiler.object("gcc-12", "on"))
    for paths in ([], [program]):
        with pytest.raises(BuildFailed, match="no object file"):
            prove(paths, *promise("gcc-12", "on"))
