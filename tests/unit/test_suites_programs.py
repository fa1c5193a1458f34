"""The programs that run in guests, run here: strict C89 for every compiler, and findings that can be told apart."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfbuild.releases import load
from dfbuild.shell.protocol import Answer
from dfbuild.suites.probe import Report, parse
from dfbuild.suites.run import DIRECTORY

PROGRAMS = ("hogs", "latency", "layout", "nx", "smash")
RELEASE = load("reference")
BUILDS = tuple(itertools.product(RELEASE.toolchains, RELEASE.stack_protectors))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Path]]:
    """Directories of programs by toolchain and stack protector, with no warning tolerated."""
    directories = {}
    compilers = []
    for toolchain, protector in BUILDS:
        directory = directories[toolchain, protector] = tmp_path_factory.mktemp(f"{toolchain}-{protector}")
        for name in PROGRAMS:
            argv = [
                RELEASE.toolchains[toolchain].cc,
                *("-std=c89", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIE", "-pie"),
                *RELEASE.stack_protectors[protector].flags,
                *(str(DIRECTORY / "probes" / f"{name}.c"), "-o", str(directory / name)),
            ]
            compilers.append(subprocess.Popen(argv))
    assert [compiler.wait() for compiler in compilers] == [0] * len(compilers)
    yield directories


def run(directory: Path, name: str, *arguments: object) -> Report:
    done = subprocess.run([directory / name, *map(str, arguments)], stdout=subprocess.PIPE, timeout=60, check=False)
    return parse(name, Answer(name, done.returncode, done.stdout))


@pytest.mark.parametrize("build", BUILDS, ids=" ".join)
def test_smash_shows_the_protector(built: dict[tuple[str, str], Path], build: tuple[str, str]) -> None:
    report = run(built[build], "smash")
    protected = build[1] == "on"
    assert report["control"] == "returned"
    assert report["buffer16"] == report["buffer8"] == ("detected" if protected else "undetected")
    assert report["buffer7"] in ("detected", "undetected")
    assert report["variables"] == ("intact" if protected else "clobbered")


@pytest.mark.parametrize("build", BUILDS, ids=" ".join)
def test_nx_tells_both_apart(built: dict[tuple[str, str], Path], build: tuple[str, str]) -> None:
    report = run(built[build], "nx")
    assert {report[where] for where in ("stack", "heap", "data", "mmap", "readonly", "file")} <= {"ran", "blocked"}
    assert report["rwx"] == report["executable"] == "ran"


def test_layout_execs_afresh(built: dict[tuple[str, str], Path]) -> None:
    report = run(built[BUILDS[0]], "layout", 5)
    for key in ("stack", "heap", "large", "mmap", "text", "guard"):
        different, differ, first = report.integers(key, 3, base=16)
        assert 1 <= different <= 5
        assert (different == 1) == (differ == 0)
        assert first
    assert len(set(report.integers("pid", 5))) == 5


def test_hogs_use_what_they_are_given(built: dict[tuple[str, str], Path]) -> None:
    one = run(built[BUILDS[0]], "hogs", 2, 100, "one")
    assert len(set(one.integers("home", 2))) == 1
    assert 0 < sum(one.numbers("cpu", 2)) <= 1.1 * max(one.numbers("wall", 2))
    assert one.integers("moves", 2) == (0, 0)
    assert one.integers("share", 2) == (1000, 1000)
    assert min(one.numbers("late", 2)) >= 0


def test_latency_measures_all(built: dict[tuple[str, str], Path]) -> None:
    report = run(built[BUILDS[0]], "latency", 3, 2)
    for what in ("syscall", "pipe", "fork", "exec", "switch"):
        assert min(report.numbers(what, 3)) > 0
    assert min(report.numbers("nap", 50)) >= 0


@pytest.mark.parametrize("words", [["hogs"], ["hogs", "0", "1", "free"], ["layout", "0"], ["layout", "9999"]])
def test_nonsense_is_refused(built: dict[tuple[str, str], Path], words: list[str]) -> None:
    done = subprocess.run([built[BUILDS[0]] / words[0], *words[1:]], capture_output=True, timeout=60, check=False)
    assert done.returncode == 2
    assert b"end=ok" not in done.stdout
