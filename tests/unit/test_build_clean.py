"""`dfbuild clean`: what was not used lately goes, what is in use or cannot be made again stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.build import bases
from dfbuild.build.clean import Item, condemned, removable
from dfbuild.build.recipe import Kitchen, Recipe
from dfbuild.build.store import ArtefactStore, build_all
from dfbuild.cli import main
from dfbuild.deadline import Deadline
from dfbuild.errors import UsageError
from dfbuild.model import StepKind
from dfbuild.source import memory_beside
from dfbuild.workspace import Workspace

DAY = 86400.0


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    # With a dot in its name, as the user's data directory has one.
    return Workspace(tmp_path / ".local" / "work")


def recipe(kind: StepKind, name: str) -> Recipe:
    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        inner = kitchen.directory / "read-only"
        inner.mkdir()
        (inner / "file").write_bytes(os.urandom(40_000))
        inner.chmod(0o555)
        kitchen.log.write_text("made")
        return {}

    return Recipe(kind, name, {"name": name}, make)


def made(workspace: Workspace, kind: StepKind, name: str, days: float) -> Path:
    """An artefact that was used `days` ago."""
    path = build_all(recipe(kind, name), ArtefactStore(workspace), Deadline.after(30), lambda _: None).path
    return aged(path, days)


def aged(path: Path, days: float) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


def clean(workspace: Workspace, *words: str) -> int:
    return main(["clean", "--work", str(workspace.root), *words])


def test_what_was_not_used_for_two_weeks_goes(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = made(workspace, StepKind.WORLD, "old", 15), made(workspace, StepKind.KERNEL, "new", 13)
    objects, source = aged(workspace.objects / "aa", 20), aged(workspace.sources / "patched-aa", 20)
    hashes = memory_beside(source)
    hashes.write_text("{}")
    log = aged(workspace.logs / "world" / "failed", 20)
    run = aged(workspace.run("20260101"), 400)
    workspace.database.touch()
    assert clean(workspace) == 0
    assert [path.exists() for path in (old, objects, source, hashes, log)] == [False] * 5
    assert not (workspace.logs / "world" / old.name).exists()
    assert new.exists() and (workspace.logs / "kernel" / new.name).exists()
    assert run.exists() and workspace.database.exists()
    said = capsys.readouterr().out
    assert "gone: 4 things" in said and "left: 1 thing " in said
    assert not (workspace.root / ".removed").exists()


def test_finding_an_artefact_is_using_it(workspace: Workspace) -> None:
    path = made(workspace, StepKind.WORLD, "thing", 30)
    assert ArtefactStore(workspace).find(recipe(StepKind.WORLD, "thing")) is not None
    assert clean(workspace) == 0
    assert path.exists()


def test_a_dry_run_removes_nothing_and_says_what_would_go(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made(workspace, StepKind.TOOLCHAIN, "gcc34", 30)
    left = aged(workspace.sources / ".export-x", 0)
    assert clean(workspace, "--dry-run", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [(item["kind"], item["name"]) for item in report["gone"]] == [("toolchain", "gcc34")]
    assert report["gone"][0]["paths"][0] == str(path)
    assert report["bytes"] >= 40_000 and report["left"] == {"count": 0, "bytes": 0}
    assert path.exists() and left.exists()
    assert clean(workspace, "--dry-run") == 0
    assert "would go: 1 thing " in capsys.readouterr().out


def test_everything_goes_when_asked_for_and_is_made_again(workspace: Workspace) -> None:
    path = made(workspace, StepKind.WORLD, "thing", 0)
    assert clean(workspace, "--unused", "0") == 0
    assert not path.exists() and not list(removable(workspace))
    assert made(workspace, StepKind.WORLD, "thing", 0) == path
    assert path.is_dir()


def test_the_least_recently_used_go_until_the_rest_is_small_enough(workspace: Workspace) -> None:
    paths = [made(workspace, StepKind.WORLD, f"thing {days}", days) for days in (3, 1, 2)]
    one = next(iter(removable(workspace))).bytes
    assert clean(workspace, "--below", str(2.5 * one / (1 << 30))) == 0
    assert [path.exists() for path in paths] == [False, True, True]


def test_what_a_base_image_stands_for_stays(workspace: Workspace) -> None:
    path = made(workspace, StepKind.IMAGE, "installed", 100)
    bases.save(workspace, bases.Base("stable", "5.8", "0" * 64, path.name, ssh=True))
    assert clean(workspace, "--unused", "0") == 0
    assert path.exists()


def test_nothing_goes_while_a_base_image_cannot_be_read(workspace: Workspace) -> None:
    path = made(workspace, StepKind.IMAGE, "installed", 100)
    (workspace.bases / "stable.json").parent.mkdir(parents=True, exist_ok=True)
    (workspace.bases / "stable.json").touch()
    assert clean(workspace, "--unused", "0") == 2
    assert path.exists()


def test_what_a_killed_process_left_goes_whatever_its_age(workspace: Workspace) -> None:
    left = [aged(workspace.sources / ".patched-x", 0), aged(workspace.root / ".removed" / "y", 0)]
    assert clean(workspace) == 0
    assert [path.exists() for path in left] == [False, False]


def test_nothing_goes_while_somebody_is_at_work(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    path = made(workspace, StepKind.WORLD, "thing", 30)
    code = (
        "import sys; from pathlib import Path; from dfbuild.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1])).in_use(): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, workspace.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"in\n"
        with workspace.in_use():  # several may
            pass
        assert clean(workspace) == UsageError.exit_status
        assert "at work" in capsys.readouterr().err and path.exists()
        assert clean(workspace, "--dry-run") == 0
        assert other.stdin is not None
        other.stdin.close()
        other.wait(10)
    assert clean(workspace) == 0
    assert not path.exists()


def test_who_begins_waits_for_a_cleaning(workspace: Workspace) -> None:
    began, waiting = threading.Event(), threading.Event()
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        waiting.set()

    def use() -> None:
        with workspace.in_use(say):
            began.set()

    thread = threading.Thread(target=use)
    with workspace.alone():
        thread.start()
        assert waiting.wait(10) and not began.is_set()
    assert began.wait(10)
    thread.join()
    assert said == [f"waiting for a cleaning of {workspace.root}"]


def test_commands_that_build_say_that_they_are_at_work(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def toolchain(arguments: object) -> int:
        seen.append(clean(workspace))
        return 0

    monkeypatch.setattr("dfbuild.cli.toolchain.run", toolchain)
    assert main(["toolchain", "gcc34", "--work", str(workspace.root)]) == 0
    assert seen == [UsageError.exit_status]


@pytest.mark.parametrize(
    "words", [["--unused", "-1"], ["--below", "-0.5"], ["--unused", "nan"], ["--below", "inf"]]
)
def test_less_than_nothing_is_refused(
    workspace: Workspace, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = made(workspace, StepKind.WORLD, "thing", 30)
    assert clean(workspace, *words) == UsageError.exit_status
    assert words[0] in capsys.readouterr().err and path.exists()


def test_a_work_directory_that_cannot_be_one_is_the_users_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main(["clean", "--work", str(file)]) == UsageError.exit_status
    assert "--work" in capsys.readouterr().err


ITEMS = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 1000)), max_size=12)


@given(ITEMS, st.none() | st.integers(0, 120), st.none() | st.integers(0, 4000))
def test_no_more_goes_than_has_to(raw: list[tuple[int, int]], unused: int | None, below: int | None) -> None:
    now = 200 * DAY
    items = [Item("world", str(i), (Path(str(i)),), size, now - days * DAY) for i, (days, size) in enumerate(raw)]
    going = condemned(items, now, unused, below)
    staying = [item for item in items if item not in going]
    left = sum(item.bytes for item in staying)
    if unused is not None:
        assert all(item.used > now - unused * DAY for item in staying)
    if below is not None:
        assert left <= below
    for item in going:
        assert all(item.used <= other.used for other in staying)
    if going and (unused is None or going[-1].used > now - unused * DAY):
        assert below is not None and left + going[-1].bytes > below
