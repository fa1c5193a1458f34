"""What a command line and its matrix file choose: cells, the plan for them, and the target that builds them."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dfbuild.build import bases
from dfbuild.build.store import ArtefactStore
from dfbuild.build.targets import Built, LiveTarget, Target, target
from dfbuild.cli import source, xenhost
from dfbuild.cli.progress import say
from dfbuild.config import Matrix, load
from dfbuild.deadline import Deadline
from dfbuild.errors import UsageError
from dfbuild.guest.offered import require_offered
from dfbuild.matrix.expand import asking, expand, narrow, select
from dfbuild.matrix.machine import machine
from dfbuild.matrix.plan import Plan, plan, require_memory
from dfbuild.matrix.run import label
from dfbuild.model import Cell, GivenXenHost, Refusal, StepKind
from dfbuild.releases import Release
from dfbuild.source import Tree
from dfbuild.suites.names import suites_with
from dfbuild.workspace import Workspace

_EXPORT_SECONDS = 600.0
_ASK_SECONDS = 30.0
_MOST_REASONS = 3


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the command line and the matrix file come to."""

    matrix: Matrix
    target: Target
    plan: Plan
    excluded: tuple[Refusal, ...]
    workspace: Workspace
    xen_host: GivenXenHost | None

    @property
    def none(self) -> str:
        """What to say where cells are asked for and there are none, with the first reasons."""
        gone = [*self.plan.refusals, *self.excluded]
        reasons = "".join(f"\n  {refusal.cell.id}: {refusal.reason}" for refusal in gone[:_MOST_REASONS])
        return f"{len(self.plan.refusals)} refused, {len(self.excluded)} left out by {self.matrix.file}{reasons}"


def choose(arguments: argparse.Namespace, workspace: Workspace) -> Chosen:
    """Load the file, expand it, take the cells asked for, and plan them."""
    matrix = load(Path(arguments.config))
    expansion = select(narrow(expand(matrix), arguments.cell), arguments.filter, matrix.attributes)
    if arguments.check:
        expansion = asking(expansion, arguments.check, suites_with(arguments.check))
    source.require_use(arguments, matrix.release)
    built = Built(arguments.build)
    trees = functools.cache(lambda: _trees(arguments, matrix, workspace))
    where = xenhost.where(arguments)

    def planning(userland: Callable[[], Tree]) -> tuple[Target, Plan]:
        builder = target(matrix.release, lambda: (trees()[0], userland()), machine, built)
        if arguments.base:
            builder = bases.Based(builder, bases.find(workspace, arguments.base, matrix.release.name))
        return builder, plan(expansion.cells, expansion.refusals, builder, matrix.release, workspace, where)

    builder, planned = planning(lambda: trees()[1 if arguments.keep_world else 0])
    require_memory(planned, arguments.memory)
    require_offered((cell.shape for cell in planned.cells), Deadline.after(_ASK_SECONDS, what="QEMU's answer"))
    if arguments.patch and not arguments.keep_world:
        _tell_of_worlds(planned, lambda: planning(lambda: trees()[1])[1], ArtefactStore(workspace))
    return Chosen(matrix, builder, planned, expansion.excluded, workspace, where)


def _tell_of_worlds(planned: Plan, sparing: Callable[[], Plan], store: ArtefactStore) -> None:
    """Say which worlds are to be built anew for the patches, that would not be in the plan `sparing`."""
    anew = [one for one in planned.recipes.values() if one.kind is StepKind.WORLD and not store.has(one)]
    if not anew:
        return
    others = {one.key for one in sparing().recipes.values()}
    names = [label(one) for one in anew if one.key not in others]
    if names:
        say(f"made anew, since the patches change what it is made of: {', '.join(names)}")
        say("--keep-world takes what is made of the tree without them: right if programs see nothing of the change")


def live_target(target: Target, release: Release) -> LiveTarget:
    """`target`, if its systems run from a CD; raises `UsageError`."""
    if isinstance(target, LiveTarget):
        return target
    raise UsageError(f"{release.title} has no live system", hint="name a matrix file of a DragonFly release")


def one(chosen: Chosen) -> Cell:
    """The cell that is chosen; raises `UsageError` unless it is exactly one."""
    cells = chosen.plan.cells
    if len(cells) == 1:
        return cells[0]
    if not cells:
        raise UsageError(
            f"no cell is chosen: {chosen.none}", hint="`dfbuild matrix --dry-run` lists cells and reasons"
        )
    some = ", ".join(repr(cell.id) for cell in cells[:3])
    raise UsageError(f"{len(cells)} cells are chosen; it takes one", hint=f"name it with --cell: {some}")


def _trees(arguments: argparse.Namespace, matrix: Matrix, workspace: Workspace) -> tuple[Tree, Tree]:
    """The source tree that the command line or the environment names, with its patches and without.

    It must be of the matrix's release.
    """
    tree, plain = source.trees(arguments, workspace, Deadline.after(_EXPORT_SECONDS), matrix.release)
    if tree.release != matrix.release.name:
        says = "--release says" if arguments.release else f"{tree.path} is a tree of release"
        raise UsageError(
            f"{says} {tree.release}, but {matrix.file} is for {matrix.release.name}",
            hint="leave --release out"
            if arguments.release
            else "name another tree with --src, or another matrix file",
        )
    return tree, plain
