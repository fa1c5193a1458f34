"""What pytest does for checks while a guest is attached: choose, mark, watch, judge and report."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from dfbuild.console.protocol import Console, ConsoleClosed
from dfbuild.console.text import printable
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, DfbuildError, GuestCrashed, GuestError
from dfbuild.model import CheckResult, Expectation, Outcome, Sample
from dfbuild.releases import Release
from dfbuild.session.protocol import Session
from dfbuild.shell.errors import ShellLost
from dfbuild.shell.protocol import Shell
from dfbuild.suites.events import CheckEvent, EndEvent, Event, Reporter, ResultEvent
from dfbuild.suites.expect import Ending, Phase, expectation, judge, unused
from dfbuild.suites.shells import Shells

_AFTERMATH = 1.0
"""Seconds that a guest which took its shell with it has to say why."""

_ANSWER = 20.0
"""Seconds that a guest which gave a check no answer has to answer anything at all. A shell on the console takes a
fraction of one to open, or a few on a busy host."""

_LATE = "the time for the suites is over"
_MARK = 10.0
_DETAIL = 1 << 16
_INNER = re.compile(r"\s*assert (?:not True|False)$|\s*\+ .* object at 0x[0-9a-f]+>")
"""Lines that pytest adds where what was asserted is a call."""


@dataclass(slots=True)
class Record:
    """What is known of a check; filled while it runs."""

    check: str
    expected: Expectation
    reason: str
    phases: list[Phase] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    not_run: str = ""
    """Why it was not even begun."""
    until: int | None = None
    """Where on the console what it did itself ended, if we asked the guest something behind it."""

    def result(self, seconds: float, console: tuple[int, int]) -> CheckResult:
        """The verdict on all of it."""
        outcome = Outcome.SKIP if self.not_run else judge(self.expected, self.phases)
        reason, details = self.reason, [phase.detail for phase in self.phases if phase.detail]
        if outcome is Outcome.SKIP:
            reason, details = self.not_run or "\n".join(details), []
        return CheckResult(
            check=self.check,
            outcome=outcome,
            expected=self.expected,
            reason=reason,
            detail="\n".join(details)[:_DETAIL],
            duration=seconds,
            samples=tuple(self.samples),
            console=console,
            facts=self.facts,
        )


RECORD = pytest.StashKey[Record]()


def check_id(item: pytest.Item) -> str:
    """`suite/name`: the directory's name, and the marker's or the function's, with its parameters."""
    name, _, parameters = item.name.partition("[")
    marker = item.get_closest_marker("check")
    base = marker.args[0] if marker and marker.args else name.removeprefix("test_")
    words = f"{base}-{parameters.removesuffix(']')}" if parameters else base
    return f"{item.path.parent.name}/{words}".replace("_", "-")


