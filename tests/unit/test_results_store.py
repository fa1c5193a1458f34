"""The store: nothing recorded is lost, nothing is counted twice, whoever writes and whoever reads."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from results_samples import START, cells, fill, info

from dfbuild.errors import UsageError
from dfbuild.model import (
    CheckResult,
    CrashReport,
    Expectation,
    Outcome,
    Sample,
    StageReached,
    StepKind,
    Verdict,
)
from dfbuild.report.summary import wall_seconds
from dfbuild.results import schema
from dfbuild.results.records import RunStatus, StepRecord
from dfbuild.results.schema import StoreError
from dfbuild.results.store import Store
from dfbuild.workspace import Workspace

TWO = cells()[:2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work" / "results.sqlite"


def check(name: str = "security/nx", outcome: Outcome = Outcome.PASS, **more: object) -> CheckResult:
    return CheckResult(name, outcome, **more)  # type: ignore[arg-type]


def test_everything_recorded_comes_back(path: Path) -> None:
    step = StepRecord(
        "world:w:k", StepKind.WORLD, "w", "k", Verdict.PASS, True, 1.5, {"elf": {"guards": 3}}, "t", "tail", "log"
    )
    result = CheckResult(
        "network/rst",
        Outcome.KNOWN,
        Expectation.KNOWN,
        "why",
        "seen\0\x1b[31m\u202e",
        0.25,
        (Sample("rtt", "µs", (1.0, 2.5)),),
        (10, 99),
        {"window": "512"},
    )
    crash = CrashReport("panic: x", "panic", Verdict.PANIC, 70, "panic: x\ntrace")
    with Store.open(path) as store:
        given_info = info(TWO)
        run = store.begin(given_info)
        store.record_step(run, step)
        attempt = store.begin_cell(run, TWO[0].id, [step.id])
        store.record_stage(attempt, StageReached("kernel", 0.5, 3))
        store.record_stage(attempt, StageReached("login", 2.0, 90))
        store.record_check(attempt, result)
        store.end_cell(
            attempt, Verdict.PANIC, seconds=9.5, accel="tcg", command=["qemu", "-append", "a b"], crash=crash
        )
        store.finish(run)
    with Store.open(path) as store:
        record = store.run(run)
    assert (record.id, record.name, record.status) == (run, "reference", RunStatus.FINISHED)
    assert record.started == START and record.finished is not None
    assert (record.config_file, record.config_text) == (given_info.config_file, given_info.config_text)
    assert (record.command, record.options, record.versions) == (
        given_info.command,
        given_info.options,
        given_info.versions,
    )
    assert record.steps == (step,)
    assert [(refusal.id, refusal.reason) for refusal in record.refusals] == [
        (refusal.cell.id, refusal.reason) for refusal in given_info.refusals
    ]
    first, second = record.cells
    assert (first.verdict, first.title, first.seconds, first.accel) == (Verdict.PANIC, "panic: x", 9.5, "tcg")
    assert (first.attempt, first.command, first.steps) == (1, ("qemu", "-append", "a b"), (step.id,))
    assert first.attributes == TWO[0].attributes() and first.suites == TWO[0].suites
    assert [stage.stage for stage in first.stages] == ["kernel", "login"] and first.boot_seconds == 2.0
    assert first.checks == (result,)
    assert first.crash is not None and (first.crash.offset, first.crash.excerpt) == (70, crash.excerpt)
    assert (second.id, second.verdict, second.attempt) == (TWO[1].id, None, 0)


def test_ids_are_readable_sort_by_time_and_never_meet(path: Path) -> None:
    with Store.open(path) as store:
        first, again = store.begin(info()), store.begin(info())
        later = store.begin(info(name="Nightly / DragonFly 1.2", day=1))
    assert first == "20261124-031500-reference" and again == "20261124-031500-reference-2"
    assert later == "20261125-031500-nightly-dragonfly-1-2"
    assert sorted([later, again, first]) == [first, again, later]


def test_recording_a_check_again_replaces_it(path: Path) -> None:
    with Store.open(path) as store:
        run = store.begin(info(TWO))
        attempt = store.begin_cell(run, TWO[0].id)
        store.record_check(attempt, check(outcome=Outcome.FAIL, samples=(Sample("m", "s", (1.0,)),)))
        for _ in range(2):
            store.record_check(attempt, check(samples=(Sample("m", "s", (2.0,)),)))
        (only,) = store.run(run).cells[0].checks
    assert only.outcome is Outcome.PASS and only.samples == (Sample("m", "s", (2.0,)),)


def test_a_retried_cell_counts_by_its_last_attempt(path: Path) -> None:
    with Store.open(path) as store:
        run = store.begin(info(TWO))
        first = store.begin_cell(run, TWO[0].id)
        store.record_check(first, check("a/one"))
        store.record_stage(first, StageReached("kernel", 1.0, 0))
        store.end_cell(first, Verdict.INFRA, title="no room")
        second = store.begin_cell(run, TWO[0].id)
        assert (first.number, second.number) == (1, 2)
        assert store.run(run).cells[0].verdict is None
        store.record_check(second, check("a/two"))
        store.end_cell(second, Verdict.PASS)
        cell = store.run(run).cells[0]
    assert (cell.verdict, cell.title, cell.attempt, cell.stages) == (Verdict.PASS, "", 2, ())
    assert [one.check for one in cell.checks] == ["a/two"]


def test_resume_aborts_what_was_begun_and_returns_what_is_left(path: Path) -> None:
    some = cells()[:4]
    with Store.open(path) as store:
        run = store.begin(info(some))
        for cell, verdict in zip(some[:2], (Verdict.PASS, Verdict.INFRA), strict=True):
            store.end_cell(store.begin_cell(run, cell.id), verdict)
        cut = store.begin_cell(run, some[2].id)
        store.record_check(cut, check("a/one", Outcome.FAIL))
    with Store.open(path) as store:
        assert [cell.id for cell in store.run(run).cells if cell.verdict is None] == [some[2].id, some[3].id]
        left = store.reopen(run)
        assert left == {some[1].id, some[2].id, some[3].id}
        again = store.begin_cell(run, some[2].id)
        assert again.number == 2
        for name in ("a/one", "a/two"):
            store.record_check(again, check(name))
        store.end_cell(again, Verdict.PASS)
        redone = store.run(run).cells[2]
    assert [(one.check, one.outcome) for one in redone.checks] == [
        ("a/one", Outcome.PASS),
        ("a/two", Outcome.PASS),
    ]
    with sqlite3.connect(path) as db:
        marks = db.execute("SELECT number, aborted, verdict FROM attempts WHERE cell = ?", (some[2].id,)).fetchall()
        kept = db.execute("SELECT count(*) FROM checks").fetchone()[0]
    assert marks == [(1, 1, None), (2, 0, "PASS")] and kept == 3


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_takes_no_time_while_nobody_runs_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    minutes = 0

    def past() -> datetime:
        return START + timedelta(minutes=minutes)

    monkeypatch.setattr("dfbuild.results.store._now", past)
    with Store.open(path) as store:
        run = store.begin(info(TWO))
        minutes = 3
        store.end_cell(store.begin_cell(run, TWO[0].id), Verdict.PASS)
        if not killed:
            minutes = 4
            store.finish(run, RunStatus.INTERRUPTED)
        minutes = 300
        store.reopen(run)
        minutes = 302
        store.finish(run)
        record = store.run(run)
    assert record.finished == START + timedelta(minutes=302)
    assert wall_seconds(record) == (5 if killed else 6) * 60


def test_kill_9_in_the_middle_loses_nothing_that_was_recorded(path: Path) -> None:
    child = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from results_samples import cells, info
        from dfbuild.model import CheckResult, Outcome, Sample, StageReached, Verdict
        from dfbuild.results.store import Store

        store = Store.open(Path(sys.argv[1]))
        run = store.begin(info(cells()[:2]))
        store.end_cell(store.begin_cell(run, cells()[0].id), Verdict.PASS)
        attempt = store.begin_cell(run, cells()[1].id)
        store.record_stage(attempt, StageReached("kernel", 1.0, 0))
        number = 0
        while True:
            sample = Sample("m", "s", (1.0, 2.0))
            store.record_check(attempt, CheckResult(f"a/{number}", Outcome.PASS, samples=(sample,)))
            print(number, flush=True)
            number += 1
        """
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", child, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 150:
                os.kill(process.pid, signal.SIGKILL)
                break
        said = [int(word) for word in process.stdout.read().split("\n")[:-1]]
        assert process.wait() == -signal.SIGKILL
    last = max([150, *said])
    with Store.open(path) as store:
        (run,) = [summary.id for summary in store.runs()]
        record = store.run(run)
        assert store.reopen(run) == {cells()[1].id}
    assert record.status is RunStatus.RUNNING and record.cells[0].verdict is Verdict.PASS
    names = [one.check for one in record.cells[1].checks]
    # What it said is there; at most the one that it was about to speak of is there as well.
    assert names[: last + 1] == [f"a/{number}" for number in range(last + 1)] and len(names) <= last + 2
    assert all(one.samples == (Sample("m", "s", (1.0, 2.0)),) for one in record.cells[1].checks)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_many_threads_write_through_one_store(path: Path) -> None:
    every = cells()
    with Store.open(path) as store:
        run = store.begin(info(every))

        def work(number: int) -> None:
            attempt = store.begin_cell(run, every[number].id)
            for one in range(20):
                store.record_check(attempt, check(f"a/{one}", samples=(Sample("m", "s", (float(number),)),)))
                if one == 10:
                    store.run(run)
            store.end_cell(attempt, Verdict.PASS)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(every))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        record = store.run(run)
    assert all(cell.verdict is Verdict.PASS and len(cell.checks) == 20 for cell in record.cells)
    assert all(
        one.samples[0].values == (float(number),) for number, cell in enumerate(record.cells) for one in cell.checks
    )


