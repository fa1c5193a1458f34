"""Directories that do not outlive who made them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dfbuild.runtime import runtime_directory


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    short = Path(f"/tmp/dfb-test-{os.getpid()}")
    short.symlink_to(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    monkeypatch.setattr("dfbuild.runtime._YOUNG", -1.0)
    yield tmp_path
    short.unlink()


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_has_stays(base: Path) -> None:
    ours = runtime_directory("g")
    code = "import sys; from dfbuild.runtime import runtime_directory as r; print(r('g'), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().decode().strip())
        (theirs / "disk0.qcow2").write_text("large")
        another = runtime_directory("g")
        assert ours.is_dir() and another.is_dir() and theirs.is_dir()
        other.kill()
    assert theirs.is_dir()
    runtime_directory("g")
    assert ours.is_dir() and another.is_dir() and not theirs.exists()


def test_nothing_else_is_removed(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [base / name for name in ("dfbuild-ci", "dfbuild-src", "dfbuild-g-abcdefgh")]
    for other in others:
        (other / "kept").mkdir(parents=True)
    runtime_directory("g")
    assert all((other / "kept").is_dir() for other in others)


def test_somebody_elses_directory_is_not_used(base: Path) -> None:
    own = base / f".dfbuild-{os.geteuid()}"
    own.mkdir(mode=0o777)
    own.chmod(0o777)
    assert runtime_directory("g").parent.resolve() == base and list(own.iterdir()) == []


def test_threads_may_ask_at_once() -> None:
    def work(_: int) -> None:
        for _ in range(100):
            runtime_directory("g").rmdir()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))


def test_descriptors_do_not_outlive_their_directories() -> None:
    runtime_directory("g").rmdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        runtime_directory("g").rmdir()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
