"""The source tree that a command line names, and the words that name it again."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from dfbuild.cli import main, source
from dfbuild.cli.parser import build
from dfbuild.deadline import Deadline
from dfbuild.errors import UsageError
from dfbuild.workspace import Workspace

PATCH = "--- a/bin/one\n+++ b/bin/one\n@@ -1 +1 @@\n-1\n+2\n"


def parse(*words: str) -> argparse.Namespace:
    return build().parse_args(["matrix", "file.toml", *words])


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "sys/sys").mkdir(parents=True)
    (tree / "sys/sys/param.h").write_text("#define __DragonFly_version 120006\n")
    (tree / "bin").mkdir()
    (tree / "bin/one").write_text("1\n")
    return tree


def test_patches_of_the_command_line_are_applied(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "fix.patch").write_text(PATCH)
    workspace, deadline = Workspace(tmp_path / "work"), Deadline.after(60)
    plain = source.tree(parse("--src", str(checkout)), workspace, deadline)
    assert plain.path == checkout
    arguments = parse("--src", str(checkout), "--patch", str(tmp_path / "fix.patch"))
    assert (source.tree(arguments, workspace, deadline).path / "bin/one").read_text() == "2\n"
    assert (checkout / "bin/one").read_text() == "1\n"
    with pytest.raises(UsageError, match="does not apply") as caught:
        source.tree(
            parse("--src", str(checkout), *["--patch", str(tmp_path / "fix.patch")] * 2), workspace, deadline
        )
    assert "has the change already" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        (PATCH.replace("-1", "-7"), "another one than it was made for"),
        (PATCH.replace("\n", "\r\n"), "or their ends"),
        (PATCH.replace("a/bin", "bin").replace("b/bin", "bin"), "one directory more"),
        ("I am no patch\n", "it is no patch"),
    ],
)
def test_a_patch_that_does_not_fit_is_told_why(text: str, cure: str, checkout: Path, tmp_path: Path) -> None:
    patch = tmp_path / "odd.patch"
    patch.write_bytes(text.encode())
    with pytest.raises(UsageError, match="does not apply") as caught:
        source.tree(
            parse("--src", str(checkout), "--patch", str(patch)), Workspace(tmp_path / "work"), Deadline.after(60)
        )
    assert cure in caught.value.hint


@pytest.mark.parametrize("words", [["matrix", "x.toml", "--dry-run"], ["toolchain", "gcc34"]])
@pytest.mark.parametrize("by_variable", [False, True])
def test_nothing_is_made_in_the_tree(
    words: list[str],
    by_variable: bool,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DFBUILD_SRC", str(checkout) if by_variable else "")
    before = sorted(checkout.rglob("*"))
    named = [] if by_variable else ["--src", str(checkout)]
    for work in (checkout / "work", checkout / "bin/../new/work", checkout):
        assert main([*words, *named, "--work", str(work)]) == 2
        assert f"lies in the tree {checkout}" in capsys.readouterr().err
    assert sorted(checkout.rglob("*")) == before


def test_a_line_that_repeats_names_the_same_tree_anywhere(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DFBUILD_SRC", raising=False)
    monkeypatch.chdir(tmp_path)
    assert list(source.options(parse())) == []
    given = parse("--src", "tree", "--rev", "main", "--patch", "a.patch", "--patch", "b.patch")
    words = list(source.options(given))
    assert words == [
        "--src", str(checkout), "--rev", "main",
        "--patch", str(tmp_path / "a.patch"), "--patch", str(tmp_path / "b.patch"),
    ]  # fmt: skip
    again = parse(*words)
    assert (again.rev, again.patch) == (given.rev, given.patch)
    monkeypatch.setenv("DFBUILD_SRC", str(checkout))
    assert list(source.options(parse())) == ["--src", str(checkout)]
