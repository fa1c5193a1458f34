"""The plugin on a guest that is only played: which checks run, what becomes of them, and how a guest dies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dfbuild.console.protocol import ConsoleClosed
from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import GuestCrashed
from dfbuild.model import Cell, CheckResult, CrashReport, Expectation, Outcome, Sample, Shape, Variant, Verdict
from dfbuild.releases import load
from dfbuild.releases.schema import Expect
from dfbuild.shell.errors import ShellLost
from dfbuild.shell.protocol import Answer
from dfbuild.suites import fixtures
from dfbuild.suites.attached import Attached, found
from dfbuild.suites.events import CheckEvent, EndEvent, Event, ResultEvent
from dfbuild.suites.run import DIRECTORY
from dfbuild.suites.shells import Shells

pytest_plugins = ["pytester"]

CELL = Cell(Variant("reference", "gcc-12", "on", "smp"), Shape("smp2", sockets=2), ("security",))
PANIC = CrashReport("panic: out of luck", "panic", Verdict.PANIC, 7)


@dataclass
class PlayedConsole:
    """Grows by a byte with each command; crashes or closes when told."""

    size: int = 0
    closed: bool = False
    crash: CrashReport | None = None
    late: CrashReport | None = None

    def wait(self, offset: int, deadline: Deadline) -> int:
        if self.late is not None:
            self.crash = self.late
            raise GuestCrashed(self.late)
        if self.closed:
            raise ConsoleClosed("over")
        deadline.sooner(0.0).check()
        return self.size


@dataclass
class PlayedShell:
    console: PlayedConsole
    via: str = "ssh"
    commands: list[str] = field(default_factory=list)
    then: str = ""
    over: Callable[[], None] = lambda: None

    def run(self, command: str, deadline: Deadline, *, stdin: bytes = b"") -> Answer:
        self.commands.append(command)
        self.console.size += 1
        _, _, command = command.rpartition("\n")
        if command == "panic":
            self.console.crash = PANIC
            raise GuestCrashed(PANIC)
        if command == "vanish":
            self.console.late = PANIC
            raise ShellLost("no answer")
        if command == "hiccup":
            raise ShellLost("no answer")
        if command == "deaf, and out of time":
            self.over()
            command = "deaf"
        if command in ("deaf", "die when asked"):
            self.then = command
        match self.then:
            case "deaf":
                raise ShellLost("no answer")
            case "die when asked" if command == "true":
                self.console.crash = PANIC
                raise GuestCrashed(PANIC)
            case "die when asked":
                raise ShellLost("no answer")
        return Answer(command, 0, command.encode())

    def put(self, source: Path, target: str, deadline: Deadline) -> None: ...
    def get(self, source: str, target: Path, deadline: Deadline) -> None: ...
    def close(self) -> None: ...


@dataclass
class Played:
    """A run of pytest over played checks."""

    results: dict[str, CheckResult]
    events: list[Event]
    status: int
    shell: PlayedShell
    attached: Attached


class Play:
    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.expect: list[Expect] = []
        self.commands = {"mark": "mark {mark}"}
        self.deadline = Deadline.after(60)
        self.over: Callable[[], None] = lambda: None

    def __call__(self, *arguments: str | Path, **files: str) -> Played:
        suite = self.pytester.mkdir("toy")
        for name, text in files.items():
            (suite / f"{name}.py").write_text("import pytest\n" + text)
        events: list[Event] = []
        console = PlayedConsole()
        shell = PlayedShell(console, over=self.over)
        release = load("reference").model_copy(update={"expect": tuple(self.expect), "commands": self.commands})
        session: Any = SimpleNamespace(
            console=console,
            manifest=SimpleNamespace(cell=CELL, wire=None, overcommit=1.0, patience=1.0),
            close=lambda: None,
        )
        shells = Shells(lambda via, deadline: shell, self.commands.get("mark"))
        attached = Attached(session, release, shells, "ssh", self.deadline, events.append)
        words = [
            "-p",
            "dfbuild.suites.plugin",
            "-c",
            str(DIRECTORY / "pytest.ini"),
            *map(str, arguments or [suite]),
        ]
        status = self.pytester.inline_run(*words, plugins=[fixtures, NamedPlugin(attached)]).ret
        results = {event.result.check: event.result for event in events if isinstance(event, ResultEvent)}
        return Played(results, events, int(status), shell, attached)


class NamedPlugin:
    """Registers what it is given under the name that the fixtures look for."""

    def __init__(self, attached: Attached) -> None:
        self.attached = attached

    def pytest_configure(self, config: pytest.Config) -> None:
        config.pluginmanager.register(self.attached, "dfbuild-attached")


@pytest.fixture
def play(pytester: pytest.Pytester) -> Play:
    return Play(pytester)


def test_outcomes_are_measured_against_the_release(play: Play) -> None:
    play.expect = [
        Expect(check="toy/known-*", outcome=Expectation.KNOWN, reason="old kernel"),
        Expect(check="toy/absent", outcome=Expectation.NA, reason="no such thing", when="cpus>1"),
    ]
    played = play(
        test_toy="""
