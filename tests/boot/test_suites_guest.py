"""The suites on real guests: over both shells, with the expectations of the data, and when the guest panics."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfbuild.build import targets
from dfbuild.build.store import ArtefactStore, build_all
from dfbuild.deadline import Deadline
from dfbuild.errors import GuestCrashed
from dfbuild.model import Cell, CheckResult, Expectation, Outcome, Shape, Variant
from dfbuild.releases import load
from dfbuild.session import attach, keep
from dfbuild.session.held import MANIFEST
from dfbuild.shell import open_shell
from dfbuild.suites.events import CheckEvent, Event, ResultEvent
from dfbuild.suites.run import run_suites
from dfbuild.workspace import Workspace

pytestmark = [pytest.mark.boot, pytest.mark.timeout(900)]

RELEASE = load("reference")
SUITES = ("scheduler", "security")
GUARDED = Cell(
    Variant("reference", "gcc-12", "on", "smp"), Shape("smp2", sockets=2, cpu="max", root="ext4"), SUITES
)
WEAK = Cell(Variant("reference", "clang-14", "off", "smp"), Shape("nx-off", nx=False, cpu="max"), SUITES)
THREADED = Cell(Variant("reference", "gcc-12", "on", "smp"), Shape("ht2", threads=2, cpu="Haswell-noTSX"), SUITES)


NO_SWITCH = {"security/mmap-random-on", "security/pid-random-on"}
"""What cannot be turned on in the reference guest."""


class Guest:
    """A kept guest with the reference image of a cell."""

    def __init__(self, cell: Cell, workspace: Workspace) -> None:
        self.cell = cell
        self.workspace = workspace
        self.name = f"test-suites-{cell.shape.name}-{os.getpid()}"
        deadline = Deadline.after(600, what=cell.id)
        target = targets.target(RELEASE)
        recipe = target.image(RELEASE, cell, self.workspace)
        image = build_all(recipe, ArtefactStore(self.workspace), deadline, print)
        media = target.media(RELEASE, cell, image, self.workspace)
        self.manifest = keep.up(self.workspace, self.name, RELEASE, cell, media, deadline, print)
        self.path = self.workspace.guests / self.name / MANIFEST

    def down(self) -> None:
        keep.down(self.workspace, self.name, Deadline.after(30))

    def run(
        self, via: str, log: Path, *, check: str | None = None, suites: tuple[str, ...] = SUITES
    ) -> tuple[int, dict[str, CheckResult]]:
        """Run the suites; the status and the results."""
        results: dict[str, CheckResult] = {}

        def event(what: Event) -> None:
            if isinstance(what, ResultEvent):
                results[what.result.check] = what.result

        status = run_suites(self.path, suites, via, Deadline.after(600), event, log, check=check)
        return status, results


@pytest.fixture(scope="module")
def guarded(workspace: Workspace) -> Iterator[Guest]:
    guest = Guest(GUARDED, workspace)
    yield guest
    guest.down()


def problems(results: dict[str, CheckResult]) -> list[str]:
    return [f"{r.check}: {r.outcome} {r.detail}" for r in results.values() if r.outcome in (Outcome.FAIL, "fixed")]


@pytest.mark.parametrize("via", ["serial", "ssh"])
def test_all_is_as_expected(guarded: Guest, tmp_path: Path, via: str) -> None:
    status, results = guarded.run(via, tmp_path / "log")
    assert problems(results) == []
    assert status == 0
    counts = Counter(result.outcome for result in results.values())
    assert {check for check, result in results.items() if result.outcome is Outcome.SKIP} == NO_SWITCH
    assert {check for check, result in results.items() if result.outcome is Outcome.KNOWN} == {
        "security/pid-random"
    }
    assert counts[Outcome.PASS] >= 30
    fork = results["scheduler/latency-fork"].samples[0]
    assert (fork.metric, fork.unit, len(fork.values)) == ("fork", "us", 12)
    assert results["scheduler/cpu-count"].facts["cpus"] == "2"
    assert results["security/smash-16"].facts["buffer of 7"] == "detected"


@pytest.mark.parametrize("via", ["serial", "ssh"])
def test_subsystems_have_their_own_packages(guarded: Guest, tmp_path: Path, via: str) -> None:
    status, results = guarded.run(via, tmp_path / "log", suites=("packages",))
    assert (status, problems(results)) == (0, [])
    assert {name for name, result in results.items() if result.outcome is Outcome.PASS} == {
        "packages/isolated",
        "packages/upgrade",
    }


def test_the_machine_keeps_time_and_loses_nothing(guarded: Guest, tmp_path: Path) -> None:
    status, results = guarded.run("ssh", tmp_path / "log", suites=("hardware",))
    assert (status, problems(results)) == (0, [])
    assert results["hardware/transfer"].outcome is Outcome.PASS
    assert results["hardware/transfer"].facts["bytes"] == str(50 << 20)
    for clock in ("wall", "steady"):
        result = results[f"hardware/clock-{clock}"]
        assert result.outcome is Outcome.PASS or "too busy" in result.reason


def test_marks_stand_in_the_span_of_their_check(guarded: Guest, tmp_path: Path) -> None:
    status, results = guarded.run("serial", tmp_path / "log", check="security/exec-*")
    assert status == 0
    start, end = results["security/exec-executable"].console
    with attach(guarded.manifest) as session:
        seen = session.console.read(start, end - start)
    assert b"dfbuild: start security/exec-executable" in seen


def test_a_glob_that_matches_nothing(guarded: Guest, tmp_path: Path) -> None:
    assert guarded.run("serial", tmp_path / "log", check="security/none") == (5, {})


def test_a_person_runs_them_by_name(guarded: Guest, tmp_path: Path) -> None:
    """From anywhere, with other plugins about, and with a check of one's own."""
    own = tmp_path / "mine" / "test_mine.py"
    own.parent.mkdir()
    own.write_text("def test_shell(shell, deadline): assert shell.run('exit 7', deadline).status == 7\n")
    environment = {**os.environ, "DFBUILD_WORK": str(guarded.workspace.root)}
    options = ["-p", "dfbuild.suites.plugin", "--dfbuild-guest", guarded.name, "--dfbuild-via", "serial"]
    for words in (["--dfbuild-check", "security/nx-*"], [str(own)]):
        argv = [sys.executable, "-m", "pytest", *options, *words]
        done = subprocess.run(
            argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert " passed" in done.stdout


def test_what_is_known_of_weak_guests(workspace: Workspace, tmp_path: Path) -> None:
    """No NX and no stack protector: each of those checks shows it, and the controls still hold."""
    guest = Guest(WEAK, workspace)
    try:
        status, results = guest.run("serial", tmp_path / "log")
    finally:
        guest.down()
    assert problems(results) == []
    assert status == 0
    known = {check for check, result in results.items() if result.outcome is Outcome.KNOWN}
    assert known == {
        *(f"security/nx-{where}" for where in ("stack", "heap", "data", "mmap", "readonly", "file")),
        *("security/smash-16", "security/smash-8", "security/reorder", "security/pid-random"),
    }
    skipped = {check: result for check, result in results.items() if result.outcome is Outcome.SKIP}
    assert set(skipped) == {"scheduler/placement", "scheduler/ping-pong", *NO_SWITCH}
    assert {result.expected for result in skipped.values()} == {Expectation.NA}
    assert results["security/exec-rwx"].outcome is Outcome.PASS


def test_siblings_are_seen_and_a_panic_ends_the_suites(workspace: Workspace, tmp_path: Path) -> None:
    """The guest is made to panic while a check runs: it fails, what ran stays, the rest is not run."""
    guest = Guest(THREADED, workspace)
    results: dict[str, CheckResult] = {}
    try:
        with attach(guest.manifest) as session:

            def event(what: Event) -> None:
                if isinstance(what, ResultEvent):
                    results[what.result.check] = what.result
                elif what == CheckEvent("security/nx-stack"):
                    # The suites go over SSH: the console's shell is free.
                    shell = open_shell(session, RELEASE, "serial", Deadline.after(30))
                    with pytest.raises(GuestCrashed):
                        shell.run("echo c > /proc/sysrq-trigger", Deadline.after(30))

            status = run_suites(guest.path, SUITES, "ssh", Deadline.after(300), event, tmp_path / "log")
    finally:
        guest.down()
    assert status == 1
    assert results["scheduler/cpu-threads"].outcome is Outcome.PASS
    assert results["scheduler/cpu-threads"].facts["threads"] == "2"
    failed = [result for result in results.values() if result.outcome is Outcome.FAIL]
    assert len(failed) == 1
    assert "panic" in failed[0].detail
    order = list(results)
    after = order[order.index(failed[0].check) + 1 :]
    assert after
    assert {results[check].outcome for check in after} == {Outcome.SKIP}
    assert "the guest is gone: panic" in results[after[-1]].reason
