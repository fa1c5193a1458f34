"""How a cell's suites get into its guest."""

from __future__ import annotations

import pytest

from dfbuild.matrix.cell import way
from dfbuild.releases.schema import SshShell

OLD = SshShell(kex_algorithms=("diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1"))
ANCIENT = SshShell(kex_algorithms=("none-of-ours",), ciphers=("aes128-ctr", "blowfish-cbc"))


@pytest.mark.parametrize("asked", ["ssh", "serial"])
def test_as_asked_where_it_can_be(asked: str) -> None:
    assert way(asked, OLD, answers=True) == (asked, "")


def test_over_the_console_where_nobody_answers() -> None:
    via, why = way("ssh", OLD, answers=False)
    assert via == "serial" and "no SSH server" in why


def test_over_the_console_where_we_have_no_language_in_common() -> None:
    via, why = way("ssh", ANCIENT, answers=True)
    assert via == "serial" and why.endswith("does not speak none-of-ours")


def test_a_release_without_ssh_is_not_asked_for_it_silently() -> None:
    assert way("ssh", None, answers=False) == ("ssh", "")
