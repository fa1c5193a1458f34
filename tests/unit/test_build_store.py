"""Artefacts are made once, whole or not at all, whatever interrupts whom."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.build import step
from dfbuild.build.recipe import Kitchen, Recipe
from dfbuild.build.store import MANIFEST, ArtefactStore, build_all, tail
from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import BuildFailed, Cancelled, DeadlineExceeded, InfraError
from dfbuild.model import StepKind
from dfbuild.sandbox import Sandbox
from dfbuild.workspace import Workspace


def recipe(
    make: Callable[[Kitchen], Mapping[str, Any]], *needs: Recipe, name: str = "thing", **extra: Any
) -> Recipe:
    return Recipe(StepKind.WORLD, name, {"name": name}, make, needs=needs, **extra)


def writes(text: str) -> Callable[[Kitchen], Mapping[str, Any]]:
    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        (kitchen.directory / "file").write_text(text)
        return {"text": text, "pair": (1, 2)}

    return make


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(Workspace(tmp_path / "work"))


def soon() -> Deadline:
    return Deadline.after(30, what="the test")


def leftovers(store: ArtefactStore) -> list[Path]:
    return list((store.workspace.artefacts / ".building").iterdir())


def test_makes_once_and_finds_again(store: ArtefactStore) -> None:
    calls: list[Kitchen] = []

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        calls.append(kitchen)
        assert list(kitchen.directory.iterdir()) == []
        return writes("hello")(kitchen)

    wanted = recipe(make)
    assert store.find(wanted) is None
    made = store.make(wanted, [], soon(), print)
    assert (made.path / "file").read_text() == "hello"
    assert made.path == store.path(wanted)
    assert store.make(wanted, [], soon(), print) == made == ArtefactStore(store.workspace).find(wanted)
    assert len(calls) == 1
    manifest = json.loads((made.path / MANIFEST).read_text())
    assert {"kind", "name", "key", "inputs", "facts", "seconds", "created"} <= set(manifest)
    assert leftovers(store) == []


def test_needs_come_first_and_arrive_in_order(store: ArtefactStore) -> None:
    one, two = recipe(writes("1"), name="one"), recipe(writes("2"), name="two")

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        text = "".join((need.path / "file").read_text() for need in kitchen.needs)
        return writes(text)(kitchen)

    top = recipe(make, two, one, recipe(writes("3"), one, name="three"), name="top")
    said: list[str] = []
    assert build_all(top, store, soon(), said.append).facts["text"] == "213"
    assert len(said) == 4
    said.clear()
    build_all(top, store, soon(), said.append)
    assert said == []


def test_a_failed_build_leaves_its_log_and_nothing_else(store: ArtefactStore, tmp_path: Path) -> None:
    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        (kitchen.directory / "half").write_text("made")
        sandbox = Sandbox(writable=(kitchen.directory,))
        step.run(kitchen, sandbox, ["sh", "-c", "echo first; echo last words >&2; exit 3"], "part")
        raise AssertionError("not reached")

    wanted = recipe(make)
    with pytest.raises(BuildFailed) as caught:
        store.make(wanted, [], soon(), print)
    assert caught.value.component == "part"
    assert caught.value.tail.splitlines()[-1] == "last words"
    assert caught.value.log is not None and "first" in caught.value.log.read_text()
    assert "status 3" in str(caught.value)
    assert store.find(wanted) is None
    assert leftovers(store) == []


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), ValueError("a bug")])
def test_nothing_half_made_stays_whatever_is_raised(store: ArtefactStore, error: BaseException) -> None:
    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        (kitchen.directory / "half").write_text("made")
        raise error

    wanted = recipe(make)
    with pytest.raises(InfraError if isinstance(error, OSError) else type(error)):
        store.make(wanted, [], soon(), print)
    assert store.find(wanted) is None and leftovers(store) == []
    assert recipe(writes("now")).key == wanted.key
    assert store.make(recipe(writes("now")), [], soon(), print).facts["text"] == "now"


def test_a_full_disk_is_no_defect(store: ArtefactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes | str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("dfbuild.build.store.atomic_write", full)
    with pytest.raises(InfraError, match=r"thing: .*No space left on device"):
        store.make(recipe(writes("x")), [], soon(), print)
    assert leftovers(store) == []


def never(kitchen: Kitchen) -> Mapping[str, Any]:
    reader, writer = os.pipe()
    try:
        kitchen.deadline.select(reader)
    finally:
        os.close(reader)
        os.close(writer)
    return {}


def test_a_recipe_that_takes_longer_than_its_minutes_has_failed(store: ArtefactStore) -> None:
    with pytest.raises(BuildFailed, match="longer than"):
        store.make(recipe(never, minutes=0.001), [], soon(), print)


def test_the_callers_deadline_and_cancellation_are_not_the_builds_fault(store: ArtefactStore) -> None:
    with pytest.raises(DeadlineExceeded):
        store.make(recipe(never), [], Deadline.after(0.05), print)
    cancel = Cancel()
    threading.Timer(0.05, cancel.set).start()
    with pytest.raises(Cancelled):
        store.make(recipe(never), [], Deadline.after(30, cancel=cancel), print)
    assert leftovers(store) == []


def test_two_builders_of_one_key_make_it_once(store: ArtefactStore) -> None:
    started, finish = threading.Event(), threading.Event()
    made: list[str] = []

    def slow(kitchen: Kitchen) -> Mapping[str, Any]:
        made.append("slow")
        started.set()
        assert finish.wait(20)
        return writes("slow")(kitchen)

    def other(kitchen: Kitchen) -> Mapping[str, Any]:
        made.append("other")
        return {}

    results: list[Any] = []
    first = threading.Thread(target=lambda: results.append(store.make(recipe(slow), [], soon(), print)))
    first.start()
    assert started.wait(20)
    second_store = ArtefactStore(store.workspace)  # must not take the running build for a stale one
    assert len(leftovers(store)) == 1
    second = threading.Thread(
        target=lambda: results.append(second_store.make(recipe(other), [], soon(), lambda _: finish.set()))
    )
    second.start()  # says that it waits, which lets the first one finish
    first.join(20)
    second.join(20)
    assert made == ["slow"]
    assert results[0] == results[1]


def test_waiting_for_another_process_ends_with_the_deadline(store: ArtefactStore) -> None:
    wanted = recipe(writes("x"))
    lock = store.workspace.artefacts / ".locks" / wanted.key
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DeadlineExceeded):
            store.make(wanted, [], Deadline.after(0.1), print)
    assert store.make(wanted, [], soon(), print).facts["text"] == "x"


KILLED = """
import sys, time
from pathlib import Path
from dfbuild.build.recipe import Recipe
from dfbuild.build.store import ArtefactStore
from dfbuild.deadline import Deadline
from dfbuild.model import StepKind
from dfbuild.workspace import Workspace

