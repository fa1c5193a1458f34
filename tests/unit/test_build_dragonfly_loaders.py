"""A loader beside the world's: who has it, and what is changed in it, on lines such as its edits look for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dfbuild import releases
from dfbuild.build.dragonfly import Target, data, edits, kernel, loaders, native
from dfbuild.build.recipe import Recipe
from dfbuild.errors import BuildFailed, UsageError
from dfbuild.model import Cell, Shape, StepKind, Variant
from dfbuild.workspace import Workspace

MASTER = releases.load("master")


def edit(file: str) -> data.Edit:
    return next(edit for edit in data.loader(MASTER).edits if edit.file == file)


def test_it_turns_on_pae_before_it_asks_for_long_mode() -> None:
    """Else QEMU forgets the paging of a hypervisor whose guest it emulates: see docs/xen.md."""
    asks = "\tmovl\t$MSR_EFER, %ecx\n\tbtsl\t$8, %eax\n\twrmsr\n\n\t"
    turns = "/* then PAE */\n\tbtsl\t$5, %eax\n\tmovl\t%eax, %cr4\n\n\t"
    rest = "/* the tables */\n\tmovl\t%eax, %cr3\n"
    tramp = edit("sys/boot/pc32/libi386/x86_64_tramp.S")
    assert edits.apply(f"\tcli\n{asks}{turns}{rest}", tramp) == f"\tcli\n{turns}{asks}{rest}"
    with pytest.raises(BuildFailed, match="long mode is asked for before PAE"):
        edits.apply(f"\tcli\n{turns}{rest}", tramp)


def test_no_edit_of_it_is_one_of_the_world() -> None:
    theirs = {edit.file for edit in data.loader(MASTER).edits}
    assert theirs.isdisjoint(edit.file for edit in data.of(MASTER).edits)


def test_where_none_is_known_guests_have_the_worlds_own() -> None:
    with pytest.raises(UsageError, match="no loader but its world's"):
        data.loader(releases.load("1.2"))


def named(name: str) -> Callable[..., Recipe]:
    return lambda *_: Recipe(StepKind.WORLD, name, {}, lambda _: {})


def test_guests_of_xen_have_it_and_no_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Source:
        def still(self) -> Source:
            return self

    for module, function in ((Target, "_world"), (Target, "_programs"), (kernel, "recipe"), (native, "tests")):
        monkeypatch.setattr(module, function, named(function))
    monkeypatch.setattr(loaders, "recipe", named("loader"))
    target = Target(Source(), Source())  # type: ignore[arg-type]
    variant = Variant("master", "gcc80", "strong", "nx1")

    def parts(hypervisor: str) -> list[str]:
        cell = Cell(variant, Shape("x", hypervisor=hypervisor, disk="lsi53c895a"))
        return [need.name for need in target.image(MASTER, cell, Workspace(tmp_path)).needs]

    assert parts("qemu") == ["_world", "recipe", "_programs", "tests"]
    assert parts("xen-hvm") == ["_world", "recipe", "loader", "_programs", "tests"]
