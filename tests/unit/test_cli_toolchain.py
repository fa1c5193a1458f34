"""`dfbuild toolchain`: what is made already is found at once, and mistakes are named with their cure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dfbuild.build.dragonfly import toolchain
from dfbuild.build.recipe import Kitchen, Recipe
from dfbuild.cli import main
from dfbuild.errors import BuildFailed
from dfbuild.model import StepKind
from dfbuild.releases import Release
from dfbuild.source import Tree


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "tree" / "sys" / "sys" / "param.h"
    path.parent.mkdir(parents=True)
    path.write_text("#define __DragonFly_version 120006\n")
    return tmp_path / "tree"


def replace(monkeypatch: pytest.MonkeyPatch, failing: bool = False) -> list[str]:
    """Let toolchains be a file; returns what was made."""
    made: list[str] = []

    def recipe(release: Release, tree: Tree, name: str) -> Recipe:
        def make(kitchen: Kitchen) -> Mapping[str, Any]:
            made.append(f"{release.name} {name}")
            if failing:
                raise BuildFailed(
                    "cc ended with status 1", component="cc", log=kitchen.log, tail="the last \x1b]52;c;line\x07"
                )
            (kitchen.directory / "cc").write_text(name)
            return {"version": "3.4.3"}

        return Recipe(StepKind.TOOLCHAIN, name, {}, make)

    monkeypatch.setattr(toolchain, "recipe", recipe)
    return made


def test_the_prefix_is_all_that_goes_to_standard_output(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = replace(monkeypatch)
    words = ["toolchain", "gcc34", "--src", str(source), "--work", str(tmp_path / "work")]
    assert main(words) == 0
    prefix = capsys.readouterr().out
    assert (Path(prefix.rstrip("\n")) / "cc").read_text() == "gcc34"
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["prefix"] == prefix.rstrip("\n")
    assert (report["release"], report["name"], report["facts"]) == ("1.2", "gcc34", {"version": "3.4.3"})
    assert made == ["1.2 gcc34"]


def test_a_failure_shows_its_last_lines(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(monkeypatch, failing=True)
    assert main(["toolchain", "gcc2", "--src", str(source), "--work", str(tmp_path / "work")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "the last \\x1b]52;c;line\\x07\n" in said.err, "nothing that a compiler says reaches the terminal raw"
    assert "step.log" in said.err


@pytest.mark.parametrize("words", [["gcc3"], ["gcc34", "--release", "none"], ["gcc34", "--rev", "none"]])
def test_mistakes_are_the_users(
    source: Path, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["toolchain", *words, "--src", str(source), "--work", str(tmp_path / "work")]) == 2
    assert "hint: " in capsys.readouterr().err
