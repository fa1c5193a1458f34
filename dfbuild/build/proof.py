"""The proof that a toggle took: what ELF files say of the compiler and the stack protector they were made with.

The compiler's name stands in `.comment`; a stack protector shows in the symbols that its checks call. Objects are
proven strictly, since everything in them is of our making. Linked programs hold objects of the C library too,
with comments of the compiler that made those, and a static one the library's own references to the protector.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfbuild.errors import BuildFailed
from dfbuild.releases.schema import Protection, Toolchain

_EXECUTABLE_SECTION = 0x4  # SHF_EXECINSTR, ELF specification


@dataclass(frozen=True, slots=True)
class ElfFacts:
    """What one ELF file says of itself. `kind` is `ET_REL`, `ET_DYN` or `ET_EXEC`."""

    path: Path
    machine: str
    kind: str
    static: bool
    """A program that names no interpreter."""
    comments: tuple[str, ...]
    defined: frozenset[str]
    undefined: frozenset[str]
    dynamic: frozenset[str]
    """Undefined dynamic symbols."""
    functions: int
    """Functions with a body."""
    references: Mapping[str, int]
    """Relocations in code by symbol: the call sites of an object."""

    @property
    def is_object(self) -> bool:
        return self.kind == "ET_REL"

    def refers_to(self, symbols: Iterable[str]) -> set[str]:
        """Those of `symbols` that this file leaves for others to define."""
        return set(symbols) & (self.undefined | self.dynamic)


def elf_facts(path: Path) -> ElfFacts:
    """Read the facts of one ELF file. Raises `BuildFailed` if it is not one."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with path.open("rb") as stream:
            return _read(path, ELFFile(stream))
    except (ELFError, UnicodeDecodeError) as error:
        raise BuildFailed(f"{path.name} is not a sound ELF file: {error}", component=path.name) from error


def _read(path: Path, elf: Any) -> ElfFacts:
    from elftools.elf.relocation import RelocationSection
    from elftools.elf.sections import SymbolTableSection

    comments: list[str] = []
    defined: set[str] = set()
    undefined: set[str] = set()
    dynamic: set[str] = set()
    references: Counter[str] = Counter()
    functions = 0
    for section in elf.iter_sections():
        if section.name == ".comment":
            comments += [part.decode(errors="replace") for part in section.data().split(b"\0") if part]
        elif isinstance(section, SymbolTableSection):
            of_linker = section["sh_type"] == "SHT_DYNSYM"
            for symbol in section.iter_symbols():
                if symbol["st_shndx"] == "SHN_UNDEF":
                    (dynamic if of_linker else undefined).add(symbol.name)
                elif symbol["st_info"]["bind"] != "STB_LOCAL":
                    defined.add(symbol.name)
                if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_size"] > 0:
                    functions += not of_linker
        elif isinstance(section, RelocationSection) and _is_of_code(elf, section):
            symbols = elf.get_section(section["sh_link"])
            for entry in section.iter_relocations():
                references[symbols.get_symbol(entry["r_info_sym"]).name] += 1
    interpreted = any(segment["p_type"] == "PT_INTERP" for segment in elf.iter_segments())
    return ElfFacts(
        path=path,
        machine=elf["e_machine"],
        kind=elf["e_type"],
        static=elf["e_type"] != "ET_REL" and not interpreted,
        comments=tuple(comments),
        defined=frozenset(defined - {""}),
        undefined=frozenset(_plain(name) for name in undefined if name),
        dynamic=frozenset(_plain(name) for name in dynamic if name),
        functions=functions,
        references={name: count for name, count in sorted(references.items()) if name},
    )


def _is_of_code(elf: Any, relocations: Any) -> bool:
    """Whether these are the relocations of a code section of an object."""
    if elf["e_type"] != "ET_REL":
        return False
    return bool(elf.get_section(relocations["sh_info"])["sh_flags"] & _EXECUTABLE_SECTION)


def _plain(symbol: str) -> str:
    """A symbol without its version, which the static table of a linked program carries (`name@GLIBC_2.4`)."""
    return symbol.partition("@")[0]


def prove(paths: Iterable[Path], toolchain: Toolchain, protector: Protection, elf_machine: str) -> dict[str, Any]:
    """The facts of `paths` for the report; raises `BuildFailed` naming the first file that breaks the promise.

    Every object must carry comments of the compiler asked for and no other. Of the protector's `present` symbols
    every object with code (`everywhere`) or else at least one object must call one; its `absent` symbols must
    appear nowhere. Linked programs must carry the compiler's comment too and, unless static, keep the same
    promise in their undefined symbols.
    """
    files = [elf_facts(path) for path in paths]
    objects = [file for file in files if file.is_object]
    for file in files:
        _prove_machine(file, elf_machine)
        _prove_compiler(file, toolchain)
        _prove_protector(file, protector)
    if not objects:
        raise BuildFailed("there is no object file to prove the build by", component="proof")
    protected = [file for file in objects if file.refers_to(protector.present)]
    if protector.present and not protected:
        raise BuildFailed(
            f"{objects[0].path.name}: no object of {len(objects)} refers to {' or '.join(protector.present)}",
            component=objects[0].path.name,
        )
    comments = sorted({comment for file in objects for comment in file.comments})
    return {
        "machine": elf_machine,
        "objects": len(objects),
        "programs": len(files) - len(objects),
        "compiler": comments,
        "protector": {
            "symbols": sorted({symbol for file in protected for symbol in file.refers_to(protector.present)}),
            "absent": list(protector.absent),
            "objects": len(protected),
            "sites": sum(_sites(file, protector) for file in protected),
        },
        "files": {
            file.path.name: {"functions": file.functions, "sites": _sites(file, protector)} for file in objects
        },
    }


def _sites(file: ElfFacts, protector: Protection) -> int:
    return sum(file.references.get(symbol, 0) for symbol in protector.present)


def _prove_machine(file: ElfFacts, elf_machine: str) -> None:
    if file.machine != elf_machine:
        raise BuildFailed(f"{file.path.name} is for {file.machine}, not {elf_machine}", component=file.path.name)


def _prove_compiler(file: ElfFacts, toolchain: Toolchain) -> None:
    right = [comment for comment in file.comments if re.search(toolchain.comment, comment)]
    if not right or (file.is_object and len(right) < len(file.comments)):
        raise BuildFailed(
            f"{file.path.name} was made by {', '.join(file.comments) or 'an unnamed compiler'}, not {toolchain.cc}",
            component=file.path.name,
        )


def _prove_protector(file: ElfFacts, protector: Protection) -> None:
    unwanted = file.refers_to(protector.absent)
    if unwanted:
        raise BuildFailed(
            f"{file.path.name} refers to {', '.join(sorted(unwanted))}, which must not be there",
            component=file.path.name,
        )
    has_code = file.functions > 0 and not file.static
    if protector.everywhere and protector.present and has_code and not file.refers_to(protector.present):
        raise BuildFailed(
            f"{file.path.name} has no stack protector: it refers to none of {', '.join(protector.present)}",
            component=file.path.name,
        )
