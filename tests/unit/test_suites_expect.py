"""What is expected of a check, and what its phases make of that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.model import Cell, Expectation, Outcome, Shape, Variant
from dfbuild.releases import load
from dfbuild.releases.schema import Expect
from dfbuild.suites.expect import Ending, Phase, expectation, judge, unused

PASSED, ASSERTION, ERROR, SKIPPED = Ending.PASSED, Ending.ASSERTION, Ending.ERROR, Ending.SKIPPED
RELEASE = load("reference")


def cell(**shape: object) -> Cell:
    return Cell(Variant("reference", "gcc-12", "on", "smp"), Shape("any", **shape))


def phases(setup: Ending, call: Ending | None = None, teardown: Ending = PASSED) -> list[Phase]:
    """As pytest runs them: no call after a setup that did not pass."""
    calls = [] if call is None else [Phase("call", call)]
    return [Phase("setup", setup), *calls, Phase("teardown", teardown)]


@pytest.mark.parametrize(
    ("expected", "seen", "outcome"),
    [
        (Expectation.PASS, phases(PASSED, PASSED), Outcome.PASS),
        (Expectation.PASS, phases(PASSED, ASSERTION), Outcome.FAIL),
        (Expectation.PASS, phases(PASSED, ERROR), Outcome.FAIL),
        (Expectation.PASS, phases(PASSED, SKIPPED), Outcome.SKIP),
        (Expectation.PASS, phases(SKIPPED), Outcome.SKIP),
        (Expectation.KNOWN, phases(PASSED, ASSERTION), Outcome.KNOWN),
        (Expectation.KNOWN, phases(PASSED, PASSED), Outcome.FIXED),
        (Expectation.KNOWN, phases(PASSED, ERROR), Outcome.FAIL),
        (Expectation.KNOWN, phases(ASSERTION), Outcome.FAIL),
        (Expectation.KNOWN, phases(PASSED, ASSERTION, teardown=ERROR), Outcome.FAIL),
        (Expectation.KNOWN, phases(PASSED, PASSED, teardown=ASSERTION), Outcome.FAIL),
        (Expectation.NA, phases(SKIPPED), Outcome.SKIP),
        (Expectation.PASS, [], Outcome.FAIL),
    ],
)
def test_judge(expected: Expectation, seen: list[Phase], outcome: Outcome) -> None:
    assert judge(expected, seen) is outcome


any_phases = st.lists(st.builds(Phase, st.sampled_from(["setup", "call", "teardown"]), st.sampled_from(Ending)))


@given(st.sampled_from([Expectation.PASS, Expectation.KNOWN]), any_phases)
def test_an_error_is_never_hidden(expected: Expectation, seen: list[Phase]) -> None:
    assert judge(expected, [*seen, Phase("call", ERROR)]) is Outcome.FAIL


@given(any_phases)
def test_known_and_fixed_need_a_call_that_ended(seen: list[Phase]) -> None:
    outcome = judge(Expectation.KNOWN, seen)
    calls = {phase.ending for phase in seen if phase.when == "call"}
    if outcome is Outcome.KNOWN:
        assert ASSERTION in calls
    if outcome is Outcome.FIXED:
        assert calls == {PASSED}


@given(any_phases)
def test_known_differs_from_pass_only_in_its_words(seen: list[Phase]) -> None:
    words = {Outcome.PASS: Outcome.FIXED, Outcome.SKIP: Outcome.SKIP}
    plain, known = judge(Expectation.PASS, seen), judge(Expectation.KNOWN, seen)
    assert known is words.get(plain, known)
    assert (plain is Outcome.FAIL) == (known in (Outcome.FAIL, Outcome.KNOWN))


def release(*entries: Expect):  # type: ignore[no-untyped-def]
    return RELEASE.model_copy(update={"expect": entries})


def test_without_an_entry_a_check_has_to_pass() -> None:
    assert expectation(release(), "security/nx-stack", cell()) == (Expectation.PASS, "")


def test_the_last_entry_that_applies_wins() -> None:
    entries = (
        Expect(check="security/*", outcome=Expectation.NA, reason="old"),
        Expect(check="security/nx-*", outcome=Expectation.KNOWN, when="nx=off", reason="no bit"),
        Expect(check="network/*", outcome=Expectation.NA, reason="other suite"),
    )
    data = release(*entries)
    assert expectation(data, "security/nx-stack", cell(nx=False)) == (Expectation.KNOWN, "no bit")
    assert expectation(data, "security/nx-stack", cell(nx=True)) == (Expectation.NA, "old")
    assert expectation(data, "scheduler/nap", cell()) == (Expectation.PASS, "")


def test_globs_that_match_no_check_are_found() -> None:
    entries = [
        Expect(check=check, outcome=Expectation.KNOWN)
        for check in ("security/nx-*", "security/nx_stack", "network/*", "*/gone", "security/nx-heap")
    ]
    assert unused(entries, ["security/nx-stack", "security/nx-heap"]) == ("security/nx_stack", "*/gone")


@pytest.mark.parametrize(
    ("check", "where", "expected"),
    [
        ("security/nx-stack", cell(nx=False), Expectation.KNOWN),
        ("security/nx-stack", cell(), Expectation.PASS),
        ("security/exec-rwx", cell(nx=False), Expectation.PASS),
        ("scheduler/placement", cell(), Expectation.NA),
        ("scheduler/placement", cell(threads=2), Expectation.PASS),
        ("security/pid-random", cell(), Expectation.KNOWN),
    ],
)
def test_the_reference_release(check: str, where: Cell, expected: Expectation) -> None:
    outcome, reason = expectation(RELEASE, check, where)
    assert outcome is expected
    assert bool(reason) == (expected is not Expectation.PASS)
