"""Object trees that outlive a build: what make(1) sees of a changed tree, and when everything begins anew."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from dfbuild.build.dragonfly import objects
from dfbuild.build.dragonfly.data import Edit
from dfbuild.errors import BuildFailed, BuildKilled, Cancelled, InfraError
from dfbuild.source import Tree
from dfbuild.source.hashes import Hashes
from dfbuild.workspace import Workspace, write_among

EDIT = Edit(file="sys/a.c", find="old", put="new", reason="a test")


def tree(path: Path, **files: str) -> Tree:
    for name, text in files.items():
        file = path / "sys" / name.replace("_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Tree(path, "1.2", Hashes(path, path.parent / f"{path.name}.json"))


def contents(place: objects.Place) -> dict[str, str]:
    return {
        path.relative_to(place.source).as_posix(): path.read_text()
        for path in place.source.rglob("*")
        if path.is_file()
    }


def stamps(place: objects.Place) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in place.source.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path: Path) -> objects.Place:
    found = objects.Place(tmp_path / "place", old=True)
    for directory in (found.source, found.objects):
        directory.mkdir(parents=True)
    return found


def test_only_what_differs_is_written_again(tmp_path: Path, place: objects.Place) -> None:
    first = tree(tmp_path / "first", a_c="old", b_c="same", c_c="gone")
    assert objects.sync(place, first, ["sys"], [EDIT]).names == ("sys/a.c", "sys/b.c", "sys/c.c")
    assert contents(place) == {"sys/a.c": "new", "sys/b.c": "same", "sys/c.c": "gone"}
    before = stamps(place)
    # Another checkout, with whatever times.
    second = tree(tmp_path / "second", a_c="old", b_c="more", d_c="fresh")
    os.utime(second.path / "sys/b.c", (0, 0))
    assert objects.sync(place, second, ["sys"], [EDIT]).names == ("sys/b.c", "sys/c.c", "sys/d.c")
    after = stamps(place)
    assert contents(place) == {"sys/a.c": "new", "sys/b.c": "more", "sys/d.c": "fresh"}
    assert after["a.c"] == before["a.c"]
    assert after["b.c"] >= before["b.c"]
    assert objects.sync(place, second, ["sys"], [EDIT]).names == ()


def test_an_edit_that_changes_counts_as_a_change(tmp_path: Path, place: objects.Place) -> None:
    source = tree(tmp_path / "tree", a_c="old")
    objects.sync(place, source, ["sys"], [EDIT])
    other = EDIT.model_copy(update={"put": "other"})
    assert objects.sync(place, source, ["sys"], [other]).names == ("sys/a.c",)
    assert contents(place) == {"sys/a.c": "other"}
    assert objects.sync(place, source, ["sys"], []).names == ("sys/a.c",)
    assert contents(place) == {"sys/a.c": "old"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("#include <a.h>\nint one;\n", "#include <a.h>\nint two;\n", False),
        ("#include <a.h>\n", "#include <b.h>\n", True),
        ("int one;\n", "int one;\n  # include <b.h>\n", True),
        ("#define A \\\n <a.h>\n#include A\n", "#define A \\\n <b.h>\n#include A\n", True),
        ("#ifdef A\n#include <a.h>\n#endif\n", "#ifndef A\n#include <a.h>\n#endif\n", True),
    ],
)
def test_what_the_preprocessor_is_told(
    tmp_path: Path, place: objects.Place, old: str, new: str, expected: bool
) -> None:
    assert objects.sync(place, tree(tmp_path / "first", a_c=old), ["sys"], []).directives
    assert objects.sync(place, tree(tmp_path / "second", a_c=new), ["sys"], []).directives is expected
    assert not objects.sync(place, tree(tmp_path / "second", a_c=new), ["sys"], []).directives


def test_what_is_no_source_file_may_decide_about_dependencies(tmp_path: Path, place: objects.Place) -> None:
    objects.sync(place, tree(tmp_path / "first", a_c="int one;", Makefile="A=1"), ["sys"], [])
    assert objects.sync(place, tree(tmp_path / "second", a_c="int one;", Makefile="A=2"), ["sys"], []).directives
    assert objects.sync(place, tree(tmp_path / "third", Makefile="A=2"), ["sys"], []).directives


@pytest.mark.parametrize(
    ("change", "untold"),
    [
        ({"a_c": "int two;"}, False),
        ({"b_h": "int b2;"}, False),
        ({"c_c": "int more;"}, False),
        ({"Makefile": "A=2"}, True),
        ({"files": "a.c"}, True),
        ({"c_h": "int c;"}, True),
        ({"b_h": None}, True),
        ({"a_c": None}, False),
    ],
)
def test_what_objects_depend_on_without_make_knowing(
    tmp_path: Path, place: objects.Place, change: dict[str, str | None], untold: bool
) -> None:
    first: dict[str, str | None] = {"a_c": "int one;", "b_h": "int b;", "Makefile": "A=1"}
    for number, files in enumerate((first, first | change)):
        there = {name: text for name, text in files.items() if text is not None}
        made = objects.sync(place, tree(tmp_path / str(number), **there), ["sys"], [])
    assert made.untold is untold


def test_files_of_ours_are_among_the_trees(tmp_path: Path, place: objects.Place) -> None:
    source = tree(tmp_path / "tree", a_c="old")
    own = tmp_path / "own.c"
    own.write_text("first")
    added = {"sys/libkern/own.c": own}
    assert objects.sync(place, source, ["sys"], [], added).names == ("sys/a.c", "sys/libkern/own.c")
    assert contents(place) == {"sys/a.c": "old", "sys/libkern/own.c": "first"}
    own.write_text("second")
    assert objects.sync(place, source, ["sys"], [], added).names == ("sys/libkern/own.c",)
    assert objects.sync(place, source, ["sys"], []).names == ("sys/libkern/own.c",)
    assert contents(place) == {"sys/a.c": "old"}


def test_a_copy_that_was_cut_off_is_repaired(tmp_path: Path, place: objects.Place) -> None:
    first, second = tree(tmp_path / "first", a_c="one"), tree(tmp_path / "second", a_c="two")
    objects.sync(place, first, ["sys"], [])
    (second.path / "sys/b.c").symlink_to("nowhere")
    broken = EDIT.model_copy(update={"find": "three"})
    with pytest.raises(BuildFailed):
        objects.sync(place, second, ["sys"], [broken])
    (place.source / "sys/a.c").write_text("half of t")
    assert "sys/a.c" in objects.sync(place, first, ["sys"], []).names
    assert contents(place) == {"sys/a.c": "one"}


def test_a_directory_in_a_file_s_place(tmp_path: Path, place: objects.Place) -> None:
    objects.sync(place, tree(tmp_path / "first", a="file"), ["sys"], [])
    second = tree(tmp_path / "second", b="file")
    (second.path / "sys/a").mkdir()
    (second.path / "sys/a/x.c").write_text("inside")
    objects.sync(place, second, ["sys"], [])
    assert contents(place) == {"sys/b": "file", "sys/a/x.c": "inside"}
    objects.sync(place, tree(tmp_path / "third", a="file"), ["sys"], [])
    assert contents(place) == {"sys/a": "file"}


def test_make_builds_what_changed_within_a_second(tmp_path: Path, place: objects.Place) -> None:
    """make(1) of the day compares whole seconds."""
    objects.sync(place, tree(tmp_path / "first", a_c="one"), ["sys"], [])
    made = place.objects / "a.o"
    made.write_text("made of one")
    objects.sync(place, tree(tmp_path / "second", a_c="two"), ["sys"], [])
    assert int((place.source / "sys/a.c").stat().st_mtime) > int(made.stat().st_mtime)


def built(workspace: Workspace, name: str, error: Exception | None = None) -> tuple[objects.Place, list[str]]:
    """The place of a build that makes the file `name` and ends with `error`, and what was there before it."""
    with (
        contextlib.suppress(BuildFailed, Cancelled, InfraError, OSError),
        objects.place(workspace, "key", workspace.root / "other", print) as here,
    ):
        found = sorted(path.name for path in here.objects.iterdir())
        (here.objects / name).write_text("int half")
        if error is not None:
            raise error
    return here, found


def first_built(workspace: Workspace, error: Exception | None = None) -> None:
    """A build of some time ago: a clock tells those apart that were less than its tick ago."""
    here, _ = built(workspace, "first", error)
    os.utime(here.objects / "first", (1, 1))


@pytest.mark.parametrize("error", [None, BuildFailed("no", component="x")], ids=["finished", "failed"])
def test_a_build_that_came_to_its_end_is_gone_on_with(tmp_path: Path, error: Exception | None) -> None:
    workspace = Workspace(tmp_path)
    first_built(workspace, error)
    here, found = built(workspace, "second")
    assert found == ["first"] and here.old and not here.cut


@pytest.mark.parametrize(
    "error", [Cancelled("no"), BuildKilled("sh ended with status 137", component="kernel"), OSError("no")]
)
def test_of_one_that_was_cut_off_what_it_made_is_gone(tmp_path: Path, error: Exception) -> None:
    workspace = Workspace(tmp_path)
    first_built(workspace)
    built(workspace, "half", error)
    here, found = built(workspace, "again")
    assert found == ["first"] and here.old and here.cut
    here, found = built(workspace, "last")
    assert found == ["again", "first"] and not here.cut


def test_of_one_that_was_cut_off_while_it_compiled_what_is_whole_is_kept(tmp_path: Path) -> None:
    workspace, other = Workspace(tmp_path / "work"), tmp_path / "other"
    source = tmp_path / "a.c"
    source.write_text("int one = 1, none[1000]; int two(void) { return one; }")
    subprocess.run(["gcc", "-g", "-c", "-o", tmp_path / "a.o", source], check=True)
    made = (tmp_path / "a.o").read_bytes()
    pieces = {"whole.o": made, "half.o": made[: len(made) // 2], "last.o": made[:-1], "empty.o": b"", "opt.h": b"#"}
    with contextlib.suppress(Cancelled), objects.place(workspace, "key", other, print) as here:
        objects.sync(here, tree(tmp_path / "tree", a_c="one"), ["sys"], [])
        here.settle()
        for name, data in pieces.items():
            (here.objects / name).write_bytes(data)
        (here.objects / "link.o").symlink_to("whole.o")
        os.utime(here.path / "open", (1, 1))
        for path in here.objects.iterdir():
            os.utime(path, (2, 2), follow_symlinks=False)
        raise Cancelled("no")
    for again in (True, False):  # what was kept once is kept, though the next one comes to nothing
        with contextlib.suppress(Cancelled), objects.place(workspace, "key", other, print) as here:
            assert [path.name for path in here.objects.iterdir()] == ["whole.o"]
            assert here.old and here.cut is not again
            raise Cancelled("no")


def test_of_a_tree_that_changed_meanwhile_nothing_is_left(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first_built(workspace)
    built(workspace, "half", InfraError("changed"))
    here, found = built(workspace, "again")
    assert found == [] and not here.old and not here.cut


def test_what_was_copied_when_a_build_was_cut_off_is_copied_again(tmp_path: Path) -> None:
    workspace, other = Workspace(tmp_path / "work"), tmp_path / "other"
    first, second = tree(tmp_path / "first", a_c="one", b_h="b"), tree(tmp_path / "second", a_c="two", b_h="b")
    with objects.place(workspace, "key", other, print) as here:
        objects.sync(here, first, ["sys"], [])
        for name in ("a.c", "b.h"):
            os.utime(here.source / "sys" / name, (1, 1))
    with contextlib.suppress(Cancelled), objects.place(workspace, "key", other, print) as here:
        objects.sync(here, second, ["sys"], [])
        (here.source / "sys/a.c").write_text("of another moment")
        raise Cancelled("no")
    with objects.place(workspace, "key", other, print) as here:
        changed = objects.sync(here, second, ["sys"], [])
        assert changed.names == ("sys/a.c",) and not changed.untold
        assert contents(here) == {"sys/a.c": "two", "sys/b.h": "b"}


def test_two_builds_at_a_time_do_not_meet(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    said: list[str] = []
    with (
        objects.place(workspace, "key", tmp_path / "one", said.append) as first,
        objects.place(workspace, "key", tmp_path / "two", said.append) as second,
    ):
        assert first.path != second.path
        assert second.path == tmp_path / "two"
        assert second.objects.is_dir()
        assert not second.old
    assert len(said) == 1


def test_keys_tell_ways_of_building_apart() -> None:
    ways: list[dict[str, object]] = [{"flags": ["-O"]}, {"flags": ["-O2"]}, {"flags": ["-O"], "epoch": 1}]
    assert len({objects.key(way) for way in ways}) == 3
    assert objects.key({"a": 1, "b": 2}) == objects.key({"b": 2, "a": 1})


def test_a_file_among_what_a_build_made_is_written_through_none_of_its_links(tmp_path: Path) -> None:
    top, mine = tmp_path / "top", tmp_path / "mine"
    top.mkdir()
    mine.mkdir()
    (mine / "file").write_text("mine")
    (top / "file").symlink_to(mine / "file")
    write_among(top, top / "file", b"built")
    assert (top / "file").read_text() == "built" and not (top / "file").is_symlink()
    (top / "root").symlink_to(mine)
    for path in (top / "root/file", top / "root/deeper/file", top / "../mine/file"):
        with pytest.raises(InfraError, match="leads out of"):
            write_among(top, path, b"built")
    assert [path.name for path in mine.iterdir()] == ["file"] and (mine / "file").read_text() == "mine"
    write_among(top, top / "new/deeper/file", b"built")
    assert (top / "new/deeper/file").read_text() == "built"
