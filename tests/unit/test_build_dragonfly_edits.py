"""Edits: made exactly, on copies, or refused with their reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild import releases
from dfbuild.build.dragonfly import data, edits
from dfbuild.build.dragonfly.data import Edit
from dfbuild.errors import BuildFailed


def edit(file: str = "sys/main.c", find: str = "old", put: str = "new", regex: bool = False) -> Edit:
    return Edit(file=file, find=find, put=put, reason="it has to be", regex=regex)


def test_literal_edits_are_literal() -> None:
    assert edits.apply("a.*b a.*b", edit(find="a.*b", put="\\1$")) == "\\1$ \\1$"


def test_regular_expressions_work_at_lines() -> None:
    assert edits.apply("one\n  two\n", edit(find=r"^\s+(\w+)$", put=r"\1!", regex=True)) == "one\ntwo!\n"


@pytest.mark.parametrize("regex", [False, True])
def test_an_edit_that_finds_nothing_says_why_it_is_needed(regex: bool) -> None:
    with pytest.raises(BuildFailed, match="it has to be") as caught:
        edits.apply("something else", edit(regex=regex))
    assert caught.value.component == "sys/main.c"


@given(before=st.text(), after=st.text(), find=st.text(min_size=1), put=st.text())
def test_only_what_is_found_changes(before: str, after: str, find: str, put: str) -> None:
    text = before + find + after
    changed = edits.apply(text, edit(find=find, put=put))
    assert changed == put.join(text.split(find))


def test_which_edits_concern_which_parts() -> None:
    some = [edit("bin/ls/ls.c"), edit("bin/lsx/ls.c"), edit("Makefile")]
    assert edits.within(some, ["bin/ls"]) == (some[0],)
    assert edits.within(some, ["bin", "Makefile"]) == tuple(some)
    assert edits.within(some, ["Makefile", "bin/ls/ls.c"]) == (some[0], some[2])
    assert edits.within(some, []) == ()


def test_copies_are_edited_and_the_tree_is_not(tmp_path: Path) -> None:
    tree, copies = tmp_path / "tree", tmp_path / "copies"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "run").write_bytes(b"old \xe9\xff old\r\n")
    (tree / "bin" / "run").chmod(0o755)
    both = [edit("bin/run"), edit("bin/run", find="\r\n", put="\n")]
    (mount,) = edits.overlays(both, tree, copies)
    assert mount.inside == Path("/usr/src/bin/run")
    assert not mount.writable
    assert mount.outside is not None
    assert mount.outside.read_bytes() == b"new \xe9\xff new\n"
    assert mount.outside.stat().st_mode & 0o777 == 0o755
    assert (tree / "bin" / "run").read_bytes() == b"old \xe9\xff old\r\n"


BUILT = [name for name in releases.available() if releases.load(name).target == "dragonfly"]


@pytest.mark.parametrize("name", BUILT)
def test_what_releases_say_of_their_build_is_sound(name: str) -> None:
    release = releases.load(name)
    build = data.of(release)
    assert release.source is not None
    assert set(build.compilers) == set(release.toolchains)
    for compiler in build.compilers.values():
        assert compiler.binutils in build.binutils
    for change in build.edits:
        assert change.reason
        assert change.find != change.put
        assert len(change.find) <= 80, "a token, not a passage"
        assert "\n" not in change.find
