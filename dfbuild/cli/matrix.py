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
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
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
from dfbuild.cli.report import baseline, present
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
from dfbuild.model import Cell, GivenXenHost, Refusal, Verdict
from dfbuild.report.text import plural
from dfbuild.results.records import RunInfo, RunRecord, RunStatus
from dfbuild.results.store import Store
from dfbuild.source import Tree
from dfbuild.suites.names import suites_with
from dfbuild.workspace import Workspace

_PROBE_SECONDS = 60.0
_EXPORT_SECONDS = 600.0
_MOST_REASONS = 3
_CHOICE = ("filter", "cell", "check")
_ADDED = ("guests", "boots", "memory", "against", "json")
"""What a run is told that goes on, and what may be told anew."""


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


def run(arguments: argparse.Namespace) -> int:
    """Run a matrix, go on with an interrupted run, or say what would be done."""
    workspace = Workspace.locate(arguments.work)
    if arguments.resume is not None:
        _require_limits(arguments)
        return _resume(arguments, workspace)
    if arguments.config is None:
        raise UsageError("no matrix file", hint="dfbuild matrix FILE, or --resume")
    chosen = choose(arguments, workspace)
    if arguments.dry_run:
        return _dry_run(chosen, arguments.json)
    if not chosen.plan.cells:
        raise UsageError(f"no cell to run: {chosen.none}", hint="`--dry-run` lists cells and reasons")
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
        arguments.against = baseline(store, arguments.against or matrix.baseline, matrix.name)
        run_id = store.begin(info)
        with workspace.running(run_id):
            return _go(chosen, arguments, store, run_id, frozenset(cell.id for cell in chosen.plan.cells))


def choose(arguments: argparse.Namespace, workspace: Workspace) -> Chosen:
    """Load the file, expand it, take the cells asked for, and plan them."""
    matrix = load(Path(arguments.config))
    expansion = narrow(select(expand(matrix), arguments.filter), arguments.cell)
    check = getattr(arguments, "check", "")
    if check:
        expansion = _asking(expansion, check)
    source.require_use(arguments, matrix.release)
    native = arguments.build == "native"
    builder = target(matrix.release, lambda: _trees(arguments, matrix, workspace), machine, native=native)
    if arguments.base:
        builder = bases.Based(builder, bases.find(workspace, arguments.base, matrix.release.name))
    where = xenhost.where(arguments)
    planned = plan(expansion.cells, expansion.refusals, builder, matrix.release, workspace, where)
    return Chosen(matrix, builder, planned, expansion.excluded, workspace, where)


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
            near = difflib.get_close_matches(id, [*known, *refused], n=1)
            hint = f"did you mean {near[0]!r}?" if near else "`--dry-run` lists the cells"
            raise UsageError(f"no cell {id!r}", hint=hint)
    wanted = list(dict.fromkeys(ids))
    return Expansion(
        tuple(known[id] for id in wanted if id in known), tuple(refused[id] for id in wanted if id in refused)
    )


def _asking(expansion: Expansion, check: str) -> Expansion:
    """The cells that have suites with a check like `check`, with those alone. Raises `UsageError` for none."""
    suites = suites_with(check)
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


def _require_limits(arguments: argparse.Namespace) -> None:
    """Raise `UsageError` for what is given beside `--resume` and has no say there."""
    plain = vars(build_parser().parse_args(["matrix", "--resume"]))
    given = [name for name, default in plain.items() if getattr(arguments, name) != default]
    for name in given:
        if name not in ("resume", "work", *_ADDED):
            raise UsageError(
                f"--resume does not go with {'FILE' if name == 'config' else '--' + name.replace('_', '-')}: "
                "the run is what its own command line says",
                hint=f"leave it out, or start a new run; with --resume go --work, --{', --'.join(_ADDED)}",
            )


def _resume(arguments: argparse.Namespace, workspace: Workspace) -> int:
    """Go on with a run: its own command line decides what it is, this one only adds limits."""
    with Store.open(workspace.database) as store, contextlib.ExitStack() as running:
        run_id = store.resolve(arguments.resume) if arguments.resume else _left(store, workspace)
        running.enter_context(workspace.running(run_id))
        record = store.run(run_id)
        file = Path(record.config_file)
        if not file.is_file() or file.read_text(encoding="utf-8") != record.config_text:
            raise UsageError(
                f"{file} is not what it was when run {run_id} began", hint="start a new run, or restore the file"
            )
        # The options name the tree from anywhere; the words as they were typed do from one directory.
        stored = build_parser().parse_args(["matrix", str(file), *record.options])
        typed = build_parser().parse_args(record.command[1:])
        for name in _CHOICE:
            setattr(stored, name, getattr(typed, name))
        for name in _ADDED:
            setattr(stored, name, getattr(arguments, name) or getattr(typed, name))
        chosen = choose(stored, workspace)
        _require_same(record, chosen.plan)
        _require_cells(record, chosen.plan)
        against = stored.against or chosen.matrix.baseline
        stored.against = baseline(store, against, record.name, before=run_id)
        xenhost.require(chosen.xen_host, chosen.plan.cells, Deadline.after(_PROBE_SECONDS))
        return _go(chosen, stored, store, run_id, store.reopen(run_id))


