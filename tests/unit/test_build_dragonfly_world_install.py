"""What an installation by nobody in particular says of owners, modes and flags."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.build.dragonfly import archives, metalog, worldkit
from dfbuild.errors import BuildFailed
from dfbuild.image.manifest import Names, parse_log

BIN = worldkit.OWN / "bin"
NAMES = Names({"root": 0, "man": 9}, {"wheel": 0, "games": 13})


def run(program: str, *words: str | Path, cwd: Path, log: Path | None = None) -> None:
    environment = {**os.environ, **({"METALOG": str(log)} if log else {})}
    subprocess.run(["sh", BIN / program, *words], cwd=cwd, env=environment, check=True)


def kept(log: Path, root: Path) -> dict[str, dict[str, str | int]]:
    """What the image learns of `root` by the log."""
    tree = metalog.survey(root)
    return parse_log(metalog.log(metalog.merge(metalog.parse(log.read_text(), str(root)), tree)), NAMES)


def test_install_keeps_what_only_root_could_set(tmp_path: Path) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    (root / "bin").mkdir(parents=True)
    for name in ("su", "cat"):
        (tmp_path / name).write_text(name)
    run(
        "install",
        "-c",
        "-o",
        "root",
        "-g",
        "wheel",
        "-m",
        "4555",
        "-f",
        "schg",
        "su",
        root / "bin",
        cwd=tmp_path,
        log=log,
    )
    run("install", "-C", "-o", "man", "-g", "games", "-m", "111", "cat", root / "bin/more", cwd=tmp_path, log=log)
    run("install", "-d", "-m", "110", "-g", "games", "games", cwd=root, log=log)
    assert kept(log, root) == {
        "bin/su": {"type": "file", "uid": 0, "gid": 0, "mode": 0o4555, "flags": "schg"},
        "bin/more": {"type": "file", "uid": 9, "gid": 13, "mode": 0o111},
        "games": {"type": "dir", "gid": 13, "mode": 0o110},
    }
    assert (root / "bin/more").read_text() == "cat"
    assert os.access(root / "games", os.W_OK)


def test_several_files_go_into_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    log = tmp_path / "log"
    run("install", "-m", "a=r", "one", "two", "a", cwd=tmp_path, log=log)
    run("chmod", "u+s", "a/one", cwd=tmp_path, log=log)
    assert {path: words["mode"] for path, words in kept(log, tmp_path).items()} == {"a/one": 0o4644, "a/two": 0o444}


def test_a_failed_copy_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run("install", "-m", "444", "nothing", tmp_path / "x", cwd=tmp_path, log=tmp_path / "log")
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("-h", "man:games"), {"uid": 9, "gid": 13}),
        (("man.games",), {"uid": 9, "gid": 13}),
        (("man",), {"uid": 9}),
    ],
)
def test_owners_are_kept(words: tuple[str, ...], expected: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run("chown", *words, "file", cwd=tmp_path, log=tmp_path / "log")
    assert kept(tmp_path / "log", tmp_path)["file"] == {"type": "file", **expected}
    run("chown", *words, "file", cwd=tmp_path)


def test_dd_pads_its_last_block(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 700)
    run("dd", "if=in", "of=out", "obs=512", "conv=osync", "status=none", cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == b"x" * 700 + bytes(324)
    run("dd", "if=in", "of=out", "obs=512", "status=none", cwd=tmp_path)
    assert (tmp_path / "out").stat().st_size == 700


# ── the log ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_later_words_win_and_what_is_gone_is_forgotten() -> None:
    entries = metalog.parse(
        "mode=0555 uname=root gname=wheel /d/bin/a\nflags=schg /d//bin/a\n"
        "mode=0444 /d/gone\nmode=4555 /d/./bin/a\n",
        "/d",
    )
    tree = metalog.Tree({".": "dir", "bin": "dir", "bin/a": "file"}, {})
    assert metalog.merge(entries, tree) == {
        "bin/a": {"type": "file", "mode": "4555", "uname": "root", "gname": "wheel", "flags": "schg"}
    }


@pytest.mark.parametrize(
    ("lines", "flags"),
    [
        ("mode=0555 flags=schg /d/e\nflags=xlink /d/e\n", "schg,xlink"),
        ("flags=xlink /d/e\nflags=xlink /d/e\n", "xlink"),
        ("flags=schg /d/e\nflags=none /d/e\nflags=xlink /d/e\n", "xlink"),
        ("flags=xlink /d/e\nmode=0555 flags=schg /d/e\n", "schg"),
    ],
)
def test_chflags_adds_to_what_a_file_has(lines: str, flags: str) -> None:
    merged = metalog.merge(metalog.parse(lines, "/d"), metalog.Tree({"e": "dir"}, {}))
    assert merged["e"]["flags"] == flags


def test_a_path_through_links_means_the_file_there() -> None:
    links = {"share/man/en/man1": "../man1", "sys": "usr/src/sys", "abs": "/share", "share/last": "man"}
    assert metalog.resolve("share/man/en/man1/ls.1", links) == "share/man/man1/ls.1"
    assert metalog.resolve("abs/man", links) == "share/man"
    assert metalog.resolve("share/last", links) == "share/last"
    assert metalog.resolve("../../etc", links) == "etc"
    with pytest.raises(BuildFailed, match="circle"):
        metalog.resolve("a/b/c", {"a": "a"})


@pytest.mark.parametrize(
    "line", ["mode=1", "/d/x", "mode /d/x", "mode=1 /elsewhere", "mode=1 /d/../x", "mode=1 /dd"]
)
def test_senseless_lines_are_refused(line: str) -> None:
    with pytest.raises(BuildFailed):
        metalog.parse(line, "/d")


@given(
    st.lists(
        st.text(st.characters(codec="latin-1", exclude_characters="/\n\0"), min_size=1), min_size=1, max_size=3
    )
)
def test_any_name_comes_back(parts: list[str]) -> None:
    if any(part in (".", "..") for part in parts):
        return
    path = "/".join(parts)
    text = metalog.log({path: {"type": "file", "mode": "0444"}})
    assert parse_log(text, NAMES) == {path: {"type": "file", "mode": 0o444}}


# ── archives ──────────────────────────────────────────────────────────────────────────────────────────────────────


def archive(*members: tuple[str, int, bytes]) -> bytes:
    made = b"!<arch>\n"
    for name, date, content in members:
        made += b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (name.encode(), date, 1000, 100, 0o100600, len(content))
        made += content + b"\n" * (len(content) % 2)
    return made


def test_archives_differ_in_nothing_but_their_members() -> None:
    first, second = (archive(("a.o/", date, b"abc"), ("b.o/", date, b"wxyz")) for date in (1, 1132805000))
    assert archives.undated(first, 7) == archives.undated(second, 7) != first
    assert b"abc" in archives.undated(first, 7)
    assert archives.undated(archives.undated(first, 7), 7) == archives.undated(first, 7)


def test_what_has_no_date_keeps_none() -> None:
    names = b"!<arch>\n" + b"//".ljust(48) + b"%-10d`\n" % 4 + b"a/\n\n"
    assert archives.undated(names, 7) == names


@pytest.mark.parametrize("content", [b"", b"!<thin>\n", b"!<arch>\nshort", b"!<arch>\n" + b"x" * 60])
def test_damaged_archives_are_refused(content: bytes) -> None:
    with pytest.raises(BuildFailed):
        archives.undated(content, 7)


@pytest.mark.parametrize("size", [b"-60", b"abc", b"", b"1 2"])
def test_members_of_no_size_are_refused(size: bytes) -> None:
    """One of a negative size would come before itself, again and again."""
    with pytest.raises(BuildFailed, match="damaged"):
        archives.undated(b"!<arch>\n" + b"a.o/".ljust(48) + size.ljust(10) + b"`\n" + bytes(60), 7)


def test_all_archives_of_a_tree(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/libx.a").write_bytes(archive(("a.o/", 1, b"ab")))
    (tmp_path / "usr/liby.a").symlink_to("libx.a")
    (tmp_path / "usr/notes.a").write_text("no archive")
    assert archives.undate(tmp_path, 5) == 2
    assert (tmp_path / "usr/libx.a").read_bytes() == archives.undated(archive(("a.o/", 9, b"ab")), 5)
    assert (tmp_path / "usr/notes.a").read_text() == "no archive"


def test_what_is_installed_already_stays_as_old_as_it_is(tmp_path: Path) -> None:
    """For `-C`: whatever was compiled with a header that is written again would be compiled again."""
    root, log = tmp_path / "root", tmp_path / "log"
    root.mkdir()
    for name in ("a.h", "b.h"):
        (tmp_path / name).write_text(name)
    words = ["-C", "-m", "444", "a.h", "b.h"]
    run("install", *words, root, cwd=tmp_path)
    os.utime(root / "a.h", (1, 1))
    run("install", *words, root, cwd=tmp_path, log=log)
    assert (root / "a.h").stat().st_mtime == 1
    assert {name: told["mode"] for name, told in kept(log, root).items()} == {"a.h": 0o444, "b.h": 0o444}
    (tmp_path / "b.h").write_text("other")
    run("install", *words, root, cwd=tmp_path)
    assert (root / "b.h").read_text() == "other"


def test_cpdup_writes_what_differs(tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    source.mkdir()
    (source / "a.h").write_text("a")
    cpdup = worldkit.OWN / "x86_64/bin/cpdup"
    for _ in range(2):
        subprocess.run(["sh", cpdup, "-o", source, target], check=True)
    assert (target / "a.h").read_text() == "a"
    assert (target / "a.h").stat().st_mtime_ns == (source / "a.h").stat().st_mtime_ns


def test_links_into_the_object_tree_are_told() -> None:
    """Seen: libc.so led there, and nothing could be linked in the guest."""
    links = {
        "usr/lib/libc.so": "/usr/obj/world/lib/libc.so.8",
        "sys": "usr/src/sys",
        "usr/lib/b.so": "/usr/objects",
    }
    tree = metalog.Tree(dict.fromkeys(links, "link"), links)
    with pytest.raises(BuildFailed, match=r"1 links lead into .* usr/lib/libc.so to /usr/obj/world/lib/libc.so.8"):
        metalog.settled(tree, "/usr/obj")
    metalog.settled(tree, "/elsewhere")