def test_good(): pass
def test_bad(): assert 1 == 2, "sums are off"
def test_known_bad(): assert 1 == 2
def test_known_good(): pass
def test_known_broken(): raise ValueError("what")
def test_absent(shell): shell.run("never", None)
def test_not_here(): pytest.skip("not today")
@pytest.fixture
def broken(): assert False, "in a fixture"
def test_known_setup(broken): pass
"""
    )
    outcomes = {check: result.outcome for check, result in played.results.items()}
    assert outcomes == {
        "toy/good": Outcome.PASS,
        "toy/bad": Outcome.FAIL,
        "toy/known-bad": Outcome.KNOWN,
        "toy/known-good": Outcome.FIXED,
        "toy/known-broken": Outcome.FAIL,
        "toy/absent": Outcome.SKIP,
        "toy/not-here": Outcome.SKIP,
        "toy/known-setup": Outcome.FAIL,
    }
    assert played.status == 1
    assert "sums are off" in played.results["toy/bad"].detail
    assert "test_toy.py:4" in played.results["toy/bad"].detail
    assert played.results["toy/known-bad"].reason == "old kernel"
    assert "ValueError: what" in played.results["toy/known-broken"].detail
    assert played.results["toy/absent"].reason == "no such thing"
    assert "not today" in played.results["toy/not-here"].reason
    assert played.shell.commands == []


def test_no_guest_controls_the_terminal(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    played = play(test_toy="def test_it(): assert False, chr(27) + ']0;owned' + chr(7) + chr(0x202e)\n")
    assert played.status == 1
    assert "\\x1b]0;owned\\x07\\u202e" in (said := capsys.readouterr().out)
    assert "\x1b]0;owned" not in said


def test_expected_failures_are_no_failures_to_pytest(play: Play) -> None:
    play.expect = [Expect(check="toy/*", outcome=Expectation.KNOWN)]
    played = play(test_toy="def test_bad(): assert False\ndef test_good(): pass\n")
    assert played.status == 0


def test_an_assertion_of_a_library_is_no_finding(play: Play) -> None:
    play.expect = [Expect(check="toy/*", outcome=Expectation.KNOWN)]
    (play.pytester.path / "elsewhere.py").write_text("def look(): assert False, 'internal'\n")
    play.pytester.syspathinsert()
    played = play(test_toy="import elsewhere\ndef test_it(): elsewhere.look()\n")
    assert played.results["toy/it"].outcome is Outcome.FAIL


def test_names(play: Play) -> None:
    played = play(
        test_toy="""
@pytest.mark.parametrize("where", ["stack", "heap"])
def test_nx(where): pass
@pytest.mark.check("another-name")
def test_this(): pass
"""
    )
    assert list(played.results) == ["toy/nx-stack", "toy/nx-heap", "toy/another-name"]


def test_two_checks_of_one_name_are_refused(play: Play) -> None:
    played = play(test_one="def test_it(): pass\n", test_two="def test_it(): pass\n")
    assert played.status == pytest.ExitCode.USAGE_ERROR
    assert not played.results


def test_samples_and_facts(play: Play) -> None:
    played = play(
        test_toy="""