def make(kitchen):
    (kitchen.directory / "half").mkdir(mode=0o500)
    print("half made", flush=True)
    sys.stdin.read()

store = ArtefactStore(Workspace(Path(sys.argv[1])))
store.make(Recipe(StepKind.WORLD, "thing", {"name": "thing"}, make), [], Deadline.after(60), print)
"""


def test_what_a_killed_builder_left_is_removed_on_the_next_start(store: ArtefactStore) -> None:
    argv = [sys.executable, "-c", KILLED, str(store.workspace.root)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "half made\n"
        assert len(leftovers(store)) == 1
        child.send_signal(signal.SIGKILL)
    again = ArtefactStore(store.workspace)
    assert leftovers(again) == []
    wanted = recipe(writes("whole"))
    assert again.find(wanted) is None
    assert again.make(wanted, [], soon(), print).facts["text"] == "whole"


def test_a_damaged_manifest_means_making_it_again(store: ArtefactStore) -> None:
    wanted = recipe(writes("x"))
    path = store.make(wanted, [], soon(), print).path / MANIFEST
    for damage in ("", "{", "[]", '{"key": "another"}'):
        path.write_text(damage)
        assert store.find(wanted) is None
        assert store.make(wanted, [], soon(), print).facts["text"] == "x"


JSON = st.dictionaries(
    st.text(max_size=5), st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=3)
)


@given(one=JSON, two=JSON)
def test_keys_are_equal_exactly_when_inputs_are(one: dict[str, Any], two: dict[str, Any]) -> None:
    def key(inputs: dict[str, Any]) -> str:
        return Recipe(StepKind.IMAGE, "x", inputs, writes("x")).key

    assert (key(one) == key(two)) == (one == two)
    assert key(one) == key(dict(reversed(one.items())))


def test_a_need_changes_the_key() -> None:
    keys = {
        recipe(writes(""), *needs).key for needs in ((), (recipe(writes(""), name="a"),), (recipe(writes("")),))
    }
    assert len(keys) == 3


def test_tail_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == ""
    log.write_bytes(b"\xff" * 100000 + b"\n" + b"".join(b"%d\n" % i for i in range(30)))
    assert tail(log, 3).splitlines() == ["27", "28", "29"]
