"""The database's tables, and how an older database becomes a current one.

`MIGRATIONS[n]` leads from `user_version` n to n + 1. A script that was released is never edited: add another.
"""

from __future__ import annotations

import sqlite3

from dfbuild.errors import InfraError


class StoreError(InfraError):
    """The results database cannot be opened, read or written."""


MIGRATIONS = (
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        status TEXT NOT NULL,
        started TEXT NOT NULL,
        finished TEXT,
        config_file TEXT NOT NULL,
        config_text TEXT NOT NULL,
        command TEXT NOT NULL,
        options TEXT NOT NULL,
        versions TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX runs_by_name ON runs (name, started);

    CREATE TABLE steps (
        run TEXT NOT NULL REFERENCES runs,
        step TEXT NOT NULL,
        position INTEGER NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        key TEXT NOT NULL,
        verdict TEXT NOT NULL,
        cached INTEGER NOT NULL,
        seconds REAL NOT NULL,
        facts TEXT NOT NULL,
        title TEXT NOT NULL,
        tail TEXT NOT NULL,
        log TEXT NOT NULL,
        PRIMARY KEY (run, step)
    );

    CREATE TABLE cells (
        run TEXT NOT NULL REFERENCES runs,
        cell TEXT NOT NULL,
        position INTEGER NOT NULL,
        attributes TEXT NOT NULL,
        suites TEXT NOT NULL,
        PRIMARY KEY (run, cell)
    );

    CREATE TABLE refusals (
        run TEXT NOT NULL REFERENCES runs,
        cell TEXT NOT NULL,
        position INTEGER NOT NULL,
        attributes TEXT NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (run, cell)
    );

    -- A cell's last attempt counts. One without a verdict was cut off.
    CREATE TABLE attempts (
        id INTEGER PRIMARY KEY,
        run TEXT NOT NULL,
        cell TEXT NOT NULL,
        number INTEGER NOT NULL,
        aborted INTEGER NOT NULL DEFAULT 0,
        verdict TEXT,
        title TEXT NOT NULL DEFAULT '',
        seconds REAL NOT NULL DEFAULT 0,
        accel TEXT NOT NULL DEFAULT '',
        command TEXT NOT NULL DEFAULT '[]',
        steps TEXT NOT NULL DEFAULT '[]',
        crash TEXT,
        UNIQUE (run, cell, number),
        FOREIGN KEY (run, cell) REFERENCES cells
    );

    CREATE TABLE stages (
        attempt INTEGER NOT NULL REFERENCES attempts,
        stage TEXT NOT NULL,
        seconds REAL NOT NULL,
        console INTEGER NOT NULL,
        PRIMARY KEY (attempt, stage)
    );

    CREATE TABLE checks (
        id INTEGER PRIMARY KEY,
        attempt INTEGER NOT NULL REFERENCES attempts,
        name TEXT NOT NULL,
        outcome TEXT NOT NULL,
        expected TEXT NOT NULL,
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        duration REAL NOT NULL,
        console_begin INTEGER NOT NULL,
        console_end INTEGER NOT NULL,
        facts TEXT NOT NULL,
        UNIQUE (attempt, name)
    );
    -- Covers what a comparison reads: it never touches the rows, whose details are long.
    CREATE INDEX checks_by_outcome ON checks (attempt, name, outcome);

    CREATE TABLE samples (
        id INTEGER PRIMARY KEY,
        check_id INTEGER NOT NULL REFERENCES checks ON DELETE CASCADE,
        attempt INTEGER NOT NULL,
        metric TEXT NOT NULL,
        unit TEXT NOT NULL,
        better TEXT NOT NULL,
        sample_values TEXT NOT NULL
    );
    CREATE INDEX samples_by_attempt ON samples (attempt);
    CREATE INDEX samples_by_check ON samples (check_id);
    """,
    """
    -- When something was last recorded of it: the end of a sitting that was killed.
    ALTER TABLE runs ADD COLUMN seen TEXT;
    -- Seconds between its sittings.
    ALTER TABLE runs ADD COLUMN idle REAL NOT NULL DEFAULT 0;
    """,
)


def migrate(db: sqlite3.Connection) -> None:
    """Bring `db` up to date in one transaction. Raises `StoreError` for a database newer than this program."""
    if db.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        # Read again: another process may have migrated while this one waited for the lock.
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise StoreError(
                f"the results database has version {version}, this dfbuild knows {len(MIGRATIONS)}",
                hint="use the newer dfbuild that wrote it, or another --work directory",
            )
        for number in range(version, len(MIGRATIONS)):
            for statement in _statements(MIGRATIONS[number]):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number + 1}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _statements(script: str) -> list[str]:
    # `executescript` would commit the open transaction first.
    found: list[str] = []
    pending = ""
    for part in script.split(";"):
        pending += part + ";"
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return found
