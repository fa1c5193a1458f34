"""What `dfbuild matrix` and `dfbuild report` make of their words before anything is built or booted."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from results_samples import info

from dfbuild.build.recipe import Recipe
from dfbuild.build.store import ArtefactStore, build_all
from dfbuild.cli import choice, main, matrix, report
from dfbuild.cli.choice import Chosen, choose
from dfbuild.cli.parser import build
from dfbuild.cli.report import baseline
from dfbuild.config import load
from dfbuild.deadline import Deadline
from dfbuild.errors import UsageError
from dfbuild.matrix.expand import expand
from dfbuild.matrix.plan import Plan
from dfbuild.model import StepKind, Verdict
from dfbuild.results.records import RunStatus, StepRecord
from dfbuild.results.store import Store
from dfbuild.workspace import Workspace

CONFIG = Path(__file__).parents[2] / "configs" / "reference.toml"
ONE = "reference/gcc-12+ssp/smp @ up"
EXCLUDING = """\
release = "reference"
[axes]
toolchain = ["gcc-12"]
stack_protector = ["on"]
kernel = ["smp"]
shape = ["up", "smp2"]
[[exclude]]
when = "shape=smp2"
reason = "two are not wanted"
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work")


def parsed(workspace: Workspace, *words: str | Path) -> argparse.Namespace:
    argv = ["matrix", *map(str, words), "--work", str(workspace.root)]
    arguments = build().parse_args(argv)
    arguments.argv = argv
    return arguments


def stored(
    workspace: Workspace,
    *,
    command: tuple[str, ...],
    options: tuple[str, ...] = (),
    name: str = "r",
    config: Path = CONFIG,
    cell: str = ONE,
) -> str:
    """A run of one cell, of configs/reference.toml or another file, that was interrupted."""
    begun = replace(
        info(name=name),
        config_file=str(config),
        config_text=config.read_text(),
        command=("dfbuild", "matrix", str(config), *command),
        options=options,
        cells=tuple(one for one in expand(load(config)).cells if one.id == cell),
    )
    with Store.open(workspace.database) as store:
        run = store.begin(begun)
        store.finish(run, RunStatus.INTERRUPTED)
    return run


@pytest.fixture
def gone_on_with(monkeypatch: pytest.MonkeyPatch) -> list[tuple[argparse.Namespace, Chosen, str]]:
    """What would be run: nothing is."""
    found: list[tuple[argparse.Namespace, Chosen, str]] = []

    def go(chosen: Chosen, arguments: argparse.Namespace, store: Store, run: str, cells: Any) -> int:
        found.append((arguments, chosen, run))
        return 0

    monkeypatch.setattr(matrix, "_go", go)
    return found


@pytest.mark.parametrize(
    "words",
    [
        ("--dry-run",),
        ("--filter", "shape=up"),
        ("--check", "security/*"),
        ("--src", "x"),
        ("--base", "b"),
        (CONFIG,),
    ],
)
def test_what_has_no_say_in_a_run_that_goes_on_is_refused(workspace: Workspace, words: tuple[str, ...]) -> None:
    run = stored(workspace, command=())
    named = "FILE" if words == (CONFIG,) else str(words[0])
    with pytest.raises(UsageError, match=f"--resume does not go with {named}"):
        matrix.run(parsed(workspace, "--resume", run, *words))


