"""A million stored checks: what changed since last night, and what recording one check costs.

    python benchmarks/bench_results.py

"Changed since last night" is everything from opening the database to the finished comparison of two nights. It is
set against reading just the two nights' rows with bare sqlite3, and against the same question without the index.
"""

from __future__ import annotations

import platform
import random
import sqlite3
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from timing import median_seconds

from dfbuild.model import Cell, CheckResult, Outcome, Sample, Shape, Variant, Verdict
from dfbuild.results.compare import Comparison, compare
from dfbuild.results.records import RunInfo
from dfbuild.results.store import Store

NIGHTS, CELLS, CHECKS = 63, 16, 1000
METRICS, VALUES = 5, 30
RECORDED = 500
BUDGET = 0.2


def cells() -> tuple[Cell, ...]:
    return tuple(
        Cell(Variant("reference", f"gcc-{n // 4}", "on", "smp"), Shape(f"shape{n % 4}"), ("all",))
        for n in range(CELLS)
    )


def fill(path: Path) -> list[str]:
    """NIGHTS runs of CELLS x CHECKS checks; rows go in by the thousand. In the last one, metric0 is worse."""
    chance = random.Random(1)
    runs = []
    with Store.open(path) as store, sqlite3.connect(path) as db:
        for night in range(NIGHTS):
            started = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=night)
            run = store.begin(RunInfo("nightly", "nightly.toml", "", (), cells(), started=started))
            for cell in cells():
                attempt = store.begin_cell(run, cell.id)
                db.executemany(
                    "INSERT INTO checks (attempt, name, outcome, expected, reason, detail, duration,"
                    " console_begin, console_end, facts) VALUES (?, ?, ?, 'pass', '', ?, 0.1, 0, 0, '{}')",
                    (
                        (
                            attempt.row,
                            f"suite{n % 5}/check-number-{n}",
                            "fail" if chance.random() < 0.002 else "pass",
                            "x" * 200,
                        )
                        for n in range(CHECKS)
                    ),
                )
                db.commit()
                for metric in range(METRICS if night >= NIGHTS - 3 else 0):
                    middle = 120 if metric == 0 and night == NIGHTS - 1 else 100
                    values = tuple(chance.gauss(middle, 2) for _ in range(VALUES))
                    sample = Sample(f"metric{metric}", "µs", values)
                    result = CheckResult(f"suite/metric{metric}", Outcome.PASS, samples=(sample,))
                    store.record_check(attempt, result)
                store.end_cell(attempt, Verdict.PASS)
            store.finish(run)
            runs.append(run)
    return runs


def changed(path: Path, run: str, against: str) -> Comparison:
    """The question itself, from the file to the answer."""
    with Store.open(path) as store:
        return compare(store.snapshot(run), store.snapshot(against))


def bare(path: Path, *runs: str) -> list[list[tuple[str, str, str]]]:
    """The two nights' outcomes with sqlite3 and nothing else."""
    with sqlite3.connect(path) as db:
        join = "attempts CROSS JOIN checks ON checks.attempt = attempts.id"
        query = f"SELECT cell, name, outcome FROM {join} WHERE run = ?"
        return [db.execute(query, (run,)).fetchall() for run in runs]


def recording(path: Path) -> float:
    """Seconds to record one check with a sample, committed."""
    with Store.open(path) as store:
        run = store.begin(RunInfo("record", "", "", (), cells()[:1]))
        attempt = store.begin_cell(run, cells()[0].id)
        start = time.perf_counter()
        for number in range(RECORDED):
            sample = Sample("m", "s", (1.0, 2.0, 3.0))
            store.record_check(attempt, CheckResult(f"suite/{number}", Outcome.PASS, samples=(sample,)))
        return (time.perf_counter() - start) / RECORDED


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "results.sqlite"
        runs = fill(path)
        last, before, quiet = runs[-1], runs[-2], runs[-3]
        with sqlite3.connect(path) as db:
            (rows,) = db.execute("SELECT count(*) FROM checks").fetchone()
        start = time.perf_counter()
        first = changed(path, last, before)
        cold = time.perf_counter() - start
        seconds = median_seconds(lambda: changed(path, last, before))
        silent = median_seconds(lambda: changed(path, before, quiet))
        plain = median_seconds(lambda: bare(path, last, before))
        one = recording(path)
        with sqlite3.connect(path) as db:
            db.execute("DROP INDEX checks_by_outcome")
        unindexed = median_seconds(lambda: bare(path, last, before))
    machine = f"{platform.machine()}, Python {platform.python_version()}, sqlite {sqlite3.sqlite_version}"
    print(f"{rows:,} checks in {len(runs)} runs ({machine})")
    print(f"  {len(first.checks)} checks changed, {len(first.metrics)} metrics compared")
    print(f"changed since last night   {seconds * 1000:7.1f} ms  (budget {BUDGET * 1000:.0f} ms)")
    print(f"  no metric moved          {silent * 1000:7.1f} ms")
    print(f"  the first time           {cold * 1000:7.1f} ms  (imports scipy)")
    print(f"  bare sqlite3 reading     {plain * 1000:7.1f} ms  ratio {seconds / plain:.1f}")
    print(f"  ... without the index    {unindexed * 1000:7.1f} ms")
    print(f"recording one check        {one * 1000:7.3f} ms")


if __name__ == "__main__":
    main()
