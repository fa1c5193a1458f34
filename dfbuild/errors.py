"""Typed errors: whose fault it was decides the verdict, the exit status and whether a retry is honest.

Three families, never mixed: `UsageError` (the user's mistake), `GuestError` (what was built or booted
is at fault) and `InfraError` (the host or dfbuild itself). Only the last may be retried.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dfbuild.model import CrashReport, Verdict


class DfbuildError(Exception):
    """Base of all errors that dfbuild raises on purpose.

    `hint` is one sentence that names the cure; `exit_status` is what the command line ends with.
    """

    exit_status = 3

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class UsageError(DfbuildError):
    """The user asked for something wrong. Carries the place when it is in a file."""

    exit_status = 2

    def __init__(
        self, message: str, *, hint: str = "", file: Path | None = None, line: int | None = None, key: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.file, self.line, self.key = file, line, key

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        head = f"{place}: " if place else ""
        key = f"{self.key}: " if self.key else ""
        return f"{head}{key}{super().__str__()}"


class InfraError(DfbuildError):
    """The host, a tool on it, or dfbuild itself failed; says nothing about what is under test."""


class MissingTool(InfraError):
    """A program that this feature needs is not installed."""


class HostFull(InfraError):
    """The host could not do what the guest asked of a disk, and the guest stands still for that."""


class Cancelled(DfbuildError):
    """The user interrupted the run."""

    exit_status = 130


class DeadlineExceeded(DfbuildError):
    """A deadline passed. Neutral: whoever set the deadline knows whose fault that is."""


class GuestError(DfbuildError):
    """What was built or booted is at fault; `verdict` says how."""

    exit_status = 1
    verdict: Verdict = Verdict.TEST_FAIL


class BuildFailed(GuestError):
    """A build step ended badly. `component` is what failed, `log` its whole log, `tail` the last lines."""

    verdict = Verdict.BUILD_FAIL

    def __init__(
        self, message: str, *, component: str, log: Path | None = None, tail: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.component, self.log, self.tail = component, log, tail


class BuildKilled(BuildFailed):
    """A build step was ended by a signal: what it was writing is not whole."""


class BootFailed(GuestError):
    """The guest ended before it reached its last boot stage."""

    verdict = Verdict.BOOT_FAIL


class GuestEnded(GuestError):
    """The guest ended by itself after it was up, without a word: a triple fault, say."""

    verdict = Verdict.PANIC


class GuestHung(GuestError):
    """The guest missed a stage's deadline or fell silent."""

    verdict = Verdict.HANG


class GuestCrashed(GuestError):
    """The console showed a crash; `report` has its title and where it stands in the transcript."""

    verdict = Verdict.PANIC

    def __init__(self, report: CrashReport) -> None:
        super().__init__(report.title)
        self.report = report
        self.verdict = report.verdict


def nearest(word: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """A hint: the known name most like `word`, else `otherwise`, which is all of them."""
    import difflib

    names = tuple(known)
    near = difflib.get_close_matches(word, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    if otherwise is None:
        return f"known: {', '.join(names)}" if names else ""
    return otherwise
