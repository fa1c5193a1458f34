"""`dfbuild matrix`: from a matrix file to verdicts, a table and the reports."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import platform
import shlex
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfbuild import __version__
from dfbuild.build import bases
from dfbuild.build.recipe import Artefact, Target
from dfbuild.build.store import ArtefactStore
from dfbuild.build.targets import target
from dfbuild.cli import source, xenhost
from dfbuild.cli.parser import build as build_parser
from dfbuild.cli.progress import shown
from dfbuild.cli.report import present
from dfbuild.config import Matrix, load
from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, UsageError
from dfbuild.guest import create
from dfbuild.guest.accel import Accel, probe, qemu_version
from dfbuild.guest.protocol import GuestSpec
from dfbuild.matrix import xen
from dfbuild.matrix.expand import Expansion, expand, select
from dfbuild.matrix.job import Job
from dfbuild.matrix.machine import machine
from dfbuild.matrix.plan import Plan, plan
from dfbuild.matrix.run import PlanRun, label
from dfbuild.matrix.schedule import host_limits
from dfbuild.model import Cell, GivenXenHost
from dfbuild.results.records import RunInfo, RunStatus
from dfbuild.results.store import Store
from dfbuild.source import Tree
from dfbuild.suites.names import require_match
from dfbuild.workspace import Workspace

_PROBE_SECONDS = 60.0
_EXPORT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the command line and the matrix file come to."""

    matrix: Matrix
    target: Target
    plan: Plan
    workspace: Workspace
    xen_host: GivenXenHost | None


def run(arguments: argparse.Namespace) -> int:
    """Run a matrix, go on with an interrupted run, or say what would be done."""
    workspace = Workspace.locate(arguments.work)
    if arguments.resume is not None:
        return _resume(arguments, workspace)
    if arguments.config is None:
        raise UsageError("no matrix file", hint="dfbuild matrix FILE, or --resume")
    if arguments.check:
        require_match(arguments.check)
    chosen = choose(arguments, workspace)
    if arguments.dry_run:
        return _dry_run(chosen, arguments.json)
    if not chosen.plan.cells:
        raise UsageError(
            f"no cell to run: {len(chosen.plan.refusals)} refused", hint="`--dry-run` lists cells and reasons"
        )
    xenhost.require(chosen.xen_host, chosen.plan.cells, Deadline.after(_PROBE_SECONDS))
    with Store.open(workspace.database) as store:
        matrix = chosen.matrix
        info = RunInfo(
            name=matrix.name,
            config_file=str(matrix.file.absolute()),
            config_text=matrix.file.read_text(encoding="utf-8"),
            command=("dfbuild", *arguments.argv),
            cells=chosen.plan.cells,
            options=_options(arguments, matrix),
            refusals=chosen.plan.refusals,
            versions=_versions(),
        )
        run_id = store.begin(info)
        return _go(chosen, arguments, store, run_id, frozenset(cell.id for cell in chosen.plan.cells))


def choose(arguments: argparse.Namespace, workspace: Workspace) -> Chosen:
    """Load the file, expand it, take the cells asked for, and plan them."""
    matrix = load(Path(arguments.config))
    expansion = narrow(select(expand(matrix), arguments.filter), arguments.cell)
    native = arguments.build == "native"
    builder = target(matrix.release, lambda: _trees(arguments, matrix, workspace), machine, native=native)
    if arguments.base:
        builder = bases.Based(builder, bases.find(workspace, arguments.base, matrix.release.name))
    where = xenhost.where(arguments)
    planned = plan(expansion.cells, expansion.refusals, builder, matrix.release, workspace, where)
    return Chosen(matrix, builder, planned, workspace, where)


def _trees(arguments: argparse.Namespace, matrix: Matrix, workspace: Workspace) -> tuple[Tree, Tree]:
    """The source trees of kernel and userland that the command line or the environment names.

    They must be of the matrix's release.
    """
    tree, plain = source.trees(arguments, workspace, Deadline.after(_EXPORT_SECONDS), matrix.release)
    if tree.release != matrix.release.name:
        raise UsageError(
            f"{tree.path} is a tree of release {tree.release}, but {matrix.file} is for {matrix.release.name}",
            hint="name another tree with --src, or another matrix file",
        )
    return tree, plain if arguments.keep_world else tree


def narrow(expansion: Expansion, ids: list[str]) -> Expansion:
    """The cells (and refusals) with these ids; all for none. Raises `UsageError` for one that is not there."""
    if not ids:
        return expansion
    known = {cell.id: cell for cell in expansion.cells}
    refused = {refusal.cell.id: refusal for refusal in expansion.refusals}
    for id in ids:
        if id not in known and id not in refused:
            near = difflib.get_close_matches(id, [*known, *refused], n=1)
            hint = f"did you mean {near[0]!r}?" if near else "`--dry-run` lists the cells"
            raise UsageError(f"no cell {id!r}", hint=hint)
    return Expansion(
        tuple(known[id] for id in ids if id in known), tuple(refused[id] for id in ids if id in refused)
    )


