"""The names of the checks, read without a guest."""

from __future__ import annotations

import re

import pytest

from dfbuild.errors import UsageError
from dfbuild.suites.names import FROM_GUESTS, names, suites_with
from dfbuild.suites.run import available


def test_every_suite_has_checks_and_every_check_one_name() -> None:
    assert {name.partition("/")[0] for name in names()} == set(available()) - set(FROM_GUESTS)
    assert len(set(names())) == len(names())
    assert "network/connect-storm" in names()


def test_a_glob_must_match_something() -> None:
    assert suites_with("security/*") == {"security"}
    assert suites_with("network/connect-storm") == {"network"}
    assert suites_with("regress/io-poll-1") == {"regress"}
    assert suites_with("*/cpu*") >= {"scheduler", "regress"}
    assert suites_with("*pipe*") >= {"scheduler", "sysperf", "regress"}
    assert suites_with("*kill*") == {"regress"}


@pytest.mark.parametrize(
    ("glob", "meant"),
    [
        ("scheduler/cpu-cuont", "scheduler/cpu-count"),
        ("security", "security/*"),
        ("securty", "security/*"),
        ("securty/*", "security/*"),
        ("securty/nx-*", "security/nx-*"),
        ("securty/nothing-of-that-name", "security/*"),
        ("regres/io-poll-1", "regress/io-poll-1"),
        ("cpu-count", "scheduler/cpu-count"),
    ],
)
def test_what_may_be_meant(glob: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"no check matches {re.escape(repr(glob))}") as caught:
        suites_with(glob)
    assert caught.value.hint == f"did you mean {meant!r}?"


@pytest.mark.parametrize(("glob", "where"), [("nosuch", "SUITE"), ("security/nothing-at-all-like-it", "security")])
def test_where_nothing_is_like_it_suites_are_named_and_how_to_list_their_checks(glob: str, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        suites_with(glob)
    assert caught.value.hint.startswith(f"the suites are {', '.join(available())}; ")
    assert f"dfbuild.suites.{where}`" in caught.value.hint and len(caught.value.hint) < 200