class Attached:
    """The hooks. `via` says which of `shells` the checks use; `gone` is why the guest is of no use any more."""

    def __init__(
        self,
        session: Session,
        release: Release,
        shells: Shells,
        via: str,
        deadline: Deadline,
        report: Callable[[Event], None],
    ) -> None:
        self.session, self.release, self.shells, self.via = session, release, shells, via
        self.deadline = deadline
        self.gone = ""
        self.hung = self.late = False
        self._report = report
        self.unused: tuple[str, ...] = ()
        self._asked: tuple[Exception | None, str | None] = (None, None)

    @classmethod
    def attach(cls, config: pytest.Config) -> Attached:
        """Attach to the guest that the options name. What is wrong with it is a `pytest.UsageError`."""
        from dfbuild.session import attach, keep
        from dfbuild.shell import open_shell
        from dfbuild.workspace import Workspace

        name, via = config.getoption("dfbuild_guest"), config.getoption("dfbuild_via")
        try:
            session = attach(Path(name) if "/" in name else keep.find(Workspace.locate(), name))
            release = session.manifest.release
        except DfbuildError as error:
            raise pytest.UsageError(str(error)) from error

        def opened(via: str, deadline: Deadline) -> Shell:
            return open_shell(session, release, via, deadline)

        shells = Shells(opened, release.commands.get("mark"))
        deadline = Deadline.after(config.getoption("dfbuild_deadline"), what="the suites")
        return cls(session, release, shells, via, deadline, Reporter(config.getoption("dfbuild_report_fd")))

    @property
    def console(self) -> Console:
        return self.session.console

    # ── which checks ────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        cell = self.session.manifest.cell
        records: dict[str, Record] = {}
        for item in items:
            check = check_id(item)
            if check in records:
                raise pytest.UsageError(f"two checks are called {check!r}; the second one is {item.nodeid}")
            records[check] = item.stash[RECORD] = Record(check, *expectation(self.release, check, cell))
        self.unused = unused(self.release.expect, records)
        glob = config.getoption("dfbuild_check")
        if glob is not None:
            left_out = [item for item in items if not fnmatchcase(item.stash[RECORD].check, glob)]
            items[:] = [item for item in items if fnmatchcase(item.stash[RECORD].check, glob)]
            config.hook.pytest_deselected(items=left_out)

    # ── one check ───────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        record = item.stash[RECORD]
        self._report(CheckEvent(record.check))
        begin, start = time.monotonic(), self.console.size
        answer = yield
        seconds, end = time.monotonic() - begin, self.console.size if record.until is None else record.until
        self._report(ResultEvent(record.result(seconds, (start, end))))
        return answer

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        record = item.stash[RECORD]
        if self.gone:
            record.not_run = f"the guest is gone: {self.gone}"
        elif self.deadline.expired:
            self._too_late(record)
        elif record.expected is Expectation.NA:
            record.not_run = record.reason
        if record.not_run or record.expected is Expectation.NA:
            pytest.skip(record.not_run)
        self.shells.marks.begin(record.check)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        record = item.stash[RECORD]
        phase = _phase(item, call)
        record.phases.append(phase)
        if not self.gone and not record.not_run:
            error = call.excinfo and call.excinfo.value
            self.gone = self._why_gone(wait=isinstance(error, DfbuildError))
            waiting: str | None = ""
            if not self.gone and isinstance(error, ShellLost | DeadlineExceeded):
                record.until = self.console.size
                waiting = self._waiting(error)
                if waiting:
                    detail = f"{phase.detail}\nwhat the guest's last processes wait for:\n{waiting}"
                    record.phases[-1] = replace(phase, detail=detail)
            if waiting is None:
                self.gone = self._why_gone(wait=True)
                if not self.gone and self.deadline.expired:
                    # It had no time to answer in.
                    self._too_late(record)
                    report.outcome, report.longrepr = "skipped", (str(item.path), 0, record.not_run)
                    return report
                if not self.gone:
                    self.gone, self.hung = "it no longer answers", True
            if self.gone:
                record.phases.append(Phase(call.when, Ending.ERROR, self.gone))
                report.outcome, report.longrepr = "failed", self.gone
                return report
        told = str(report.longrepr)
        if report.failed and (clean := printable(told.encode("utf-8", "backslashreplace"))) != told:
            report.longrepr = clean  # what the guest printed, for a person's terminal
        if call.when == "call" and record.expected is Expectation.KNOWN:
            # Told to pytest as it tells expected failures, so that its summary and its status say the same.
            if phase.ending is Ending.ASSERTION:
                report.outcome = "skipped"
            if phase.ending in (Ending.ASSERTION, Ending.PASSED):
                report.wasxfail = record.reason
        return report

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        if not self.gone:
            # All results are in: what happens to the guest from now on is for its holder to say.
            with contextlib.suppress(DfbuildError):
                self.shells.finish(self.via, self.deadline.sooner(_MARK, what="the last mark"))
        self._report(EndEvent(self.gone, self.hung, self.late))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for glob in self.unused:
            terminalreporter.write_line(f"dfbuild: the release expects something of {glob!r}, which is no check")

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        self.shells.close()
        self.session.close()

    # ── the guest ───────────────────────────────────────────────────────────────────────────────────────────────

    def _why_gone(self, *, wait: bool) -> str:
        """Why the guest is of no use any more, or nothing. With `wait` it gets a moment to say so."""
        if self.console.crash is not None:
            return self.console.crash.title
        if self.console.closed:
            return "its console was closed"
        if not wait:
            return ""
        moment = Deadline.after(_AFTERMATH, what="a crash")
        try:
            while True:
                self.console.wait(self.console.size, moment)
        except GuestCrashed as error:
            return error.report.title
        except ConsoleClosed:
            return "its console was closed"
        except DeadlineExceeded:
            return ""

    def within(self, seconds: float, *, what: str = "") -> Deadline:
        """A deadline in `seconds`, later where the guest is slow by its shape (`Manifest.patience`)."""
        return self.deadline.sooner(seconds * self.session.manifest.patience, what=what)

    def _too_late(self, record: Record) -> None:
        record.not_run, self.late = _LATE, True

    def _waiting(self, error: Exception) -> str | None:
        """What processes wait for, as a command on the console says; None if none answers any more.

        What a check waited for may have been its own fault. All checks that want something which could not be had
        fail of the same `error`, of which the guest is asked once.
        """
        if error is not self._asked[0]:
            deadline = self.within(_ANSWER, what="an answer")
            try:
                self.shells.close()
                answer = self.shells["serial"].run(self.release.commands.get("waiting", "true"), deadline)
                self._asked = error, answer.text.rstrip() if answer.status == 0 else None
            except (ShellLost, DeadlineExceeded, GuestError):
                self._asked = error, None
        return self._asked[1]


def _phase(item: pytest.Item, call: pytest.CallInfo[None]) -> Phase:
    """What `call` came to. Only the suite's own assertions are findings: a library's say that it is broken."""
    if call.excinfo is None:
        return Phase(call.when, Ending.PASSED)
    error = call.excinfo.value
    if isinstance(error, pytest.skip.Exception):
        return Phase(call.when, Ending.SKIPPED, str(error.msg))
    crash = call.excinfo.traceback[-1]
    own = isinstance(error, AssertionError) and item.path.parent in Path(crash.path).parents
    told = found(call.excinfo.exconly()) if own else call.excinfo.exconly()
    detail = f"{told}\n  at {Path(crash.path).name}:{crash.lineno + 1}"
    return Phase(call.when, Ending.ASSERTION if own else Ending.ERROR, detail)


def found(text: str) -> str:
    """What an assertion found, as pytest tells it, without what only who wrote the check could read. Pure."""
    left = [line for line in text.removeprefix("AssertionError: ").splitlines() if not _INNER.match(line)]
    return "\n".join(left) or text
