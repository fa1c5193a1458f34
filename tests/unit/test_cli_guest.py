"""What `dfbuild guest` says before anything is built or booted."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfbuild.cli.guest import up
from dfbuild.cli.parser import build
from dfbuild.errors import UsageError

CONFIG = Path(__file__).parents[2] / "configs" / "reference.toml"


def test_a_guest_of_a_cell_that_is_not_there(tmp_path: Path) -> None:
    words = ["guest", "up", str(CONFIG), "--cell", "reference/gcc-12+ssp/smp @ smp3", "--work", str(tmp_path)]
    with pytest.raises(UsageError, match=r"no cell 'reference/gcc-12\+ssp/smp @ smp3'") as caught:
        up(build().parse_args(words))
    assert "did you mean 'reference/gcc-12+ssp/smp @ smp" in caught.value.hint


def test_a_name_that_cannot_be_is_told_before_anything_is_built(tmp_path: Path) -> None:
    words = ["guest", "up", str(CONFIG), "--cell", "reference/gcc-12+ssp/smp @ up", "--work", str(tmp_path)]
    with pytest.raises(UsageError, match="'a/b' can't be a guest's name"):
        up(build().parse_args([*words, "--name", "a/b"]))
    assert not (tmp_path / "artefacts").exists()