def test_a_run_goes_on_from_any_directory_with_what_it_was_told_and_what_is_added(
    workspace: Workspace, gone_on_with: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFBUILD_XEN_HOST", "ssh://elsewhere")
    run = stored(
        workspace,
        command=(
            "--cell",
            ONE,
            "--check",
            "security/*",
            "--guests",
            "3",
            "--xen-host",
            "nested",
            "--via",
            "serial",
        ),
        options=("--xen-host", "nested", "--via", "serial"),
    )
    monkeypatch.chdir(tmp_path)
    assert matrix.run(parsed(workspace, "--resume", run, "--boots", "2", "--json")) == 0
    ((arguments, chosen, resumed),) = gone_on_with
    assert resumed == run
    assert [cell.id for cell in chosen.plan.cells] == [ONE]
    assert (arguments.check, arguments.via, arguments.xen_host) == ("security/*", "serial", "nested")
    assert (arguments.guests, arguments.boots, arguments.json) == (3, 2, True)


def test_a_run_goes_on_with_what_it_began_with_or_not_at_all(workspace: Workspace, gone_on_with: list[Any]) -> None:
    run = stored(workspace, command=("--cell", ONE))
    planned = choose(parsed(workspace, CONFIG, "--cell", ONE), workspace).plan
    with Store.open(workspace.database) as store:
        for recipe in planned.recipes.values():
            store.record_step(run, StepRecord(recipe.id, recipe.kind, recipe.name, recipe.key, Verdict.PASS))
    matrix.run(parsed(workspace, "--resume", run))
    with Store.open(workspace.database) as store:
        kernel = StepRecord("kernel:smp:other", StepKind.KERNEL, "smp", "other", Verdict.PASS)
        store.record_step(run, replace(kernel, verdict=Verdict.INFRA))
        matrix.run(parsed(workspace, "--resume", run))
        for verdict in (Verdict.PASS, Verdict.BUILD_FAIL):  # It has cells by that verdict, of another tree.
            store.record_step(run, replace(kernel, verdict=verdict))
            with pytest.raises(UsageError, match=f"kernel smp is not made of .* when run {run} began"):
                matrix.run(parsed(workspace, "--resume", run))
    assert len(gone_on_with) == 2


@pytest.mark.parametrize(
    "changed", [EXCLUDING.replace('"up", ', ""), f"{EXCLUDING}[shapes.up]\nmemory = 333\n"], ids=["gone", "other"]
)
def test_a_run_does_not_go_on_where_what_its_file_is_like_has_changed(
    workspace: Workspace, gone_on_with: list[Any], tmp_path: Path, changed: str
) -> None:
    parent, child = tmp_path / "parent.toml", tmp_path / "child.toml"
    parent.write_text(EXCLUDING)
    child.write_text('[like]\nmatrix = "parent.toml"\n')
    run = stored(workspace, command=(), config=child)
    matrix.run(parsed(workspace, "--resume", run))
    parent.write_text(changed)
    with pytest.raises(UsageError, match=f"'{re.escape(ONE)}' is not what it was when run {run} began"):
        matrix.run(parsed(workspace, "--resume", run))
    assert len(gone_on_with) == 1


def test_a_run_of_a_file_with_a_byte_order_mark_goes_on_and_is_reported(
    workspace: Workspace, gone_on_with: list[Any], tmp_path: Path
) -> None:
    file = tmp_path / "marked.toml"
    file.write_text(EXCLUDING, encoding="utf-8-sig")
    matrix.run(parsed(workspace, file))
    assert main(["report", "--json", "--work", str(workspace.root)]) == 130
    assert matrix.run(parsed(workspace, "--resume")) == 0
    assert len(gone_on_with) == 2


def test_a_cell_that_is_named_twice_is_run_once(workspace: Workspace) -> None:
    chosen = choose(parsed(workspace, CONFIG, "--cell", ONE, "--cell", ONE), workspace)
    assert [cell.id for cell in chosen.plan.cells] == [ONE]


def test_a_filter_chooses_among_the_cells_that_are_named(workspace: Workspace) -> None:
    other = ONE.replace("@ up", "@ smp2")
    words = ("--cell", ONE, "--cell", other, "--filter")
    chosen = choose(parsed(workspace, CONFIG, *words, "shape=smp2"), workspace)
    assert [cell.id for cell in chosen.plan.cells] == [other]
    with pytest.raises(UsageError, match="shape is never 'smp2'"):
        choose(parsed(workspace, CONFIG, "--cell", ONE, "--filter", "shape=smp2"), workspace)


def test_only_suites_with_the_check_that_is_asked_for_are_run(workspace: Workspace, tmp_path: Path) -> None:
    config = tmp_path / "mixed.toml"
    config.write_text(
        EXCLUDING.replace("[[exclude]]", 'suites = ["security", "scheduler"]\n[[include]]\nshape = ["nx-off"]\n'
        'suites = ["scheduler"]\n[[exclude]]')
    )  # fmt: skip
    chosen = choose(parsed(workspace, config, "--check", "security/nx-*"), workspace)
    assert [(cell.id, cell.suites) for cell in chosen.plan.cells] == [(ONE, ("security",))]
    with pytest.raises(UsageError, match=r"(?s)no chosen cell runs .*'hardware/\*'.*their suites are: security"):
        choose(parsed(workspace, config, "--check", "hardware/*"), workspace)
    with pytest.raises(UsageError, match=r"did you mean 'security/\*'"):
        choose(parsed(workspace, config, "--check", "security"), workspace)


def test_a_guest_that_does_not_fit_into_the_memory_that_is_given_is_refused(
    workspace: Workspace, gone_on_with: list[Any]
) -> None:
    with pytest.raises(UsageError, match=f"{re.escape(ONE)}' needs 256 MiB, and --memory is 255"):
        matrix.run(parsed(workspace, CONFIG, "--cell", ONE, "--memory", "255"))
    assert not workspace.database.exists()
    matrix.run(parsed(workspace, CONFIG, "--cell", ONE, "--memory", "256"))
    ((_, _, run),) = gone_on_with
    with pytest.raises(UsageError, match="--memory is 255"):
        matrix.run(parsed(workspace, "--resume", run, "--memory", "255"))


def test_a_guest_that_this_host_has_no_memory_for_is_refused_before_anything_is_built(
    workspace: Workspace, tmp_path: Path
) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(EXCLUDING + "[shapes.up]\nmemory = 1048576\n")
    with pytest.raises(UsageError, match="needs 1048576 MiB, and this host has") as caught:
        choose(parsed(workspace, config), workspace)
    assert "[shapes.up]" in caught.value.hint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('machine = "pc-i440fx-99.0"', "shape 'up': this host's QEMU has no machine 'pc-i440fx-99.0'"),
        ('cpu = "Broadwel"', "shape 'up': this host's QEMU has no cpu 'Broadwel'"),
        ('machine = "pc-i440fx-7.2"\ncpu = "Broadwell"', ""),
        ('cpu = "max"', ""),
    ],
)
def test_hardware_that_this_hosts_qemu_does_not_have_is_refused(
    workspace: Workspace, tmp_path: Path, line: str, message: str
) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(EXCLUDING + f"[shapes.up]\n{line}\n")
    if not message:
        assert choose(parsed(workspace, config), workspace).plan.cells
        return
    with pytest.raises(UsageError) as caught:
        choose(parsed(workspace, config), workspace)
    assert caught.value.message == message
    assert "help" in caught.value.hint


