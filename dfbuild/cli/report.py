"""`dfbuild report` and `dfbuild runs`: what is stored, for people and for programs."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from dfbuild.cli.output import require_place
from dfbuild.report import html, junit, terminal, write_all
from dfbuild.report import json as report_json
from dfbuild.report.text import safe_line
from dfbuild.results import repeat
from dfbuild.results.compare import Comparison, compare
from dfbuild.results.records import RunRecord, RunStatus, RunSummary
from dfbuild.results.store import Store
from dfbuild.results.verdict import exit_status
from dfbuild.workspace import Workspace, atomic_write

_Run = TypeVar("_Run", RunRecord, RunSummary)


def run(arguments: argparse.Namespace) -> int:
    """Show a stored run; the exit status is that of the run."""
    workspace = Workspace.existing(arguments.work)
    with Store.look(workspace.database) as store:
        run_id = store.resolve(arguments.run_id or "latest")
        record = _as_it_is(store.run(run_id), workspace)
        asked = arguments.against or _asked(record)
        against = baseline(store, asked, record.name, before=run_id)
        if asked and against is None:
            print(f"nothing to compare with: no earlier run of {record.name} is finished", file=sys.stderr)
        comparison = _compare(store, record, against)
        if arguments.junit:
            _write(arguments.junit, junit.render(record, workspace))
        if arguments.html:
            _write(arguments.html, html.render(record, comparison, workspace))
        # The files beside a run are compared as the run itself was to be.
        return present(workspace, store, run_id, against, as_json=arguments.json, write=not arguments.against)


def _write(where: str, text: bytes | str) -> None:
    """Write what is asked for to the file `where`: a new file in the place of one, else through what is there."""
    path = Path(where)
    if where in ("-", "/dev/stdout"):
        # What is printed besides goes behind it, wherever that is.
        print(text.decode() if isinstance(text, bytes) else text, flush=True)
        return
    require_place(path)
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
    else:
        atomic_write(path.resolve(), text)


def present(
    workspace: Workspace, store: Store, run_id: str, against: str | None, *, as_json: bool, write: bool = True
) -> int:
    """Write all reports of a run into its directory and show it; returns the exit status that it earned."""
    record = _as_it_is(store.run(run_id), workspace)
    comparison = _compare(store, record, against)
    page = _written(record, comparison, workspace) if write else None
    if as_json:
        sys.stdout.write(report_json.render(record, comparison))
    else:
        terminal.show(record, comparison, workspace)
        if against is not None and (other := _kind(store.options(against))) != (this := _kind(record.options)):
            print(f"{against} was of another kind:{_words(other)}; this one:{_words(this)}")
        if page is not None:
            print(f"\nreport: {page}")
    return exit_status(record)


def _written(record: RunRecord, comparison: Comparison | None, workspace: Workspace) -> Path | None:
    """The run's page, with its other reports beside it; None, with a warning, where they can't be written."""
    try:
        return write_all(record, comparison, workspace).html
    except OSError as error:
        print(
            f"the reports in {workspace.run(record.id)} were not written: {error.strerror or error}",
            file=sys.stderr,
        )
        return None


def _kind(options: Sequence[str]) -> list[str]:
    """What a run was of, by its options: all but the work directory, which the runs that are compared share."""
    words = list(options)
    if "--work" in words:
        at = words.index("--work")
        del words[at : at + 2]
    return words


def _words(options: Sequence[str]) -> str:
    return safe_line(f" {shlex.join(options)}", 1000) if options else " no options"


def _asked(record: RunRecord) -> str | None:
    """What the run itself was to be compared with, by its command line or its file."""
    return repeat.asked(record.command, "--against") or tomllib.loads(record.config_text).get("baseline")


def baseline(store: Store, against: str | None, name: str, *, before: str | None = None) -> str | None:
    """The run that `against` means: an id, or `last`, the last finished one of the matrix `name` (`before` a run).

    Raises `UsageError` for a run that is not there; None if there is nothing to compare with.
    """
    if not against:
        return None
    if against in ("last", "latest"):
        return store.latest(name, before=before, status=RunStatus.FINISHED)
    return store.resolve(against)


def _compare(store: Store, record: RunRecord, against: str | None) -> Comparison | None:
    if against is None:
        return None
    return compare(record.snapshot, store.snapshot(against))


def runs(arguments: argparse.Namespace) -> int:
    """List the runs, the newest first."""
    workspace = Workspace.existing(arguments.work)
    with Store.look(workspace.database) as store:
        summaries = [_as_it_is(summary, workspace) for summary in store.runs()]
    if arguments.json:
        listing = [
            {
                "id": summary.id,
                "name": summary.name,
                "status": summary.status,
                "started": summary.started.isoformat(),
                "finished": summary.finished.isoformat() if summary.finished else None,
                "verdicts": summary.verdicts,
                "unfinished": summary.unfinished,
            }
            for summary in summaries
        ]
        json.dump(listing, sys.stdout, indent=2)
        print()
        return 0
    width = max((len(summary.id) for summary in summaries), default=0)
    for summary in summaries:
        counts = [f"{count} {verdict}" for verdict, count in summary.verdicts.items()]
        left = [f"{summary.unfinished} unfinished"] if summary.unfinished else []
        print(f"{summary.id:<{width}}  {summary.status:<11}  {', '.join([*counts, *left])}")
    if not summaries:
        print("no runs yet", file=sys.stderr)
    return 0


def _as_it_is(run: _Run, workspace: Workspace) -> _Run:
    """A run that was killed is stored as running; it is as good as interrupted."""
    if run.status is RunStatus.RUNNING and not workspace.is_running(run.id):
        return dataclasses.replace(run, status=RunStatus.INTERRUPTED)
    return run
