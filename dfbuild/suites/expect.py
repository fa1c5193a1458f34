"""What the release's data expects of a check, and what came of it. Pure."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from dfbuild.filter import compile as compile_filter
from dfbuild.model import Cell, Expectation, Outcome
from dfbuild.releases.schema import Expect, Release


class Ending(StrEnum):
    """How one phase of a check ended. Only an assertion speaks of what is under test."""

    PASSED = "passed"
    ASSERTION = "assertion"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase that was run: `setup`, `call` or `teardown`. `detail` is what was raised, as text."""

    when: str
    ending: Ending
    detail: str = ""


def expectation(release: Release, check: str, cell: Cell) -> tuple[Expectation, str]:
    """What `release` expects of `check` on `cell`, and the reason. The last entry that applies wins."""
    attributes = cell.attributes()
    for entry in reversed(release.expect):
        if fnmatchcase(check, entry.check) and _compiled(entry.when)(attributes):
            return entry.outcome, entry.reason
    return Expectation.PASS, ""


def judge(expected: Expectation, phases: Sequence[Phase]) -> Outcome:
    """The outcome of a check whose phases ended like that.

    An assertion counts only in the `call` phase; everything else that was raised is a failure, whatever was
    expected, and so is a check that never came to its call.
    """
    if expected is Expectation.NA:
        return Outcome.SKIP
    if any(
        phase.ending is Ending.ERROR or (phase.ending is Ending.ASSERTION and phase.when != "call")
        for phase in phases
    ):
        return Outcome.FAIL
    if any(phase.ending is Ending.SKIPPED for phase in phases):
        return Outcome.SKIP
    calls = [phase.ending for phase in phases if phase.when == "call"]
    if not calls:
        return Outcome.FAIL
    failed = Ending.ASSERTION in calls
    if expected is Expectation.KNOWN:
        return Outcome.KNOWN if failed else Outcome.FIXED
    return Outcome.FAIL if failed else Outcome.PASS


def unused(expect: Iterable[Expect], checks: Iterable[str]) -> tuple[str, ...]:
    """The globs of `expect` that match none of `checks`, of those that speak of one of their suites."""
    known = tuple(checks)
    suites = {check.partition("/")[0] for check in known}
    return tuple(
        entry.check
        for entry in expect
        if any(fnmatchcase(suite, entry.check.partition("/")[0]) for suite in suites)
        and not any(fnmatchcase(check, entry.check) for check in known)
    )


_compiled = functools.cache(compile_filter)
