"""The kit's own programs do as BSD's do, as far as makefiles ask them to."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dfbuild.build.dragonfly.hostkit import OWN


def run(tmp_path: Path, program: str, *words: str, text: str | None = None, status: int = 0) -> str:
    done = subprocess.run([OWN / "bin" / program, *words], cwd=tmp_path, input=text, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done.stdout


def test_every_program_can_be_run_and_says_what_it_is() -> None:
    for path in (OWN / "bin").iterdir():
        assert path.stat().st_mode & 0o111, path
        text = path.read_text()
        assert text.startswith("#!/"), path
        assert len(text.splitlines()) > 2, path


def test_install_drops_what_only_root_may(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    run(tmp_path, "install", "-d", "-o", "root", "-g", "wheel", "dir")
    run(tmp_path, "install", "-c", "-s", "-o", "root", "-g", "wheel", "-m", "444", "-fschg", "a", "b", "dir")
    run(tmp_path, "install", "-C", "-o", "nobody", "a", "dir/c")
    assert sorted(path.name for path in (tmp_path / "dir").iterdir()) == ["a", "b", "c"]
    assert (tmp_path / "dir/a").stat().st_mode & 0o777 == 0o444
    assert (tmp_path / "dir/c").stat().st_mode & 0o777 == 0o755


def test_ln_does_not_follow_a_link_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    run(tmp_path, "ln", "-fsh", "elsewhere", "link")
    assert (tmp_path / "link").readlink() == Path("elsewhere")
    (tmp_path / "file").write_text("x")
    run(tmp_path, "ln", "file", "hard")
    assert (tmp_path / "hard").samefile(tmp_path / "file")


def test_mtree_lays_out_directories(tmp_path: Path) -> None:
    specification = """\
# a comment
/set type=dir uname=root gname=wheel mode=0755
.
    bin
    ..
    games
        hide            gname=games mode=0550
        ..
        scores  type=link \\
                link=../var/games
    ..
    "with space"        mode=01777
    ..
/unset mode
..
"""
    (tmp_path / "spec").write_text(specification)
    (tmp_path / "root").mkdir()
    for _ in range(2):  # what is there already stays
        run(tmp_path, "mtree", "-deU", "-f", "spec", "-p", "root")
    assert (tmp_path / "root/bin").is_dir()
    assert (tmp_path / "root/games/hide").stat().st_mode & 0o7777 == 0o550
    assert (tmp_path / "root/games/scores").readlink() == Path("../var/games")
    assert (tmp_path / "root/with space").stat().st_mode & 0o7777 == 0o1777
    (tmp_path / "other").mkdir()
    run(tmp_path, "mtree", "-deU", "-p", "other", text=specification)
    assert (tmp_path / "other/games/hide").is_dir()


@pytest.mark.parametrize(("text", "order"), [("a b\nb c\n", "a\nb\nc\n"), ("a a\n", "a\n")])
def test_tsort_orders(tmp_path: Path, text: str, order: str) -> None:
    assert run(tmp_path, "tsort", "-q", text=text) == order


def test_tsort_breaks_cycles_silently(tmp_path: Path) -> None:
    assert sorted(run(tmp_path, "tsort", "-q", text="a b\nb a\nb c\n").split()) == ["a", "b", "c"]


def test_lorder_puts_users_before_definers(tmp_path: Path) -> None:
    sources = {"main": "int f(void); int main(void) { return f(); }", "f": "int f(void) { return 0; }"}
    for name, source in sources.items():
        (tmp_path / f"{name}.c").write_text(source)
        subprocess.run(["gcc-12", "-c", f"{name}.c"], cwd=tmp_path, check=True)
    pairs = run(tmp_path, "lorder", "f.o", "main.o").splitlines()
    assert sorted(pairs) == ["f.o f.o", "main.o f.o", "main.o main.o"]
    assert run(tmp_path, "lorder", "f.o").splitlines() == ["f.o f.o"]
