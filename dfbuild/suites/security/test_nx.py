"""Memory that is not meant to be executed is not."""

from __future__ import annotations

import pytest

from dfbuild.suites.probe import Report


@pytest.mark.parametrize("where", ["stack", "heap", "data", "mmap", "readonly", "file"])
def test_nx(where: str, nx: Report) -> None:
    """A function copied there faults at its first instruction."""
    seen = nx.one_of(where, "blocked", "ran")
    assert seen == "blocked", f"code on {where} memory runs"


@pytest.mark.parametrize("how", ["executable", "rwx"])
def test_exec(how: str, nx: Report) -> None:
    """The control: the same function runs where memory was asked to be executable."""
    seen = nx.one_of(how, "blocked", "ran")
    assert seen == "ran", f"code in {how} memory does not run"