def test_worlds_that_patches_have_made_anew_are_told_of(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    def planned(*worlds: Recipe) -> Plan:
        return Plan({one.id: one for one in worlds}, {}, (), ())

    def world(name: str, tree: str) -> Recipe:
        return Recipe(StepKind.WORLD, name, {"tree": tree}, lambda kitchen: {})

    store = ArtefactStore(workspace)
    kernel = Recipe(StepKind.KERNEL, "kernel", {"tree": "patched"}, lambda kitchen: {})
    patched, same = world("gcc80", "patched"), world("tests", "any")
    choice._tell_of_worlds(
        planned(patched, same, kernel), lambda: planned(world("gcc80", "plain"), same, kernel), store
    )
    said = capsys.readouterr().err
    assert "made anew, since the patches change what it is made of: world gcc80\n" in said
    assert "--keep-world" in said
    build_all(patched, store, Deadline.after(10), lambda line: None)
    choice._tell_of_worlds(planned(patched), lambda: planned(world("gcc80", "plain")), store)
    assert capsys.readouterr().err == ""


def test_the_release_that_a_command_line_says_is_told_of_as_what_it_says(
    workspace: Workspace, tmp_path: Path
) -> None:
    param = tmp_path / "tree/sys/sys/param.h"
    param.parent.mkdir(parents=True)
    param.write_text("#define __DragonFly_version 120006\n")
    words = (CONFIG.with_name("dragonfly-master.toml"), "--src", param.parents[2], "--release")
    with pytest.raises(UsageError, match=r"^--release says 5\.8, but .*dragonfly-master\.toml is for master"):
        choose(parsed(workspace, *words, "5.8"), workspace)
    with pytest.raises(UsageError, match=r"tree is a tree of release 1\.2, but .* is for master"):
        choose(parsed(workspace, *words[:-1]), workspace)


def test_a_run_that_somebody_runs_is_not_run_twice(workspace: Workspace, gone_on_with: list[Any]) -> None:
    older = stored(workspace, command=("--cell", ONE), name="a")
    newer = stored(workspace, command=("--cell", ONE), name="b")
    with workspace.running(newer):
        with pytest.raises(UsageError, match="is being run by another dfbuild"):
            matrix.run(parsed(workspace, "--resume", newer))
        matrix.run(parsed(workspace, "--resume"))
        assert [run for _, _, run in gone_on_with] == [older]
        with (
            workspace.running(older),
            pytest.raises(UsageError, match=f"no run was interrupted; {newer}, {older} "),
        ):
            matrix.run(parsed(workspace, "--resume"))
    matrix.run(parsed(workspace, "--resume"))
    assert [run for _, _, run in gone_on_with] == [older, newer]


def test_after_a_run_that_is_finished_none_before_it_goes_on_unasked(
    workspace: Workspace, gone_on_with: list[Any]
) -> None:
    left = stored(workspace, command=("--cell", ONE), name="a")
    with Store.open(workspace.database) as store:
        last = store.begin(info(day=1))
        store.finish(last)
    with pytest.raises(UsageError, match=f"the last run {last} is finished") as caught:
        matrix.run(parsed(workspace, "--resume"))
    assert f"dfbuild matrix --resume {left}" in caught.value.hint and not gone_on_with
    with Store.open(workspace.database) as store:
        store.finish(left)
    with pytest.raises(UsageError, match="no run was interrupted"):
        matrix.run(parsed(workspace, "--resume"))


def test_a_finished_run_with_nothing_left_to_do_stays_as_it_is(
    workspace: Workspace, gone_on_with: list[Any]
) -> None:
    run = stored(workspace, command=("--cell", ONE))
    with Store.open(workspace.database) as store:
        store.end_cell(store.begin_cell(run, ONE), Verdict.INFRA)
        store.finish(run)
        matrix.run(parsed(workspace, "--resume", run))
        assert len(gone_on_with) == 1, "what only the infrastructure kept from an end is run again"
        store.end_cell(store.begin_cell(run, ONE), Verdict.PASS)
        store.finish(run)
        record = store.run(run)
        with pytest.raises(UsageError, match=f"run {run} is finished: nothing is left to do"):
            matrix.run(parsed(workspace, "--resume", run))
        assert store.run(run) == record
    assert len(gone_on_with) == 1


def test_a_killed_run_is_listed_as_interrupted(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    killed, running = stored(workspace, command=(), name="a"), stored(workspace, command=(), name="b")
    with Store.open(workspace.database) as store:
        store.reopen(killed)
        store.reopen(running)
    with workspace.running(running):
        report.runs(build().parse_args(["runs", "--json", "--work", str(workspace.root)]))
    listed = {run["id"]: run["status"] for run in json.loads(capsys.readouterr().out)}
    assert listed == {killed: "interrupted", running: "running"}


def test_a_run_to_compare_with_that_is_not_there_is_told_before_anything_runs(
    workspace: Workspace, gone_on_with: list[Any]
) -> None:
    with pytest.raises(UsageError, match="no run"):
        matrix.run(parsed(workspace, CONFIG, "--cell", ONE, "--against", "nosuch"))
    assert not gone_on_with
    with Store.open(workspace.database) as store:
        assert store.runs() == ()


def test_a_dry_run_refuses_what_the_run_would(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "compared.toml"
    file.write_text(f'baseline = "nosuch"\n{EXCLUDING}')
    with Store.open(workspace.database) as store:
        store.begin(info())
    for words in ((CONFIG, "--against", "nosuch"), (file,)):
        with pytest.raises(UsageError, match="there is no run 'nosuch'"):
            matrix.run(parsed(workspace, *words, "--dry-run"))
    assert not capsys.readouterr().out
    assert matrix.run(parsed(workspace, file, "--against", "last", "--dry-run")) == 0


def test_a_run_is_reported_from_a_directory_that_nobody_may_write_to(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(workspace.database) as store:
        run = store.begin(info())  # and was killed
    before = sorted(workspace.root.rglob("*"))

    def refused(path: Path, data: bytes | str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr("dfbuild.report.write.atomic_write", refused)
    monkeypatch.setattr(os, "access", lambda *_: False)
    words = ("--work", str(workspace.root))
    assert main(["report", *words]) == 130
    out, err = capsys.readouterr()
    assert "16 unfinished" in out and "report: " not in out
    assert err == f"the reports in {workspace.run(run)} were not written: Read-only file system\n"
    assert main(["runs", *words]) == 0
    assert "interrupted" in capsys.readouterr().out
    assert sorted(workspace.root.rglob("*")) == before


def test_a_directory_without_a_run_says_so(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    workspace.root.mkdir()
    words = ("--work", str(workspace.root))
    assert (main(["runs", *words]), main(["report", *words])) == (0, 2)
    assert "there is no run yet" in capsys.readouterr().err
    assert not [*workspace.root.iterdir()]


def test_the_last_run_before_this_one_is_what_it_is_compared_with(workspace: Workspace) -> None:
    with Store.open(workspace.database) as store:
        first, other, second = (store.begin(info(name=name, day=day)) for day, name in enumerate(("a", "b", "a")))
        for run in (first, other):
            store.finish(run)
        assert baseline(store, "last", "a", before=second) == first
        assert baseline(store, "last", "a", before=first) is None
        assert baseline(store, other, "a", before=second) == other
        assert baseline(store, None, "a", before=second) is None


def test_a_line_that_repeats_names_a_work_directory_that_is_not_the_usual_one(
    workspace: Workspace, gone_on_with: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: tmp_path / name)
    monkeypatch.delenv("DFBUILD_WORK", raising=False)
    monkeypatch.setattr(matrix, "_versions", dict)
    monkeypatch.chdir(tmp_path)
    named, usual = ("--work", str(workspace.root)), Workspace(tmp_path / "dfbuild")

    def options(store: Workspace, *words: str) -> tuple[str, ...]:
        argv = ["matrix", str(CONFIG), "--cell", ONE, *words]
        arguments = build().parse_args(argv)
        arguments.argv = argv
        matrix.run(arguments)
        with Store.open(store.database) as results:
            return results.options(gone_on_with[-1][2])

    assert options(usual) == options(usual, "--work", str(usual.root)) == ()
    assert options(workspace, "--work", workspace.root.name) == named
    monkeypatch.setenv("DFBUILD_WORK", str(workspace.root))
    assert options(workspace) == named


def test_a_report_compares_as_its_run_was_asked_to(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.open(workspace.database) as store:
        first = store.begin(info())
        words = replace(info(day=1), command=("dfbuild", "matrix", "reference.toml", "--against", "last"))
        by_words = store.begin(words)
        by_file = store.begin(replace(info(day=2), config_text=f'baseline = "{first}"\n'))
        for run in (first, by_words, by_file):
            store.finish(run)

    def compared(run: str, *words: str) -> str | None:
        main(["report", run, "--work", str(workspace.root), "--json", *words])
        comparison = json.loads(capsys.readouterr().out)["comparison"]
        return comparison["against"] if comparison else None

    assert [compared(run) for run in (first, by_words, by_file)] == [None, first, first]
    assert compared(by_file, "--against", "last") == by_words


def test_another_comparison_leaves_the_files_of_the_run_alone(workspace: Workspace, tmp_path: Path) -> None:
    with Store.open(workspace.database) as store:
        other, run = store.begin(info()), store.begin(info(day=1))
        for one in (other, run):
            store.finish(one)
    words, page = ("--work", str(workspace.root)), tmp_path / "page.html"
    main(["report", run, *words])
    files = {path.name: path.read_text() for path in workspace.run(run).iterdir()}
    assert len(files) == 4
    main(["report", run, "--against", other, "--html", str(page), *words])
    assert {path.name: path.read_text() for path in workspace.run(run).iterdir()} == files
    assert other in page.read_text() and other not in files["report.html"]


def test_a_comparison_with_a_run_of_another_kind_says_so(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = stored(workspace, command=())
    again = stored(workspace, command=(), options=("--work", "work"))
    words = ("--patch", "/home/me/a fix.diff", "--work", str(workspace.root))
    patched = stored(workspace, command=(), options=words)
    told = f"{plain} was of another kind: no options; this one: --patch '/home/me/a fix.diff'\n"
    for run, expected in ((patched, True), (again, False)):
        report.run(build().parse_args(["report", run, "--against", plain, "--work", str(workspace.root)]))
        assert (told in capsys.readouterr().out) is expected


def test_a_cell_that_the_file_leaves_out_is_told_with_the_reason(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "excluding.toml"
    file.write_text(EXCLUDING)
    out = "reference/gcc-12+ssp/smp @ smp2"
    with pytest.raises(UsageError, match=r"leaves out .*two are not wanted"):
        matrix.run(parsed(workspace, file, "--cell", out))
    with pytest.raises(UsageError, match=f"1 left out by .*\n  {out.replace('+', '.')}: two are not wanted"):
        matrix.run(parsed(workspace, file, "--filter", "shape=smp2"))
    assert matrix.run(parsed(workspace, file, "--dry-run")) == 0
    assert "1: two are not wanted" in capsys.readouterr().out
    file.write_text(EXCLUDING.replace("two are", "\\u001b]0;two\\u0007 are"))
    matrix.run(parsed(workspace, file, "--dry-run"))
    assert "\\x1b]0;two\\x07 are not wanted" in capsys.readouterr().out


def test_a_cell_that_the_release_refuses_is_told_with_the_reason(workspace: Workspace) -> None:
    refused = CONFIG.with_name("refused.toml")
    with pytest.raises(UsageError, match=r"no cell to run: 1 refused.*\n  reference/gcc34.*: ."):
        matrix.run(parsed(workspace, refused, "--cell", "reference/gcc34+ssp/smp @ up"))


@pytest.mark.parametrize("word", [("--src", "/x"), ("--rev", "x"), ("--release", "1.2"), ("--patch", "x")])
def test_a_tree_for_what_is_made_of_none_is_refused(workspace: Workspace, word: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match=f"{word[0]}: .* is not made of a source tree"):
        matrix.run(parsed(workspace, CONFIG, *word, "--dry-run"))


@pytest.mark.parametrize("kind", ["new", "file", "link", "fifo", "stdout"])
def test_reports_go_where_they_are_told_to(workspace: Workspace, tmp_path: Path, kind: str) -> None:
    with Store.open(workspace.database) as store:
        store.finish(store.begin(info()))
    target, there = tmp_path / "junit.xml", tmp_path / "there"
    read: list[bytes] = []
    match kind:
        case "file":
            target.write_text("old")
        case "link":
            there.write_text("old")
            target.symlink_to(there)
        case "fifo":
            os.mkfifo(target)
            reader = threading.Thread(target=lambda: read.append(target.read_bytes()), daemon=True)
            reader.start()
    code = [sys.executable, "-m", "dfbuild", "report", "--work", workspace.root, "--json", "--junit"]
    done = subprocess.run([*code, "/dev/stdout" if kind == "stdout" else target], capture_output=True, check=False)
    assert done.returncode == 3, done.stderr
    match kind:
        case "fifo":
            reader.join(20)
            assert b"<testsuites" in read[0] and target.is_fifo()
        case "link":
            assert target.is_symlink() and "<testsuites" in there.read_text()
        case "stdout":
            assert b"<testsuites" in done.stdout and Path("/dev/stdout").is_symlink()
        case _:
            assert "<testsuites" in target.read_text()
    done = subprocess.run([*code, tmp_path / "none" / "x.xml"], capture_output=True, check=False)
    assert done.returncode == 2 and b"there is no directory" in done.stderr
    done = subprocess.run([*code, tmp_path], capture_output=True, check=False)
    assert done.returncode == 2 and f"{tmp_path} is a directory\n  hint: ".encode() in done.stderr
