"""Axes ▸ cells: the product, less what is excluded, plus what is included, and what the release refuses.

The order is that of the file: toolchain, stack protector, kernel, shape, the last changing fastest, so that cells
of one build stand together. New cells of an `[[include]]` come after.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dfbuild import filter
from dfbuild.config import Axes, Matrix
from dfbuild.errors import UsageError
from dfbuild.model import Cell, Refusal, Variant
from dfbuild.releases import Release


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a matrix comes to. `excluded` are the cells that the file itself leaves out, with its reasons."""

    cells: tuple[Cell, ...]
    refusals: tuple[Refusal, ...] = ()
    excluded: tuple[Refusal, ...] = ()


def expand(matrix: Matrix) -> Expansion:
    """All cells of `matrix`, each once, and those that are refused or excluded with the reason."""
    excludes = [(filter.compile(entry.when), entry.reason) for entry in matrix.exclude]
    refuses = [(filter.compile(rule.when), rule.reason) for rule in matrix.release.refuse]
    wanted: dict[tuple[Variant, str], Cell] = {}
    excluded: dict[tuple[Variant, str], Refusal] = {}
    for cell in _product(matrix.release, matrix.axes):
        attributes = cell.attributes() if excludes else {}
        reason = next((reason for matches, reason in excludes if matches(attributes)), None)
        key = (cell.variant, cell.shape.name)
        if reason is None:
            wanted[key] = cell
        else:
            excluded[key] = Refusal(cell, reason)
    for block in matrix.include:
        for cell in _product(matrix.release, block):
            key = (cell.variant, cell.shape.name)
            wanted[key] = cell
            excluded.pop(key, None)
    cells: list[Cell] = []
    refusals: list[Refusal] = []
    for cell in wanted.values():
        reason = _unknown(matrix.release, cell.variant)
        if refuses:
            attributes = cell.attributes()
            reason = next((reason for matches, reason in refuses if matches(attributes)), reason)
        if reason is None:
            cells.append(cell)
        else:
            refusals.append(Refusal(cell, reason))
    return Expansion(tuple(cells), tuple(refusals), tuple(excluded.values()))


def select(expansion: Expansion, filter_text: str) -> Expansion:
    """The part of `expansion` that a filter expression selects.

    Raises `UsageError` for a bad expression, and for one that selects nothing.
    """
    matches = filter.compile(filter_text)
    selected = replace(
        expansion,
        cells=tuple(cell for cell in expansion.cells if matches(cell.attributes())),
        refusals=tuple(r for r in expansion.refusals if matches(r.cell.attributes())),
        excluded=tuple(r for r in expansion.excluded if matches(r.cell.attributes())),
    )
    if not (selected.cells or selected.refusals or selected.excluded):
        raise UsageError(
            f"no cell is selected by: {filter_text}", hint="`dfbuild matrix --dry-run` lists the cells"
        )
    return selected


def _product(release: Release, axes: Axes) -> Iterator[Cell]:
    for toolchain in axes.toolchains:
        for protector in axes.stack_protectors:
            for kernel in axes.kernels:
                variant = Variant(release.name, toolchain, protector, kernel)
                for shape in axes.shapes:
                    yield Cell(variant, shape, axes.suites)


def _unknown(release: Release, variant: Variant) -> str | None:
    """A file may name a toolchain that the release refuses; where no rule holds, it still cannot be built."""
    if variant.toolchain not in release.toolchains:
        return f"{release.name} has no toolchain {variant.toolchain}"
    if variant.stack_protector not in release.stack_protectors:
        return f"{release.name} has no stack protector setting {variant.stack_protector}"
    if variant.kernel not in release.kernels:
        return f"{release.name} has no kernel {variant.kernel}"
    return None