def test_it(samples, fact, cell, release, shell, deadline):
    samples("fork", [3.0, 1.0], unit="us")
    fact("cpus", cell.shape.cpus)
    fact("release", release.name)
    assert shell.run("echo", deadline).text == "echo"
    assert 0 < deadline.remaining() <= 60
"""
    )
    result = played.results["toy/it"]
    assert result.outcome is Outcome.PASS, result.detail
    assert result.samples == (Sample("fork", "us", (3.0, 1.0)),)
    assert result.facts == {"cpus": "2", "release": "reference"}
    assert result.console == (0, 1)


def test_a_check_has_its_own_time(play: Play) -> None:
    played = play(
        test_toy="""
@pytest.mark.check(seconds=7)
def test_it(deadline): assert deadline.remaining() <= 7
"""
    )
    assert played.results["toy/it"].outcome is Outcome.PASS


USES = "def test_a(shell, deadline): shell.run('one', deadline); shell.run('two', deadline)\n"


def test_events_come_in_order(play: Play) -> None:
    played = play(test_toy="def test_a(): pass\ndef test_b(): pass\n")
    kinds = [(type(event), getattr(event, "check", "")) for event in played.events]
    assert kinds == [
        (CheckEvent, "toy/a"),
        (ResultEvent, ""),
        (CheckEvent, "toy/b"),
        (ResultEvent, ""),
        (EndEvent, ""),
    ]


def test_the_guest_is_told_which_check_uses_it(play: Play) -> None:
    idle, uses = "def test_idle(): pass\n", "def test_b(ssh, deadline): ssh.run('three', deadline)\n"
    played = play(test_toy=USES + idle + uses)
    assert played.shell.commands == [
        "mark 'dfbuild: start toy/a'\none",
        "two",
        "mark 'dfbuild: end toy/a, start toy/b'\nthree",
        "mark 'dfbuild: end toy/b'",
    ]


def test_a_release_without_marks(play: Play) -> None:
    play.commands = {}
    assert play(test_toy=USES).shell.commands == ["one", "two"]


def test_nothing_is_said_to_a_guest_that_nobody_uses(play: Play) -> None:
    assert play(test_toy="def test_idle(): pass\n").shell.commands == []


@pytest.mark.parametrize("how", ["panic", "vanish", "die when asked"])
def test_a_guest_that_dies_fails_its_check_and_ends_the_rest(play: Play, how: str) -> None:
    play.expect = [Expect(check="toy/dies", outcome=Expectation.KNOWN)]
    played = play(
        test_toy=f"""
def test_before(): pass
def test_dies(shell, deadline): shell.run({how!r}, deadline)
def test_after(shell, deadline): shell.run("never", deadline)
def test_later(): pass
"""
    )
    assert [result.outcome for result in played.results.values()] == [
        Outcome.PASS,
        Outcome.FAIL,
        Outcome.SKIP,
        Outcome.SKIP,
    ]
    assert PANIC.title in played.results["toy/dies"].detail
    assert played.results["toy/after"].reason == f"the guest is gone: {PANIC.title}"
    assert played.events[-1] == EndEvent(PANIC.title)
    assert not any("never" in command for command in played.shell.commands)
    assert played.status == 1


def test_a_check_that_does_not_notice_the_crash_fails_all_the_same(play: Play) -> None:
    played = play(
        test_toy="""
def test_it(console, shell, deadline):
    with pytest.raises(Exception): shell.run("panic", deadline)
"""
    )
    assert played.results["toy/it"].outcome is Outcome.FAIL
    assert PANIC.title in played.results["toy/it"].detail


def test_a_lost_shell_is_not_a_lost_guest(play: Play) -> None:
    played = play(
        test_toy="""
