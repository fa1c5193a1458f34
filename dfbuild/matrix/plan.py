"""From cells to a plan: every build step once, and a guest run for every cell. Makes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dfbuild.build.recipe import Recipe
from dfbuild.build.targets import Target
from dfbuild.errors import UsageError
from dfbuild.matrix import xen
from dfbuild.model import Cell, GivenXenHost, Refusal, Verdict
from dfbuild.releases import Release
from dfbuild.results.records import RunRecord
from dfbuild.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Plan:
    """`recipes` by id, needs before what needs them; `images` says which recipe each cell boots from.

    `hosts` says on which Xen host a cell runs, for those that do.
    """

    recipes: Mapping[str, Recipe]
    images: Mapping[str, Recipe]
    cells: tuple[Cell, ...]
    refusals: tuple[Refusal, ...]
    hosts: Mapping[str, Recipe] = field(default_factory=dict)

    def needs(self, cell: Cell) -> tuple[Recipe, ...]:
        """What has to be made before the guest of `cell` can run."""
        return (self.images[cell.id], *([self.hosts[cell.id]] if cell.id in self.hosts else []))


def plan(
    cells: Sequence[Cell],
    refusals: Sequence[Refusal],
    target: Target,
    release: Release,
    workspace: Workspace,
    xen_host: GivenXenHost | None = None,
) -> Plan:
    """Plan `cells`; those that the target itself can't build join the `refusals`. Xen guests run on `xen_host`."""
    recipes: dict[str, Recipe] = {}
    images: dict[str, Recipe] = {}
    hosts: dict[str, Recipe] = {}
    possible: list[Cell] = []
    refused = list(refusals)
    for cell in cells:
        refusal = target.refuse(release, cell)
        if refusal is not None:
            refused.append(refusal)
            continue
        image = target.image(release, cell, workspace)
        host = xen.host(cell.shape, workspace, xen_host)
        for needed in (image, host) if host is not None else (image,):
            for recipe in needed.walk():
                recipes.setdefault(recipe.id, recipe)
        images[cell.id] = recipes[image.id]
        if host is not None:
            hosts[cell.id] = recipes[host.id]
        possible.append(cell)
    return Plan(recipes, images, tuple(possible), tuple(refused), hosts)


def require_memory(planned: Plan, memory: int | None) -> None:
    """Raise `UsageError` if a cell's guest alone has more than the `memory`, in MiB, that is for all together, or
    than this host has."""
    largest = max(planned.cells, key=lambda cell: cell.shape.memory, default=None)
    if largest is None:
        return
    needed = largest.shape.memory
    if memory is not None and needed > memory:
        raise UsageError(
            f"cell {largest.id!r} needs {needed} MiB, and --memory is {memory}", hint=f"--memory {needed}, or more"
        )
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    if needed > there:
        raise UsageError(
            f"cell {largest.id!r} needs {needed} MiB, and this host has {there}",
            hint=f"less `memory` in [shapes.{largest.shape.name}]",
        )


def require_same(record: RunRecord, planned: Plan) -> None:
    """Raise `UsageError` if `record`, which is to be gone on with, is not of what is `planned` now.

    Results of two trees are no run's, nor are those of two machines.
    """
    for step in record.steps:
        if step.verdict in (Verdict.PASS, Verdict.BUILD_FAIL) and step.id not in planned.recipes:
            raise UsageError(
                f"{step.kind} {step.name} is not made of what it was made of when run {record.id} began",
                hint="the tree, a release's data or this host's compilers have changed: start a new run",
            )
    attributes = {cell.id: cell.attributes() for cell in planned.cells}
    for cell in record.left:
        if attributes.get(cell.id) != cell.attributes:
            raise UsageError(
                f"cell {cell.id!r} is not what it was when run {record.id} began",
                hint="a file that the matrix or its release is like has changed: start a new run, or restore it",
            )
