"""Rows ▸ records. Called by the store, inside a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from datetime import datetime

from dfbuild.model import (
    Better,
    CheckResult,
    Expectation,
    Outcome,
    Sample,
    StageReached,
    StepKind,
    Verdict,
)
from dfbuild.results.records import (
    CellRecord,
    CrashRecord,
    RefusalRecord,
    RunRecord,
    RunStatus,
    RunSummary,
    Snapshot,
    StepRecord,
)

# A cell counts by its last attempt, whatever became of that.
_LAST = "SELECT cell, id, max(number) FROM attempts WHERE run = ? GROUP BY cell"

_OUTCOMES = {str(outcome): outcome for outcome in Outcome}


def verdicts(db: sqlite3.Connection, run: str) -> dict[str, Verdict | None]:
    """The verdicts by cell, in the order of the matrix; None for cells that are not finished."""
    rows = db.execute(
        f"SELECT cells.cell, attempts.verdict FROM cells LEFT JOIN ({_LAST}) AS last ON last.cell = cells.cell"
        " LEFT JOIN attempts ON attempts.id = last.id WHERE cells.run = ? ORDER BY cells.position",
        (run, run),
    )
    return {cell: Verdict(verdict) if verdict else None for cell, verdict in rows}


def snapshot(db: sqlite3.Connection, run: str) -> Snapshot:
    outcomes: dict[tuple[str, str], Outcome] = {}
    samples: dict[tuple[str, str, str], Sample] = {}
    for cell, attempt, _ in db.execute(_LAST, (run,)).fetchall():
        rows = db.execute("SELECT name, outcome FROM checks WHERE attempt = ?", (attempt,))
        outcomes.update(((cell, name), _OUTCOMES[outcome]) for name, outcome in rows)
        for name, *row in db.execute(
            "SELECT checks.name, metric, unit, sample_values, better FROM samples"
            " JOIN checks ON checks.id = check_id WHERE samples.attempt = ? ORDER BY samples.id",
            (attempt,),
        ):
            samples[cell, name, row[0]] = _sample(row)
    return Snapshot(run=run, verdicts=verdicts(db, run), outcomes=outcomes, samples=samples)


def run(db: sqlite3.Connection, run: str) -> RunRecord:
    name, status, started, finished, config_file, config_text, command, options, versions, idle = db.execute(
        "SELECT name, status, started, finished, config_file, config_text, command, options, versions, idle"
        " FROM runs WHERE id = ?",
        (run,),
    ).fetchone()
    return RunRecord(
        id=run,
        name=name,
        status=RunStatus(status),
        started=datetime.fromisoformat(started),
        finished=datetime.fromisoformat(finished) if finished else None,
        config_file=config_file,
        config_text=config_text,
        command=tuple(json.loads(command)),
        options=tuple(json.loads(options)),
        versions=json.loads(versions),
        steps=_steps(db, run),
        cells=_cells(db, run),
        refusals=tuple(
            RefusalRecord(id=cell, attributes=json.loads(attributes), reason=reason)
            for cell, attributes, reason in db.execute(
                "SELECT cell, attributes, reason FROM refusals WHERE run = ? ORDER BY position", (run,)
            )
        ),
        idle=idle,
    )


def options(db: sqlite3.Connection, run: str) -> tuple[str, ...]:
    return tuple(json.loads(db.execute("SELECT options FROM runs WHERE id = ?", (run,)).fetchone()[0]))


def summaries(db: sqlite3.Connection) -> tuple[RunSummary, ...]:
    rows = db.execute(
        "SELECT id, name, status, started, finished FROM runs ORDER BY started DESC, id DESC"
    ).fetchall()
    found = []
    for run_id, name, status, started, finished in rows:
        counts: dict[Verdict, int] = defaultdict(int)
        unfinished = 0
        for verdict in verdicts(db, run_id).values():
            if verdict is None:
                unfinished += 1
            else:
                counts[verdict] += 1
        found.append(
            RunSummary(
                id=run_id,
                name=name,
                status=RunStatus(status),
                started=datetime.fromisoformat(started),
                finished=datetime.fromisoformat(finished) if finished else None,
                verdicts=dict(counts),
                unfinished=unfinished,
            )
        )
    return tuple(found)


def ids(db: sqlite3.Connection) -> list[str]:
    """The ids of all runs, the newest first."""
    return [row[0] for row in db.execute("SELECT id FROM runs ORDER BY started DESC, id DESC")]


def latest(db: sqlite3.Connection, name: str | None, before: str | None, status: RunStatus | None) -> str | None:
    """The newest run that meets all that is not None."""
    found: tuple[str] | None = db.execute(
        "SELECT id FROM runs WHERE (?1 IS NULL OR name = ?1) AND (?2 IS NULL OR status = ?2)"
        " AND (?3 IS NULL OR (started, id) < (SELECT started, id FROM runs WHERE id = ?3))"
        " ORDER BY started DESC, id DESC LIMIT 1",
        (name, status, before),
    ).fetchone()
    return found[0] if found else None


def _steps(db: sqlite3.Connection, run: str) -> tuple[StepRecord, ...]:
    return tuple(
        StepRecord(
            id=step,
            kind=StepKind(kind),
            name=name,
            key=key,
            verdict=Verdict(verdict),
            cached=bool(cached),
            seconds=seconds,
            facts=json.loads(facts),
            title=title,
            tail=tail,
            log=log,
        )
        for step, kind, name, key, verdict, cached, seconds, facts, title, tail, log in db.execute(
            "SELECT step, kind, name, key, verdict, cached, seconds, facts, title, tail, log FROM steps"
            " WHERE run = ? ORDER BY position",
            (run,),
        )
    )


def _cells(db: sqlite3.Connection, run: str) -> tuple[CellRecord, ...]:
    last = {
        cell: (attempt, number, rest)
        for attempt, cell, number, *rest in db.execute(
            "SELECT id, cell, number, verdict, title, seconds, accel, command, steps, crash FROM attempts"
            f" WHERE id IN (SELECT id FROM ({_LAST}))",
            (run,),
        )
    }
    found = []
    for cell, attributes, suites in db.execute(
        "SELECT cell, attributes, suites FROM cells WHERE run = ? ORDER BY position", (run,)
    ).fetchall():
        if cell not in last:
            found.append(
                CellRecord(
                    id=cell, attributes=json.loads(attributes), suites=tuple(json.loads(suites)), verdict=None
                )
            )
            continue
        attempt, number, (verdict, title, seconds, accel, command, steps, crash) = last[cell]
        found.append(
            CellRecord(
                id=cell,
                attributes=json.loads(attributes),
                suites=tuple(json.loads(suites)),
                verdict=Verdict(verdict) if verdict else None,
                title=title,
                seconds=seconds,
                attempt=number,
                accel=accel,
                command=tuple(json.loads(command)),
                steps=tuple(json.loads(steps)),
                stages=tuple(
                    StageReached(stage, reached, offset)
                    for stage, reached, offset in db.execute(
                        "SELECT stage, seconds, console FROM stages WHERE attempt = ? ORDER BY seconds, console",
                        (attempt,),
                    )
                ),
                checks=_checks(db, attempt),
                crash=CrashRecord(**json.loads(crash)) if crash else None,
            )
        )
    return tuple(found)


def _checks(db: sqlite3.Connection, attempt: int) -> tuple[CheckResult, ...]:
    samples: dict[int, list[Sample]] = defaultdict(list)
    for check, *row in db.execute(
        "SELECT check_id, metric, unit, sample_values, better FROM samples WHERE attempt = ? ORDER BY id",
        (attempt,),
    ):
        samples[check].append(_sample(row))
    return tuple(
        CheckResult(
            check=name,
            outcome=Outcome(outcome),
            expected=Expectation(expected),
            reason=reason,
            detail=detail,
            duration=duration,
            samples=tuple(samples[check]),
            console=(begin, end),
            facts=json.loads(facts),
        )
        for check, name, outcome, expected, reason, detail, duration, begin, end, facts in db.execute(
            "SELECT id, name, outcome, expected, reason, detail, duration, console_begin, console_end, facts"
            " FROM checks WHERE attempt = ? ORDER BY id",
            (attempt,),
        )
    )


def _sample(row: list[str] | tuple[str, ...]) -> Sample:
    metric, unit, values, better = row
    return Sample(metric=metric, unit=unit, values=tuple(json.loads(values)), better=Better(better))
