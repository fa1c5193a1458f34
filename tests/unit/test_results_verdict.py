"""Judgement: checks ▸ verdict, verdicts ▸ exit status, and the line that repeats a failure."""

from __future__ import annotations

import doctest
import fnmatch
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.cli.parser import build
from dfbuild.model import CheckResult, Outcome, Verdict
from dfbuild.results import directory, repeat, statistics
from dfbuild.results.directory import cell_directory, slug
from dfbuild.results.repeat import repeat_line, repeat_words
from dfbuild.results.verdict import REGRESSIONS, cell_title, cell_verdict, verdicts_status
from dfbuild.workspace import Workspace


def checks(*outcomes: Outcome, suite: str = "security") -> list[CheckResult]:
    return [CheckResult(f"{suite}/{number}", outcome) for number, outcome in enumerate(outcomes)]


FINE = (Outcome.PASS, Outcome.KNOWN, Outcome.FIXED, Outcome.SKIP)


@given(st.lists(st.sampled_from(FINE), min_size=1))
def test_only_a_failure_makes_a_cell_fail(outcomes: list[Outcome]) -> None:
    said = set(outcomes) - {Outcome.SKIP}
    assert cell_verdict(["security"], checks(*outcomes)) is (Verdict.PASS if said else Verdict.SKIP)
    assert bool(cell_title(["security"], checks(*outcomes))) is not bool(said)
    assert cell_verdict(["security"], checks(*outcomes, Outcome.FAIL)) is Verdict.TEST_FAIL


def test_a_cell_that_skipped_everything_says_why() -> None:
    ran = [replace(check, reason="there is no compiler in the guest") for check in checks(*[Outcome.SKIP] * 2)]
    assert cell_verdict(["security"], ran) is Verdict.SKIP
    assert cell_title(["security"], ran) == "skipped: there is no compiler in the guest"


def test_a_suite_that_said_nothing_is_no_pass() -> None:
    ran = checks(Outcome.PASS)
    assert cell_verdict(["security", "network"], ran) is Verdict.INFRA
    assert cell_title(["security", "network"], ran) == "no check ended of network"
    assert cell_verdict(["security"], []) is Verdict.INFRA
    assert cell_verdict([], []) is Verdict.PASS


def test_a_failure_weighs_more_than_a_silent_suite() -> None:
    ran = checks(*[Outcome.FAIL] * 5)
    assert cell_verdict(["security", "network"], ran) is Verdict.TEST_FAIL
    assert cell_title(["security", "network"], ran) == (
        "security/0, security/1, security/2 and 2 more; no check ended of network"
    )


def test_a_pattern_narrows_what_was_promised() -> None:
    suites = ["security", "network"]
    assert cell_verdict(suites, checks(Outcome.PASS), check="security/*") is Verdict.PASS
    assert cell_verdict(suites, [], check="security/*") is Verdict.INFRA


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ([Verdict.PASS, Verdict.SKIP], 0),
        ([Verdict.PASS, Verdict.TEST_FAIL], 1),
        ([Verdict.PASS, Verdict.INFRA], 3),
        ([Verdict.PASS, None], 3),
        ([Verdict.INFRA, Verdict.PANIC, None], 1),
        ([], 3),
    ],
)
def test_exit_status(verdicts: list[Verdict | None], status: int) -> None:
    assert verdicts_status(verdicts) == status


@given(st.lists(st.sampled_from([*Verdict, None]), min_size=1))
def test_exit_status_takes_every_verdict_into_account(verdicts: list[Verdict | None]) -> None:
    status = verdicts_status(verdicts)
    assert (status == 1) == any(verdict in REGRESSIONS for verdict in verdicts)
    assert (status == 0) == all(verdict in (Verdict.PASS, Verdict.SKIP) for verdict in verdicts)


WORD = st.text(min_size=1).filter(lambda text: "\0" not in text)


@given(config=WORD, cell=WORD, check=st.text(), options=st.lists(WORD))
def test_a_shell_reads_the_repeat_line_as_it_was_meant(
    config: str, cell: str, check: str, options: list[str]
) -> None:
    line = repeat_line(config, cell, check=check, options=options)
    assert tuple(shlex.split(line)) == repeat_words(config, cell, check=check, options=options)


@given(config=WORD, cell=WORD, check=st.text())
def test_dfbuild_understands_the_repeat_line(config: str, cell: str, check: str) -> None:
    words = repeat_words(config, cell, check=check, options=("--via", "serial"))
    parsed = build().parse_args(words[1:])
    assert parsed.config in (config, f"./{config}") and parsed.cell == [cell] and parsed.via == "serial"
    assert not check or fnmatch.fnmatchcase(check, parsed.check)


@pytest.mark.parametrize("check", ["network/rst[in]", "a/every*", "a/what?", "[!x]/y"])
def test_a_check_is_repeated_alone_though_its_name_looks_like_a_pattern(check: str) -> None:
    pattern = build().parse_args(repeat_words("c", "cell", check=check)[1:]).check
    assert fnmatch.fnmatchcase(check, pattern)
    other = check.translate(str.maketrans({"*": "xx", "?": "x", "[": "", "]": "", "!": "z"}))
    assert not fnmatch.fnmatchcase(other, pattern)


@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_a_slug_is_a_safe_file_name(text: str) -> None:
    name = slug(text)
    assert len(name.encode()) <= 80 and name.isascii() and name[0] not in ".-" and "/" not in name
    assert all(character.isalnum() or character in "._+-" for character in name)


@given(st.lists(st.text(max_size=30), unique=True, max_size=30))
def test_slugs_do_not_meet_even_where_case_does_not_count(texts: list[str]) -> None:
    assert len({slug(text).lower() for text in texts}) == len(texts)


def test_every_attempt_has_its_own_directory(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first, second = (cell_directory(workspace, "run", "a/b @ up", number) for number in (1, 2))
    assert first == tmp_path / "runs" / "run" / slug("a/b @ up") and first != second
    assert first.parent == second.parent


@pytest.mark.parametrize("module", [directory, repeat, statistics])
def test_examples_in_docstrings(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
