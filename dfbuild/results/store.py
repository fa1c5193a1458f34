"""The results database: everything is committed as it comes, so a killed process loses nothing that it recorded."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from dfbuild.errors import UsageError
from dfbuild.model import CheckResult, CrashReport, StageReached, Verdict
from dfbuild.results import load
from dfbuild.results.records import (
    Attempt,
    CrashRecord,
    RunInfo,
    RunRecord,
    RunStatus,
    RunSummary,
    Snapshot,
    StepRecord,
)
from dfbuild.results.schema import StoreError, migrate
from dfbuild.results.sound import clean, clean_json, finite

_BUSY_SECONDS = 30.0


class Store:
    """One workspace's database. One object may be used by any number of threads; other processes may read and
    write at the same time. Every `record_*`, `begin*`, `end_cell` and `finish` is committed when it returns.

    A commit survives the end of the process, `kill -9` included; it may lose its last moments when the whole
    machine loses power (WAL with `synchronous=NORMAL`, https://sqlite.org/wal.html).
    All methods raise `StoreError` when sqlite does.
    """

    def __init__(self, path: Path, writer: sqlite3.Connection) -> None:
        self._path = path
        self._writer = writer
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the database at `path` (made if it does not exist), brought up to this program's version."""
        with _sqlite_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                with _alone(path.parent):
                    db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = NORMAL")
                db.execute("PRAGMA foreign_keys = ON")
                migrate(db)
            except BaseException:
                db.close()
                raise
        return cls(path, db)

    @classmethod
    @contextlib.contextmanager
    def look(cls, path: Path) -> Iterator[Self]:
        """The database at `path` for who only reads: where it can't be written to, a copy; where none is, an empty
        one."""
        if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
            with cls.open(path) as store:
                yield store
            return
        with tempfile.TemporaryDirectory(prefix="dfbuild-results-") as directory:
            copy = Path(directory) / path.name
            with _sqlite_errors(path):
                for suffix in ("", "-wal"):
                    with contextlib.suppress(FileNotFoundError):
                        shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
            with cls.open(copy) as store:
                yield store

    def close(self) -> None:
        with self._lock:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ── a run ──────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, info: RunInfo) -> str:
        """Register a run with all its cells and refusals; returns its id, such as `20261124-031500-reference`.

        Ids are made of the start in UTC and the matrix's name, sort by time and are safe as file names.
        """
        stem = f"{info.started.astimezone(UTC):%Y%m%d-%H%M%S}-{_word(info.name)}"
        with self._write() as db:
            run, number = stem, 1
            while db.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone():
                number += 1
                run = f"{stem}-{number}"
            db.execute(
                "INSERT INTO runs (id, name, status, started, config_file, config_text, command, options, versions,"
                " seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run,
                    clean(info.name),
                    RunStatus.RUNNING,
                    _stamp(info.started),
                    clean(info.config_file),
                    clean(info.config_text),
                    clean_json(info.command),
                    clean_json(info.options),
                    clean_json(dict(info.versions)),
                    _stamp(info.started),
                ),
            )
            db.executemany(
                "INSERT INTO cells VALUES (?, ?, ?, ?, ?)",
                (
                    (run, cell.id, position, clean_json(cell.attributes()), clean_json(cell.suites))
                    for position, cell in enumerate(info.cells)
                ),
            )
            db.executemany(
                "INSERT INTO refusals VALUES (?, ?, ?, ?, ?)",
                (
                    (run, refusal.cell.id, position, clean_json(refusal.cell.attributes()), clean(refusal.reason))
                    for position, refusal in enumerate(info.refusals)
                ),
            )
        return run

    def reopen(self, run: str) -> frozenset[str]:
        """Take a run up again: what was begun and not ended is aborted. Returns the cells that remain to be run.

        Those are the cells without a verdict, and those whose verdict is INFRA (it says nothing about them).
        Nobody else may be running it.
        """
        with self._write() as db:
            self._require(db, run)
            db.execute("UPDATE attempts SET aborted = 1 WHERE run = ? AND verdict IS NULL", (run,))
            now = _now()
            ended, *_ = db.execute(
                "SELECT coalesce(finished, seen, ?) FROM runs WHERE id = ?", (_stamp(now), run)
            ).fetchone()
            idle = (now - datetime.fromisoformat(ended)).total_seconds()
            db.execute(
                "UPDATE runs SET status = ?, finished = NULL, seen = ?, idle = idle + ? WHERE id = ?",
                (RunStatus.RUNNING, _stamp(now), max(0.0, idle), run),
            )
            verdicts = load.verdicts(db, run)
        return frozenset(cell for cell, verdict in verdicts.items() if verdict in (None, Verdict.INFRA))

    def finish(self, run: str, status: RunStatus = RunStatus.FINISHED, *, finished: datetime | None = None) -> None:
        """The run ended, just now unless it is said when."""
        with self._write() as db:
            self._require(db, run)
            db.execute(
                "UPDATE runs SET status = ?, finished = ? WHERE id = ?", (status, _stamp(finished or _now()), run)
            )

    # ── what happens in it ─────────────────────────────────────────────────────────────────────────────────────

    def record_step(self, run: str, step: StepRecord) -> None:
        """A build step ended. Recorded again (a resumed run), the later one stands."""
        with self._write(run) as db:
            db.execute(
                "INSERT INTO steps VALUES (?, ?, (SELECT count(*) FROM steps WHERE run = ?),"
                " ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run, step) DO UPDATE SET verdict = excluded.verdict,"
                " cached = excluded.cached, seconds = excluded.seconds, facts = excluded.facts,"
                " title = excluded.title, tail = excluded.tail, log = excluded.log",
                (
                    run,
                    clean(step.id),
                    run,
                    step.kind,
                    clean(step.name),
                    step.key,
                    step.verdict,
                    step.cached,
                    finite(step.seconds),
                    clean_json(dict(step.facts)),
                    clean(step.title),
                    clean(step.tail),
                    clean(step.log),
                ),
            )

    def begin_cell(self, run: str, cell: str, steps: Iterable[str] = ()) -> Attempt:
        """A new attempt at a cell of the run; earlier ones no longer count. `steps` are its build steps' ids."""
        with self._write(run) as db:
            if not db.execute("SELECT 1 FROM cells WHERE run = ? AND cell = ?", (run, cell)).fetchone():
                raise StoreError(f"run {run} has no cell {cell!r}")
            db.execute(
                "UPDATE attempts SET aborted = 1 WHERE run = ? AND cell = ? AND verdict IS NULL", (run, cell)
            )
            row, number = db.execute(
                "INSERT INTO attempts (run, cell, number, steps)"
                " SELECT ?1, ?2, 1 + count(*), ?3 FROM attempts WHERE run = ?1 AND cell = ?2"
                " RETURNING id, number",
                (run, cell, clean_json(tuple(steps))),
            ).fetchone()
        return Attempt(run=run, cell=cell, number=number, row=row)

    def record_stage(self, attempt: Attempt, stage: StageReached) -> None:
        """A boot stage was reached. Recorded again (the guest was reset), the later one stands."""
        with self._write(attempt.run) as db:
            db.execute(
                "INSERT INTO stages VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
                " SET seconds = excluded.seconds, console = excluded.console",
                (attempt.row, clean(stage.stage), finite(stage.seconds), stage.offset),
            )

    def record_check(self, attempt: Attempt, result: CheckResult) -> None:
        """A check ended, with its samples. Recorded again in the same attempt, the later one stands."""
        with self._write(attempt.run) as db:
            (check,) = db.execute(
                "INSERT INTO checks (attempt, name, outcome, expected, reason, detail, duration, console_begin,"
                " console_end, facts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (attempt, name) DO UPDATE"
                " SET outcome = excluded.outcome, expected = excluded.expected, reason = excluded.reason,"
                " detail = excluded.detail, duration = excluded.duration, console_begin = excluded.console_begin,"
                " console_end = excluded.console_end, facts = excluded.facts RETURNING id",
                (
                    attempt.row,
                    clean(result.check),
                    result.outcome,
                    result.expected,
                    clean(result.reason),
                    clean(result.detail),
                    finite(result.duration),
                    *result.console,
                    clean_json(dict(result.facts)),
                ),
            ).fetchone()
            db.execute("DELETE FROM samples WHERE check_id = ?", (check,))
            db.executemany(
                "INSERT INTO samples (check_id, attempt, metric, unit, better, sample_values)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (
                        check,
                        attempt.row,
                        clean(sample.metric),
                        clean(sample.unit),
                        sample.better,
                        clean_json(sample.values),
                    )
                    for sample in result.samples
                ),
            )

    def end_cell(
        self,
        attempt: Attempt,
        verdict: Verdict,
        *,
        title: str = "",
        seconds: float = 0.0,
        accel: str = "",
        command: Sequence[str] = (),
        crash: CrashReport | None = None,
    ) -> None:
        """The attempt ended. `title` says why in a line; `command` is the hypervisor's command line."""
        story = None
        if crash is not None:
            record = CrashRecord(crash.title, crash.signature, crash.offset, crash.excerpt)
            story = clean_json(dataclasses.asdict(record))
        with self._write(attempt.run) as db:
            db.execute(
                "UPDATE attempts SET verdict = ?, title = ?, seconds = ?, accel = ?, command = ?, crash = ?"
                " WHERE id = ?",
                (
                    verdict,
                    clean(title or (crash.title if crash else "")),
                    finite(seconds),
                    clean(accel),
                    clean_json(tuple(command)),
                    story,
                    attempt.row,
                ),
            )

    # ── reading ────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, run: str) -> RunRecord:
        """Everything that is stored of a run, seen at one moment. Raises `UsageError` if there is no such run."""
        with self._read() as db:
            self._require(db, run)
            return load.run(db, run)

    def snapshot(self, run: str) -> Snapshot:
        """What a comparison needs of a run; much cheaper than `run`."""
        with self._read() as db:
            self._require(db, run)
            return load.snapshot(db, run)

    def runs(self) -> tuple[RunSummary, ...]:
        """The stored runs, the newest first."""
        with self._read() as db:
            return load.summaries(db)

    def options(self, run: str) -> tuple[str, ...]:
        """`RunRecord.options` of a run: what it was of."""
        with self._read() as db:
            self._require(db, run)
            return load.options(db, run)

    def latest(
        self, name: str | None = None, *, before: str | None = None, status: RunStatus | None = None
    ) -> str | None:
        """The id of the newest run: of the matrix `name`, started before the run `before`, with that status."""
        with self._read() as db:
            if before is not None:
                self._require(db, before)
            return load.latest(db, name, before, status)

    def resolve(self, text: str) -> str:
        """The run that a person means: an id, the beginning of just one, or `last`. Raises `UsageError`."""
        with self._read() as db:
            ids = load.ids(db)
        if not ids:
            raise UsageError("there is no run yet", hint="`dfbuild matrix CONFIG` makes one")
        if text in ("last", "latest"):
            return ids[0]
        matches = [text] if text in ids else [run for run in ids if text and run.startswith(text)]
        if len(matches) == 1:
            return matches[0]
        what = f"{text!r} is the beginning of {len(matches)} runs" if matches else f"there is no run {text!r}"
        raise UsageError(what, hint="`dfbuild runs` lists them; the last are " + ", ".join((matches or ids)[:3]))

    # ── sqlite ─────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def _write(self, running: str | None = None) -> Iterator[sqlite3.Connection]:
        """A transaction that writes what happens in the run `running`, or what is no sign of any run's life."""
        with self._lock, _sqlite_errors(self._path):
            # IMMEDIATE: waits for other writers here, where waiting is possible, and not at the first write.
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                if running is not None:
                    self._writer.execute("UPDATE runs SET seen = ? WHERE id = ?", (_stamp(_now()), running))
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        # A connection and a transaction of its own: a long report neither blocks the writers nor sees them move.
        with _sqlite_errors(self._path):
            db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                db.execute("PRAGMA query_only = ON")
                db.execute("BEGIN")
                yield db
            except (ValueError, TypeError, KeyError) as error:
                raise StoreError(
                    f"results database {self._path} holds what this dfbuild does not know: {error}",
                    hint="use the dfbuild that wrote it, or another --work directory",
                ) from error
            finally:
                db.close()

    @staticmethod
    def _require(db: sqlite3.Connection, run: str) -> None:
        if not db.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone():
            raise UsageError(f"there is no run {run!r}", hint="`dfbuild runs` lists them")


@contextlib.contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"results database {path}: {error}") from error


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep others out while the journal changes its mode: sqlite fails there at once, however long it may wait."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _now() -> datetime:
    return datetime.now(UTC)


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _word(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "run"
