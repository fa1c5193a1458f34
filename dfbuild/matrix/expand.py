"""Axes ▸ cells: the product, less what is excluded, plus what is included, and what the release refuses.

The order is that of the file: toolchain, stack protector, kernel, shape, the last changing fastest, so that cells
of one build stand together. New cells of an `[[include]]` come after.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dfbuild import filter
from dfbuild.config import Axes, Matrix
from dfbuild.errors import UsageError, nearest
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
    exclude = _rules((entry.when, entry.reason) for entry in matrix.exclude)
    refuse = _rules((rule.when, rule.told) for rule in matrix.release.refuse)
    # By id: what an include names again keeps its place and gets the include's suites.
    cells: dict[str, Cell] = {}
    refusals: dict[str, Refusal] = {}
    excluded: dict[str, Refusal] = {}

    for block in (matrix.axes, *matrix.include):
        for cell in _product(matrix.release, block):
            attributes = cell.attributes()
            id = str(attributes["id"])
            if block is matrix.axes and (reason := exclude(attributes)):
                excluded[id] = Refusal(cell, reason)
                continue
            excluded.pop(id, None)
            if reason := refuse(attributes) or _unknown(matrix.release, cell.variant):
                refusals[id] = Refusal(cell, reason)
            else:
                cells[id] = cell
    return Expansion(tuple(cells.values()), tuple(refusals.values()), tuple(excluded.values()))


def select(
    expansion: Expansion, filter_text: str, attributes: Mapping[str, filter.Attribute] = filter.CELL
) -> Expansion:
    """The part of `expansion` that a filter expression selects; all of it for an empty one.

    Raises `UsageError` for a bad expression, for one with a name that none of `attributes` can have, and for one
    that selects no cell, refused, excluded or not.
    """
    if not filter_text.strip():
        return expansion
    matches = filter.compile(filter_text, attributes)
    selected = Expansion(
        cells=tuple(cell for cell in expansion.cells if matches(cell.attributes())),
        refusals=tuple(r for r in expansion.refusals if matches(r.cell.attributes())),
        excluded=tuple(r for r in expansion.excluded if matches(r.cell.attributes())),
    )
    if not (selected.cells or selected.refusals or selected.excluded):
        # A value that no cell has is the likely reason, and can be pointed at.
        filter.compile(filter_text, _values(expansion))
        raise UsageError(f"no cell is selected by: {filter_text}", hint="`dfbuild matrix --dry-run` lists them")
    return selected


def narrow(expansion: Expansion, ids: Sequence[str]) -> Expansion:
    """The cells (and refusals) with these ids; all for none. Raises `UsageError` for one that is not there, or that
    the file leaves out."""
    if not ids:
        return expansion
    known = {cell.id: cell for cell in expansion.cells}
    refused = {refusal.cell.id: refusal for refusal in expansion.refusals}
    excluded = {refusal.cell.id: refusal.reason for refusal in expansion.excluded}
    for id in ids:
        if id in excluded:
            raise UsageError(
                f"the matrix leaves out {id!r}: {excluded[id]}", hint="it is an [[exclude]] of the file"
            )
        if id not in known and id not in refused:
            hint = nearest(id, [*known, *refused], otherwise="`--dry-run` lists the cells")
            raise UsageError(f"no cell {id!r}", hint=hint)
    wanted = list(dict.fromkeys(ids))
    return Expansion(
        tuple(known[id] for id in wanted if id in known), tuple(refused[id] for id in wanted if id in refused)
    )


def asking(expansion: Expansion, check: str, suites: Collection[str]) -> Expansion:
    """The cells that run some of `suites`, with those alone: of the others none has a check like `check`.

    Raises `UsageError` if there is no such cell.
    """
    cells = [
        replace(cell, suites=tuple(suite for suite in cell.suites if suite in suites)) for cell in expansion.cells
    ]
    asked = tuple(cell for cell in cells if cell.suites)
    if cells and not asked:
        has = ", ".join(dict.fromkeys(suite for cell in expansion.cells for suite in cell.suites))
        raise UsageError(
            f"no chosen cell runs a check that matches {check!r}", hint=f"their suites are: {has or 'none'}"
        )
    return replace(expansion, cells=asked)


def _values(expansion: Expansion) -> dict[str, filter.Attribute]:
    """The attributes of cells, with the names that occur on each axis."""
    cells = [*expansion.cells, *(refusal.cell for refusal in expansion.refusals)]
    axes = {
        "toolchain": dict.fromkeys(cell.variant.toolchain for cell in cells),
        "stack_protector": dict.fromkeys(cell.variant.stack_protector for cell in cells),
        "kernel": dict.fromkeys(cell.variant.kernel for cell in cells),
        "shape": dict.fromkeys(cell.shape.name for cell in cells),
    }
    return {**filter.CELL, **{axis: filter.Attribute(values=tuple(names)) for axis, names in axes.items()}}


def _rules(rules: Iterable[tuple[str, str]]) -> Callable[[Mapping[str, str | int]], str | None]:
    """A function that gives the reason of the first rule that matches."""
    compiled = [(filter.compile(when), reason) for when, reason in rules]

    def reason(attributes: Mapping[str, str | int]) -> str | None:
        for matches, why in compiled:
            if matches(attributes):
                return why
        return None

    return reason


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
