"""Expansion: sizes, order and places by property; refusals and the budget by example."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild import filter, releases
from dfbuild.config import Axes, Exclude, Matrix, load
from dfbuild.errors import UsageError
from dfbuild.matrix.expand import Expansion, expand, select
from dfbuild.model import Cell, Shape
from dfbuild.releases import Release
from dfbuild.releases.schema import Kernel, Refuse, StackProtector, Toolchain

CONFIGS = Path(__file__).parents[2] / "configs"
TOOLCHAINS = tuple(f"cc-{n}" for n in range(5))
PROTECTORS = ("on", "off", "strong")
KERNELS = ("up", "smp", "debug")
SHAPES = tuple(Shape(f"s{n}", memory=64 * n + 64) for n in range(5))


def release(*refuse: Refuse) -> Release:
    return releases.load("reference").model_copy(
        update={
            "name": "many",
            "toolchains": {name: Toolchain(cc=name, comment=name) for name in TOOLCHAINS},
            "stack_protectors": {name: StackProtector() for name in PROTECTORS},
            "kernels": {name: Kernel() for name in KERNELS},
            "refuse": refuse,
        }
    )


def matrix(axes: Axes, *, refuse: Sequence[Refuse] = (), exclude: Sequence[Exclude] = (), **more: object) -> Matrix:
    return Matrix("m", Path("m.toml"), release(*refuse), axes, exclude=tuple(exclude), **more)  # type: ignore[arg-type]


def some(values: Sequence[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(st.sampled_from(values), unique=True, min_size=1).map(tuple)


blocks = st.builds(
    Axes,
    some(TOOLCHAINS),
    some(PROTECTORS),
    some(KERNELS),
    some(SHAPES),
    st.sampled_from((("security",), ("scheduler", "network"), ())),
)


def places(axes: Axes) -> list[tuple[str, str, str, str]]:
    shapes = [shape.name for shape in axes.shapes]
    return list(itertools.product(axes.toolchains, axes.stack_protectors, axes.kernels, shapes))


def place(cell: Cell) -> tuple[str, str, str, str]:
    return cell.variant.toolchain, cell.variant.stack_protector, cell.variant.kernel, cell.shape.name


@given(blocks, some(TOOLCHAINS), some([shape.name for shape in SHAPES]))
def test_the_product_less_what_is_excluded(axes: Axes, toolchains: tuple[str], shapes: tuple[str]) -> None:
    when = f"toolchain={','.join(toolchains)} and shape={','.join(shapes)}"
    expansion = expand(matrix(axes, exclude=[Exclude(when, "why")]))
    out = [p for p in places(axes) if p[0] in toolchains and p[3] in shapes]
    assert [place(cell) for cell in expansion.cells] == [p for p in places(axes) if p not in out]
    assert [place(refusal.cell) for refusal in expansion.excluded] == out
    assert {refusal.reason for refusal in expansion.excluded} <= {"why"}
    assert all(cell.suites == axes.suites for cell in expansion.cells)


@given(blocks, st.lists(blocks, max_size=2))
def test_includes_come_last_and_win(axes: Axes, include: list[Axes]) -> None:
    cells = expand(matrix(axes, include=tuple(include))).cells
    wanted = {p: block.suites for block in (axes, *include) for p in places(block)}
    assert {place(cell): cell.suites for cell in cells} == wanted
    assert [place(cell) for cell in cells] == list(wanted), "what is new comes last, what was there stays"
    assert len({cell.id for cell in cells}) == len(cells)


@given(blocks, blocks)
def test_what_is_included_is_not_excluded(axes: Axes, include: Axes) -> None:
    expansion = expand(matrix(axes, include=(include,), exclude=[Exclude("shape=*", "all")]))
    assert {place(cell) for cell in expansion.cells} == set(places(include))
    assert {place(refusal.cell) for refusal in expansion.excluded} == set(places(axes)) - set(places(include))


@given(blocks)
def test_refusals_and_cells_are_all_there_is(axes: Axes) -> None:
    rules = [Refuse(when="memory>128 and kernel=up", reason="big"), Refuse(when="kernel=up", reason="small")]
    expansion = expand(matrix(axes, refuse=rules))
    for refusal in expansion.refusals:
        assert refusal.cell.variant.kernel == "up"
        assert refusal.reason == ("big" if refusal.cell.shape.memory > 128 else "small"), "the first rule wins"
    assert all(cell.variant.kernel != "up" for cell in expansion.cells)
    assert len(expansion.cells) + len(expansion.refusals) == len(places(axes))


@given(blocks)
def test_the_same_matrix_expands_the_same_and_shares_its_parts(axes: Axes) -> None:
    first, second = expand(matrix(axes)), expand(matrix(axes))
    assert first == second
    assert {id(cell.shape) for cell in first.cells} == {id(shape) for shape in axes.shapes}
    assert len({id(cell.variant) for cell in first.cells}) == len(first.cells) // len(axes.shapes)


@given(blocks, some(TOOLCHAINS))
def test_selecting_splits_and_keeps_the_order(axes: Axes, toolchains: tuple[str]) -> None:
    expansion = expand(matrix(axes))
    text = f"toolchain={','.join(toolchains)}"
    parts = []
    for filter_text in (text, f"not {text}"):
        try:
            parts.append(select(expansion, filter_text).cells)
        except UsageError:
            parts.append(())
    assert all(cell.variant.toolchain in toolchains for cell in parts[0])
    assert sorted(expansion.cells, key=lambda cell: cell.variant.toolchain not in toolchains) == [
        *parts[0],
        *parts[1],
    ]


def test_a_name_that_the_release_lacks_is_refused_where_no_rule_holds() -> None:
    axes = Axes(("cc-0", "gcc2"), ("on", "maybe"), ("smp", "x"), SHAPES[:1], ())
    expansion = expand(matrix(axes, refuse=[Refuse(when="toolchain=gcc2 and memory>4096", reason="no")]))
    assert [cell.id for cell in expansion.cells] == ["many/cc-0+ssp/smp @ s0"]
    assert {refusal.reason for refusal in expansion.refusals} == {
        "many has no toolchain gcc2",
        "many has no stack protector setting maybe",
        "many has no kernel x",
    }


def test_a_filter_that_selects_nothing_is_a_mistake() -> None:
    expansion = expand(matrix(Axes(("cc-0",), ("on",), ("smp",), SHAPES[:2], ())))
    assert select(expansion, "") == expansion
    assert len(select(expansion, "shape=s1").cells) == 1
    with pytest.raises(UsageError, match="no cell is selected by: memory>4096"):
        select(expansion, "memory>4096")
    with pytest.raises(UsageError, match="shape is never 's11'") as caught:
        select(expansion, "shape=s11")
    assert caught.value.hint == "did you mean 's1'?"
    assert select(Expansion(()), "") == Expansion(())
    # Of several, too, and where a cell is selected by another one.
    known = {**filter.CELL, "shape": filter.Attribute(values=("s1", "s2", "s3"))}
    assert len(select(expansion, "shape=s1,s3", known).cells) == 1
    with pytest.raises(UsageError, match="shape is never 's11'"):
        select(expansion, "shape=s1,s11", known)


def test_the_reference_matrix_has_sixteen_cells() -> None:
    expansion = expand(load(CONFIGS / "reference.toml"))
    assert not expansion.refusals
    assert len({cell.id for cell in expansion.cells}) == 16
    assert {cell.variant.id for cell in expansion.cells} == {
        f"reference/{cc}{ssp}/smp" for cc in ("gcc-12", "clang-14") for ssp in ("", "+ssp")
    }
    assert {cell.shape.name for cell in expansion.cells} == {"up", "smp2", "ht2", "nx-off"}
    assert {cell.suites for cell in expansion.cells} == {("scheduler", "network", "security", "packages")}
    filtered = select(expansion, "toolchain=gcc* and shape!=up")
    assert [cell.id for cell in filtered.cells] == [
        f"reference/gcc-12{ssp}/smp @ {shape}" for ssp in ("+ssp", "") for shape in ("smp2", "ht2", "nx-off")
    ]


def test_the_matrix_of_refusals_says_why() -> None:
    expansion = expand(load(CONFIGS / "refused.toml"))
    assert [cell.id for cell in expansion.cells] == ["reference/gcc-12+ssp/smp @ up"]
    reasons = {refusal.cell.id: refusal.reason for refusal in expansion.refusals}
    assert "long mode" in reasons["reference/gcc-12+ssp/smp @ i386"]
    assert "72 MiB" in reasons["reference/gcc-12+ssp/smp @ small"]
    assert "DragonFly" in reasons["reference/gcc34+ssp/smp @ up"]
    assert len(reasons) == 3
    assert len(expansion.excluded) == 2


def test_a_hundred_thousand_cells_in_two_seconds() -> None:
    axes = Axes(TOOLCHAINS, PROTECTORS[:2], KERNELS[:2], tuple(Shape(f"s{n}") for n in range(5000)), ("security",))
    large = matrix(
        axes,
        refuse=[Refuse(when="toolchain=cc-3 and kernel=up", reason="x")],
        exclude=[Exclude("shape=s?99", "x")],
    )
    start = time.process_time()
    expansion = expand(large)
    selected = select(expansion, "toolchain=cc-1,cc-2* and not (shape=s1* or stack_protector=off) or memory>1024")
    taken = time.process_time() - start
    assert len(expansion.cells) + len(expansion.refusals) + len(expansion.excluded) == 100_000
    assert selected.cells
    assert taken < 2.0