def _resume(arguments: argparse.Namespace, workspace: Workspace) -> int:
    """Go on with a run: its own command line decides what it is, this one only adds limits."""
    with Store.open(workspace.database) as store:
        if arguments.resume:
            run_id = store.resolve(arguments.resume)
        else:
            found = [run.id for run in store.runs() if run.status is not RunStatus.FINISHED]
            if not found:
                raise UsageError("no run was interrupted", hint="`dfbuild runs` lists them")
            run_id = found[0]
        record = store.run(run_id)
        file = Path(record.config_file)
        if not file.is_file() or file.read_text(encoding="utf-8") != record.config_text:
            raise UsageError(
                f"{file} is not what it was when run {run_id} began", hint="start a new run, or restore the file"
            )
        stored = build_parser().parse_args(record.command[1:])
        stored.config, stored.argv = str(file), record.command[1:]
        for name in ("guests", "boots", "memory", "json", "against"):
            setattr(stored, name, getattr(arguments, name) or getattr(stored, name))
        chosen = choose(stored, workspace)
        xenhost.require(chosen.xen_host, chosen.plan.cells, Deadline.after(_PROBE_SECONDS))
        return _go(chosen, stored, store, run_id, store.reopen(run_id))


def _go(chosen: Chosen, arguments: argparse.Namespace, store: Store, run_id: str, cells: frozenset[str]) -> int:
    """Run `cells`, write the reports, show them."""
    matrix, cancel = chosen.matrix, Cancel()
    limits = matrix.limits
    limit = host_limits(
        arguments.memory or limits.memory, arguments.guests or limits.guests, arguments.boots or limits.boots
    )
    status = RunStatus.INTERRUPTED
    try:
        with _interruptible(cancel), shown() as listener:
            job = Job(
                run=run_id,
                release=matrix.release,
                target=chosen.target,
                workspace=chosen.workspace,
                artefacts=ArtefactStore(chosen.workspace),
                results=store,
                accel=probe(chosen.workspace, Deadline.after(_PROBE_SECONDS, cancel=cancel)),
                cancel=cancel,
                listener=listener,
                via=arguments.via or matrix.via,
                check=arguments.check,
                xen_host=chosen.xen_host,
            )
            PlanRun(job, chosen.plan, cells).run(limit)
        status = RunStatus.FINISHED
    except Cancelled as error:
        raise Cancelled(
            f"run {run_id} was interrupted; what it found is kept", hint=f"dfbuild matrix --resume {run_id}"
        ) from error
    finally:
        store.finish(run_id, status)
    against = arguments.against or matrix.baseline
    if against == "last":
        against = store.latest(matrix.name, before=run_id, status=RunStatus.FINISHED)
    return present(chosen.workspace, store, run_id, against, as_json=arguments.json)


@contextlib.contextmanager
def _interruptible(cancel: Cancel) -> Iterator[None]:
    """SIGINT and SIGTERM throw the switch while inside."""
    before = {number: signal.signal(number, lambda *_: cancel.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _options(arguments: argparse.Namespace, matrix: Matrix) -> tuple[str, ...]:
    """What a line that repeats a part of this run has to say as well."""
    return (
        *(source.options(arguments) if matrix.release.source is not None else ()),
        *(("--build", arguments.build) if arguments.build != "cross" else ()),
        *(("--base", arguments.base) if arguments.base else ()),
        *xenhost.options(arguments),
        *(
            word
            for name in ("via", "work")
            if getattr(arguments, name)
            for word in (f"--{name}", str(getattr(arguments, name)))
        ),
    )


def _versions() -> dict[str, str]:
    return {
        "dfbuild": __version__,
        "qemu": qemu_version(),
        "python": platform.python_version(),
        "host": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _dry_run(chosen: Chosen, as_json: bool) -> int:
    """List cells, steps and the exact command lines."""
    store = ArtefactStore(chosen.workspace)
    release, planned = chosen.matrix.release, chosen.plan
    accel = probe(chosen.workspace, Deadline.after(_PROBE_SECONDS))
    steps = [
        {"id": recipe.id, "step": label(recipe), "key": recipe.key, "cached": store.find(recipe) is not None}
        for recipe in planned.recipes.values()
    ]
    cells = [
        {"id": cell.id, "suites": list(cell.suites), "command": _command(chosen, cell, store, accel)}
        for cell in planned.cells
    ]
    refusals = [{"id": refusal.cell.id, "reason": refusal.reason} for refusal in planned.refusals]
    if as_json:
        report: dict[str, Any] = {"release": release.name, "steps": steps, "cells": cells, "refused": refusals}
        json.dump(report, sys.stdout, indent=2)
        print()
        return 0
    print(f"{len(steps)} build steps:")
    for step in steps:
        print(f"  {'cached' if step['cached'] else 'make  '}  {step['step']}  {step['key']}")
    print(f"\n{len(cells)} cells:")
    for described in cells:
        print(f"  {described['id']}  ({', '.join(described['suites'])})")
        print(f"    {shlex.join(described['command'])}")
    if refusals:
        print(f"\n{len(refusals)} refused:")
        for refusal in refusals:
            print(f"  {refusal['id']}: {refusal['reason']}")
    return 0


def _command(chosen: Chosen, cell: Cell, store: ArtefactStore, accel: Accel) -> list[str]:
    """The hypervisor's command line for `cell`, whether its image is made already or not."""
    recipe = chosen.plan.images[cell.id]
    image = Artefact(recipe.kind, recipe.name, recipe.key, store.path(recipe))
    media = xen.media(chosen.target, chosen.matrix.release, cell, image, chosen.workspace, chosen.xen_host)
    # The directory is made anew for every guest; this stands for it.
    return create(GuestSpec(cell.id, cell.shape, media, Path("/tmp/dfb-g")), accel).command()