def test_loses(shell, deadline): shell.run("hiccup", deadline)
def test_goes_on(shell, deadline): assert shell.run("echo", deadline).text == "echo"
"""
    )
    assert played.results["toy/loses"].outcome is Outcome.FAIL
    assert played.results["toy/goes-on"].outcome is Outcome.PASS


def test_of_a_guest_that_answers_it_is_told_what_its_processes_wait_for(play: Play) -> None:
    """Once of what several checks want, and without what was asked on the console."""
    play.commands |= {"waiting": "17 D+ vsymlk stuck", "hiccup": "\nhiccup"}
    played = play(
        test_toy="""
@pytest.fixture(scope="session")
def views(ask): ask("hiccup")
def test_a(views): pass
def test_b(views): pass
def test_c(shell, deadline): assert shell.run("echo", deadline).text == "echo"
"""
    )
    first, second = (played.results[f"toy/{name}"] for name in "ab")
    assert "what the guest's last processes wait for:\n17 D+ vsymlk stuck" in first.detail
    assert first.detail == second.detail
    assert sum("vsymlk" in command for command in played.shell.commands) == 1
    assert first.console[1] < second.console[0]
    assert played.results["toy/c"].outcome is Outcome.PASS


def test_a_guest_that_stops_to_answer_hangs(play: Play) -> None:
    played = play(test_toy='def test_a(shell, deadline): shell.run("deaf", deadline)\n')
    assert played.results["toy/a"].outcome is Outcome.FAIL
    assert played.events[-1] == EndEvent("it no longer answers", hung=True)


def test_time_that_is_over(play: Play) -> None:
    play.deadline = Deadline.after(0)
    played = play(test_toy="def test_a(): pass\n")
    assert played.results["toy/a"].outcome is Outcome.SKIP
    assert "time" in played.results["toy/a"].reason
    assert played.events[-1] == EndEvent(late=True)


def test_a_guest_that_gets_no_time_to_answer_is_not_called_hung(play: Play) -> None:
    cancel = Cancel()
    play.deadline = Deadline.after(60, cancel=cancel)
    play.over = cancel.set
    played = play(
        test_toy="""
def test_a(shell, deadline): shell.run("deaf, and out of time", deadline)
def test_b(): assert False
"""
    )
    assert {result.outcome for result in played.results.values()} == {Outcome.SKIP}
    assert played.events[-1] == EndEvent(late=True)
    assert played.status == 0


def test_choosing_checks(play: Play) -> None:
    toy = play.pytester.path / "toy"
    played = play("--dfbuild-check", "toy/[ab]*", toy, test_toy="def test_a(): pass\ndef test_c(): pass\n")
    assert list(played.results) == ["toy/a"]


def test_the_suites_need_a_guest(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("-c", str(DIRECTORY / "pytest.ini"), "-p", "dfbuild.suites.plugin", DIRECTORY)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--dfbuild-guest" in result.stderr.str()


def test_a_guest_that_is_not_up(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFBUILD_WORK", str(pytester.path))
    result = pytester.runpytest("-p", "dfbuild.suites.plugin", "--dfbuild-guest", "nobody")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "nobody" in result.stderr.str()


def test_the_reference_release_expects_nothing_of_checks_that_are_not(play: Play) -> None:
    play.expect = list(load("reference").expect)
    played = play("--collect-only", DIRECTORY)
    assert played.status == 0
    assert played.attached.unused == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "AssertionError: a reset is taken\nassert False\n +  where False = survives(<Deadline object at 0x7f>)",
            "a reset is taken",
        ),
        ("AssertionError: sums are off\nassert 1 == 2", "sums are off\nassert 1 == 2"),
        ("assert 1 == 2\n +  where 1 = len([3])", "assert 1 == 2\n +  where 1 = len([3])"),
        ("assert False", "assert False"),
    ],
)  # fmt: skip
def test_what_an_assertion_found_is_told_without_its_inside(text: str, told: str) -> None:
    assert found(text) == told