def _require_same(record: RunRecord, planned: Plan) -> None:
    """Raise `UsageError` if a step that `record` has is none of `planned` any more: results of two trees are no
    run's."""
    for step in record.steps:
        if step.verdict is Verdict.PASS and step.id not in planned.recipes:
            raise UsageError(
                f"{step.kind} {step.name} is not made of what it was made of when run {record.id} began",
                hint="the tree, a release's data or this host's compilers have changed: start a new run",
            )


def _require_cells(record: RunRecord, planned: Plan) -> None:
    """Raise `UsageError` unless the cells of `record` that it may still have to run are what they were."""
    attributes = {cell.id: cell.attributes() for cell in planned.cells}
    for cell in record.cells:
        if cell.verdict in (None, Verdict.INFRA) and attributes.get(cell.id) != cell.attributes:
            raise UsageError(
                f"cell {cell.id!r} is not what it was when run {record.id} began",
                hint="a file that the matrix or its release is like has changed: start a new run, or restore it",
            )


def _left(store: Store, workspace: Workspace) -> str:
    """The newest run that was interrupted; raises `UsageError`."""
    found = [run.id for run in store.runs() if run.status is not RunStatus.FINISHED]
    for run_id in found:
        with contextlib.suppress(UsageError), workspace.running(run_id):
            return run_id
    raise UsageError(
        "no run was interrupted" + (f"; {', '.join(found[:3])} is being run" if found else ""),
        hint="`dfbuild runs` lists them",
    )


def _go(chosen: Chosen, arguments: argparse.Namespace, store: Store, run_id: str, cells: frozenset[str]) -> int:
    """Run `cells`, write the reports, show them, beside those of the run `arguments.against`."""
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
    return present(chosen.workspace, store, run_id, arguments.against, as_json=arguments.json)


@contextlib.contextmanager
def _interruptible(cancel: Cancel) -> Iterator[None]:
    """SIGINT, SIGTERM and the terminal's end throw the switch while inside."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup(1) has it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: cancel.set()) for number in numbers}
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
    refusals, excluded = _reasons(planned.refusals), _reasons(chosen.excluded)
    if as_json:
        report: dict[str, Any] = {
            "release": release.name, "steps": steps, "cells": cells, "refused": refusals, "excluded": excluded,
        }  # fmt: skip
        json.dump(report, sys.stdout, indent=2)
        print()
        return 0
    print(f"{plural(len(steps), 'build step')}:")
    for step in steps:
        print(f"  {'cached' if step['cached'] else 'make  '}  {step['step']}  {step['key']}")
    print(f"\n{plural(len(cells), 'cell')}:")
    for described in cells:
        print(f"  {described['id']}  ({', '.join(described['suites'])})")
        print(f"    {shlex.join(described['command'])}")
    if refusals:
        print(f"\n{len(refusals)} refused:")
        for refusal in refusals:
            print(f"  {refusal['id']}: {refusal['reason']}")
    if excluded:
        # They may be most of the product: what tells is why.
        print(f"\n{len(excluded)} left out by {chosen.matrix.file} (--json lists them):")
        for reason, count in Counter(refusal["reason"] for refusal in excluded).items():
            print(f"  {count}: {reason}")
    return 0


def _reasons(refusals: Iterable[Refusal]) -> list[dict[str, str]]:
    return [{"id": refusal.cell.id, "reason": refusal.reason} for refusal in refusals]


def _command(chosen: Chosen, cell: Cell, store: ArtefactStore, accel: Accel) -> list[str]:
    """The hypervisor's command line for `cell`, whether its image is made already or not."""
    recipe = chosen.plan.images[cell.id]
    image = Artefact(recipe.kind, recipe.name, recipe.key, store.path(recipe))
    host = chosen.plan.hosts.get(cell.id)
    media = xen.media(chosen.target, chosen.matrix.release, cell, image, chosen.workspace, host, chosen.xen_host)
    # The directory is made anew for every guest; this stands for it.
    return create(GuestSpec(cell.id, cell.shape, media, Path("/tmp/dfbuild-g")), accel).command()
