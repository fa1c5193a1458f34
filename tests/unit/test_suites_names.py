"""The names of the checks, read without a guest."""

from __future__ import annotations

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
    with pytest.raises(UsageError, match="no check matches 'scheduler/cpu-cuont'") as caught:
        suites_with("scheduler/cpu-cuont")
    assert caught.value.hint == "did you mean 'scheduler/cpu-count'?"