def test_two_processes_write_the_same_database(path: Path) -> None:
    child = (
        "import sys; from pathlib import Path; from results_samples import cells, info;"
        "from dfbuild.model import CheckResult, Outcome; from dfbuild.results.store import Store;"
        "store = Store.open(Path(sys.argv[1])); run = store.begin(info(cells()[:1], name=sys.argv[2]));"
        "attempt = store.begin_cell(run, cells()[0].id);"
        "[store.record_check(attempt, CheckResult(f'a/{n}', Outcome.PASS)) for n in range(100)]"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    processes = [
        subprocess.Popen([sys.executable, "-c", child, str(path), name], env=environment) for name in ("one", "two")
    ]
    assert [process.wait() for process in processes] == [0, 0]
    with Store.open(path) as store:
        assert sorted(summary.name for summary in store.runs()) == ["one", "two"]
        assert all(len(store.run(summary.id).cells[0].checks) == 100 for summary in store.runs())


def test_a_reader_sees_one_moment_and_does_not_block_the_writer(path: Path) -> None:
    with Store.open(path) as store:
        run = store.begin(info(TWO))
        attempt = store.begin_cell(run, TWO[0].id)
        reader = sqlite3.connect(path)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM checks").fetchone() == (0,)
        store.record_check(attempt, check())
        assert reader.execute("SELECT count(*) FROM checks").fetchone() == (0,)
        reader.close()
        assert len(store.run(run).cells[0].checks) == 1


def test_snapshot_is_what_the_record_says(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    run = fill(workspace, worse=True)
    with Store.open(workspace.database) as store:
        assert store.snapshot(run) == store.run(run).snapshot


ANY = st.text(st.characters(exclude_categories=()), max_size=40)


@given(
    name=ANY,
    detail=ANY,
    fact=ANY,
    values=st.lists(st.floats(), max_size=4),
    seconds=st.floats(),
    offset=st.integers(0, 2**62),
)
@settings(max_examples=60, deadline=None)
def test_hostile_values_are_kept_and_readable(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    detail: str,
    fact: str,
    values: list[float],
    seconds: float,
    offset: int,
) -> None:
    with Store.open(tmp_path_factory.mktemp("hostile") / "db") as store:
        run = store.begin(info(TWO))
        attempt = store.begin_cell(run, TWO[0].id)
        store.record_check(
            attempt,
            check(
                name,
                detail=detail,
                duration=seconds,
                console=(offset, offset),
                facts={fact: fact},
                samples=(Sample(name, fact, tuple(values)),),
            ),
        )
        (back,) = store.run(run).cells[0].checks
    spelt = detail.encode("utf-8", "backslashreplace").decode()
    assert back.detail == spelt and back.console == (offset, offset)
    assert list(back.samples[0].values) == [value for value in values if abs(value) < 1e300]
    assert abs(back.duration) < 1e300


def test_latest_and_resolve(path: Path) -> None:
    with Store.open(path) as store:
        with pytest.raises(UsageError, match="no run yet"):
            store.resolve("last")
        first, second = store.begin(info()), store.begin(info(day=1))
        other = store.begin(info(name="nightly", day=2))
        store.finish(first)
        assert store.latest() == other and store.latest("reference") == second
        assert store.latest("reference", before=second) == first
        assert store.latest("reference", before=first) is None
        assert store.latest(status=RunStatus.FINISHED) == first
        assert store.resolve("last") == other and store.resolve(first) == first
        assert store.resolve("20261125") == second
        for wrong in ("2026112", "nothing", ""):
            with pytest.raises(UsageError):
                store.resolve(wrong)
        with pytest.raises(UsageError, match="no run 'x'"):
            store.run("x")


def test_runs_are_summed_up_newest_first(path: Path) -> None:
    with Store.open(path) as store:
        first = store.begin(info(cells()[:3]))
        for cell, verdict in zip(cells()[:2], (Verdict.PASS, Verdict.HANG), strict=True):
            store.end_cell(store.begin_cell(first, cell.id), verdict)
        store.finish(first, RunStatus.INTERRUPTED, finished=START + timedelta(minutes=1))
        second = store.begin(info(day=1))
        newest, oldest = store.runs()
    assert (newest.id, newest.unfinished) == (second, len(cells()))
    assert (oldest.verdicts, oldest.unfinished) == ({Verdict.PASS: 1, Verdict.HANG: 1}, 1)
    assert oldest.status is RunStatus.INTERRUPTED and oldest.finished == START + timedelta(minutes=1)


def test_who_only_looks_needs_to_write_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.look(path) as store:
        assert store.runs() == ()
    assert not path.parent.exists()
    with Store.open(path) as writer:
        run = writer.begin(info(TWO))
        monkeypatch.setattr(os, "access", lambda *_: False)
        files = {file.name: file.read_bytes() for file in path.parent.iterdir()}
        assert f"{path.name}-wal" in files, "what was written last is in there"
        with Store.look(path) as store:
            assert store.run(run) == writer.run(run)
        assert {file.name for file in path.parent.iterdir()} == set(files)


def test_wrong_use_is_a_typed_error_and_leaves_the_store_usable(path: Path) -> None:
    with Store.open(path) as store:
        run = store.begin(info(TWO))
        with pytest.raises(StoreError, match="no cell 'nowhere'"):
            store.begin_cell(run, "nowhere")
        with pytest.raises(StoreError):
            store.record_step("no such run", StepRecord("s", StepKind.KERNEL, "n", "k", Verdict.PASS))
        store.end_cell(store.begin_cell(run, TWO[0].id), Verdict.PASS)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    path.write_text("this is not a database, and long enough to be looked at" * 20)
    with pytest.raises(StoreError, match=r"results\.sqlite"):
        Store.open(path)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE runs SET status = 'paused'",
        "UPDATE steps SET kind = 'spell'",
        "UPDATE attempts SET verdict = 'TIMEOUT'",
        "UPDATE attempts SET crash = '{\"new\": 1}'",
        "UPDATE steps SET facts = '{\"cut'",
    ],
)
def test_words_of_another_version_are_told(statement: str, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    run = fill(workspace, worse=True)
    with sqlite3.connect(workspace.database) as db:
        assert db.execute(statement).rowcount
    with Store.open(workspace.database) as store, pytest.raises(StoreError, match="does not know") as caught:
        store.run(run)
    assert "--work" in caught.value.hint


def test_a_newer_database_is_refused_untouched(path: Path) -> None:
    Store.open(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    with pytest.raises(StoreError, match="newer"):
        Store.open(path)


def test_an_older_database_is_migrated_and_keeps_its_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(path) as store:
        run = store.begin(info(TWO))
    step = "CREATE TABLE extra (a TEXT DEFAULT 'x;y'); INSERT INTO extra SELECT id FROM runs;"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
    with Store.open(path) as store:
        assert store.run(run).id == run
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT a FROM extra").fetchall() == [(run,)]
        assert db.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(path).close()
    before = len(schema.MIGRATIONS)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE extra (a); SELECT nonsense;"))
    with pytest.raises(StoreError, match="nonsense"):
        Store.open(path)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (before,)
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'extra'").fetchone() == (0,)


def test_the_comparison_reads_checks_from_an_index_alone(path: Path) -> None:
    Store.open(path).close()
    with sqlite3.connect(path) as db:
        plan = db.execute("EXPLAIN QUERY PLAN SELECT name, outcome FROM checks WHERE attempt = 1").fetchall()
    assert "COVERING INDEX checks_by_outcome" in plan[0][3]
