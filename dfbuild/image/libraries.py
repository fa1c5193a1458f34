"""Which shared libraries a set of programs needs, found in a tree of unpacked packages instead of the host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dfbuild.errors import BuildFailed


@dataclass(frozen=True, slots=True)
class Linkage:
    """What a program or library asks of the dynamic linker."""

    interpreter: str
    """Path of the dynamic linker; empty for libraries and static programs."""
    needed: tuple[str, ...]
    """`DT_NEEDED` names."""


def linkage(path: Path) -> Linkage | None:
    """The linkage of an ELF file; None for anything else."""
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile
    from elftools.elf.segments import InterpSegment

    with path.open("rb") as stream:
        if stream.read(4) != b"\x7fELF":
            return None
        elf = ELFFile(stream)
        interpreters = [s.get_interp_name() for s in elf.iter_segments() if isinstance(s, InterpSegment)]
        needed = [
            tag.needed  # type: ignore[attr-defined]
            for section in elf.iter_sections()
            if isinstance(section, DynamicSection)
            for tag in section.iter_tags("DT_NEEDED")
        ]
        return Linkage(interpreters[0] if interpreters else "", tuple(needed))


def closure(programs: Iterable[Path], packages: Path) -> Mapping[str, Path]:
    """Path in the guest ▸ file, for the dynamic linker and all libraries that `programs` need, from `packages`.

    Libraries go to the directory of `packages` that they are in, under their `DT_NEEDED` name. Raises `BuildFailed`
    for a library that no package has.
    """
    available: dict[str, Path] = {}
    for path in sorted(packages.glob("**/lib*/**/*.so*")):
        # Absolute links would lead to the host's own libraries.
        if path.is_file() and path.resolve().is_relative_to(packages.resolve()):
            available.setdefault(path.name, path.resolve())
    found: dict[str, Path] = {}
    queue = list(programs)
    while queue:
        program = queue.pop()
        asked = linkage(program)
        if asked is None:
            continue
        wanted = {name: f"usr/lib/{name}" for name in asked.needed}
        if asked.interpreter:
            # The one absolute path that programs carry.
            wanted[Path(asked.interpreter).name] = asked.interpreter.lstrip("/")
        for name, place in sorted(wanted.items()):
            if name not in available:
                raise BuildFailed(f"{program.name} needs {name}, which no package has", component="libraries")
            if place not in found:
                found[place] = available[name]
                queue.append(found[place])
    return found
