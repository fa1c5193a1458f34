"""`dfbuild matrix`: from a matrix file to verdicts, a table and the reports."""

from __future__ import annotations

import argparse
import contextlib
import platform
import signal
from collections.abc import Iterator
from pathlib import Path

from dfbuild import __version__
from dfbuild.build.store import ArtefactStore
from dfbuild.cli import source, xenhost
from dfbuild.cli.choice import Chosen, choose
from dfbuild.cli.dryrun import dry_run
from dfbuild.cli.parser import build as build_parser
from dfbuild.cli.progress import shown
from dfbuild.cli.report import baseline, present
from dfbuild.config import Matrix
from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, UsageError
from dfbuild.guest.accel import probe, qemu_version
from dfbuild.matrix.job import Job
from dfbuild.matrix.plan import require_same
from dfbuild.matrix.run import PlanRun
from dfbuild.matrix.schedule import host_limits
from dfbuild.results.records import RunInfo, RunStatus
from dfbuild.results.store import Store
from dfbuild.workspace import Workspace

_PROBE_SECONDS = 60.0
_CHOICE = ("filter", "cell", "check")
_ADDED = ("guests", "boots", "memory", "against", "json")
"""What a run is told that goes on, and what may be told anew."""


def run(arguments: argparse.Namespace) -> int:
    """Run a matrix, go on with an interrupted run, or say what would be done."""
    if arguments.resume is not None:
        _require_limits(arguments)
        return _resume(arguments, Workspace.existing(arguments.work))
    workspace = Workspace.locate(arguments.work)
    if arguments.config is None:
        raise UsageError("no matrix file", hint="dfbuild matrix FILE, or --resume")
    chosen = choose(arguments, workspace)
    matrix = chosen.matrix
    against = arguments.against or matrix.baseline
    if arguments.dry_run:
        with Store.look(workspace.database) as store:
            baseline(store, against, matrix.name)
        return dry_run(chosen, as_json=arguments.json)
    if not chosen.plan.cells:
        raise UsageError(f"no cell to run: {chosen.none}", hint="`--dry-run` lists cells and reasons")
    xenhost.require(chosen.xen_host, chosen.plan.cells, Deadline.after(_PROBE_SECONDS))
    with Store.open(workspace.database) as store:
        info = RunInfo(
            name=matrix.name,
            config_file=str(matrix.file.absolute()),
            config_text=matrix.file.read_text(encoding="utf-8-sig"),
            command=("dfbuild", *arguments.argv),
            cells=chosen.plan.cells,
            options=_options(arguments, matrix, workspace),
            refusals=chosen.plan.refusals,
            versions=_versions(),
        )
        arguments.against = baseline(store, against, matrix.name)
        run_id = store.begin(info)
        with workspace.running(run_id):
            return _go(chosen, arguments, store, run_id, frozenset(cell.id for cell in chosen.plan.cells))


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
        if record.status is RunStatus.FINISHED and not record.left:
            raise UsageError(
                f"run {run_id} is finished: nothing is left to do", hint=f"`dfbuild report {run_id}` shows it"
            )
        file = Path(record.config_file)
        if not file.is_file() or file.read_text(encoding="utf-8-sig") != record.config_text:
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
        require_same(record, chosen.plan)
        against = stored.against or chosen.matrix.baseline
        stored.against = baseline(store, against, record.name, before=run_id)
        xenhost.require(chosen.xen_host, chosen.plan.cells, Deadline.after(_PROBE_SECONDS))
        return _go(chosen, stored, store, run_id, store.reopen(run_id))


def _left(store: Store, workspace: Workspace) -> str:
    """The last run but for those that are being run, if it was interrupted; raises `UsageError`."""
    runs = store.runs()
    busy = [run.id for run in runs if run.status is not RunStatus.FINISHED and workspace.is_running(run.id)]
    others = [run for run in runs if run.id not in busy]
    found = [run.id for run in others if run.status is not RunStatus.FINISHED]
    if not found:
        raise UsageError(
            "no run was interrupted" + (f"; {', '.join(busy[:3])} is being run" if busy else ""),
            hint="`dfbuild runs` lists them",
        )
    if found[0] != others[0].id:
        raise UsageError(
            f"the last run {others[0].id} is finished",
            hint=f"one before it was interrupted: dfbuild matrix --resume {found[0]}",
        )
    return found[0]


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


def _options(arguments: argparse.Namespace, matrix: Matrix, workspace: Workspace) -> tuple[str, ...]:
    """What a line that repeats a part of this run has to say as well."""
    return (
        *(source.options(arguments) if matrix.release.source is not None else ()),
        *(("--build", arguments.build) if arguments.build != "cross" else ()),
        *(("--base", arguments.base) if arguments.base else ()),
        *xenhost.options(arguments),
        *(("--via", arguments.via) if arguments.via else ()),
        *(("--work", str(workspace.root)) if workspace != Workspace.default() else ()),
    )


def _versions() -> dict[str, str]:
    return {
        "dfbuild": __version__,
        "qemu": qemu_version(),
        "python": platform.python_version(),
        "host": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
