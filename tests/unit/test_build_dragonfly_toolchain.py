"""Prefixes that work wherever they lie, and toolchains side by side."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from dfbuild import process, releases
from dfbuild.build.dragonfly import data, toolchain, within
from dfbuild.build.dragonfly.layout import KIT, SRC, Places
from dfbuild.build.recipe import Artefact
from dfbuild.errors import BuildFailed, MissingTool, UsageError
from dfbuild.model import StepKind
from dfbuild.sandbox import Mount
from dfbuild.source import Tree
from dfbuild.source.hashes import Hashes

PLACES = Places("i386")
MASTER = releases.load("master")
BUILD = data.of(MASTER)


def program(path: Path, text: str = '#!/bin/sh\nprintf "%s\\n" "$0" "$@"\n') -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def prefix(path: Path) -> Path:
    for name in ("cc", "c++", "cpp", "cc1", "gcov"):
        program(path / "usr/libexec/gcc34" / name)
    for name in ("as", "ld"):
        program(path / "usr/libexec/binutils215/elf" / name)
    program(path / "usr/bin/objformat")
    return path


@pytest.mark.parametrize("name", ["plain", "with space", "$(odd)"])
def test_wrappers_find_their_parts_wherever_the_prefix_lies(tmp_path: Path, name: str) -> None:
    first = prefix(tmp_path / "first")
    toolchain.wrap(first, "gcc34", "binutils215")
    moved = first.rename(tmp_path / name)
    assert sorted(p.name for p in (moved / "bin").iterdir()) == ["as", "c++", "cc", "cpp", "gcov", "ld"]
    said = subprocess.run([moved / "bin/cc", "-c", "a b.c"], capture_output=True, text=True, check=True).stdout
    driver, compilers, tools, *rest = said.splitlines()
    assert os.path.realpath(driver) == str(moved.resolve() / "usr/libexec/gcc34/cc")
    assert Path(compilers.removeprefix("-B")).samefile(moved / "usr/libexec/gcc34")
    assert Path(tools.removeprefix("-B")).samefile(moved / "usr/libexec/binutils215/elf")
    assert rest == ["-c", "a b.c"]
    environment = {**os.environ, "PATH": f"{moved / 'bin'}:{os.environ['PATH']}"}
    assert subprocess.run(["as"], env=environment, capture_output=True, check=True).returncode == 0


@pytest.mark.parametrize("name", [name for name, compiler in BUILD.compilers.items() if compiler.host is not None])
def test_a_compiler_of_this_host_has_the_trees_tools_and_forgets_its_own_system(tmp_path: Path, name: str) -> None:
    compiler = BUILD.compilers[name]
    directory = tmp_path / "usr/libexec" / name
    toolchain.wrap_host(directory, compiler, BUILD.places, "/its/own")
    for command in (compiler.host, compiler.cxx):
        program(tmp_path / "path" / str(command))
    environment = {"PATH": f"{tmp_path}/path:/usr/bin:/bin"}
    for driver, first in (("cc", compiler.arguments[0]), ("cpp", "-E"), ("c++", "-nostdinc++")):
        done = subprocess.run(
            [directory / driver, "-c", "-rpath", "c d", "a b.c"],
            env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        _, *words = done.stdout.splitlines()
        assert words[0] == first
        asked = [*compiler.arguments, *(compiler.cxx_arguments if driver == "c++" else ())]
        told = {word.replace("{world}", str(BUILD.places.world)).replace("{headers}", "/its/own") for word in asked}
        assert {*told, f"-B{directory}/../binutils227/elf/"} <= set(words)
        assert {"-U__linux__", "--target=x86_64-unknown-dragonfly"} & set(words)
        last = [word.replace("{world}", str(BUILD.places.world)) for word in compiler.last]
        passed = ["-Xlinker", "-rpath", "-Xlinker", "c d"] if name == "gcc-12" else ["-rpath", "c d"]
        assert last and "".join(words).endswith("".join(["-c", *passed, "a b.c", *last]))


@pytest.mark.parametrize(
    ("name", "command"),
    [
        (name, command)
        for name, compiler in BUILD.compilers.items()
        for command in (compiler.host, compiler.cxx)
        if command is not None
    ],
)
def test_a_compiler_that_this_host_lacks_is_for_the_user_to_install(
    tmp_path: Path, name: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(program: str) -> str:
        if program == command:
            raise MissingTool(f"{program} is not installed")
        return "1.0"

    monkeypatch.setattr(process, "version", lacking)
    with pytest.raises(UsageError, match=rf"toolchain {name} .* {re.escape(command)} .* not installed") as caught:
        toolchain.recipe(MASTER, fake(tmp_path, ()), name)
    assert f"apt-get install {name}" in caught.value.hint


def test_toolchains_lie_side_by_side(tmp_path: Path) -> None:
    both = []
    for name, parts in {"gcc2": ("gcc2", "binutils212"), "gcc34": ("gcc34", "binutils215")}.items():
        root = tmp_path / name
        for part in parts:
            program(root / "usr/libexec" / part / "x")
        program(root / "usr/bin/objformat")
        both.append(Artefact(StepKind.TOOLCHAIN, name, name, root))
    mounts = {
        str(mount.inside.relative_to(PLACES.tools)): mount.outside for mount in toolchain.mounts(both, PLACES)
    }
    assert sorted(mounts) == [
        "usr/bin", "usr/libexec/binutils212", "usr/libexec/binutils215", "usr/libexec/gcc2", "usr/libexec/gcc34",
    ]  # fmt: skip
    assert mounts["usr/libexec/gcc34"] == tmp_path / "gcc34/usr/libexec/gcc34"


def test_parts_are_mounted_once_and_nothing_else() -> None:
    assert within.outermost(["b/c", "a", "b", "a/x/y", "b-c", "ab"]) == ["a", "ab", "b", "b-c"]
    assert within.outermost([]) == []


def test_the_environment_is_the_same_everywhere() -> None:
    host, cross = PLACES.environment(7), PLACES.environment(7, "gcc34")
    assert Path(host["__MAKE_CONF"]).is_relative_to(KIT), "a host may have anything anywhere else"
    assert host["PATH"].split(":")[0] == str(KIT / "bin")
    assert "CCVER" not in host
    assert cross["PATH"].split(":")[:2] == [str(PLACES.tools / "usr/bin"), str(KIT / "bin")]
    assert cross["NXENV"] == host["NXENV"]
    assert str(PLACES.tools) not in cross["NXENV"]


def fake(path: Path, parts: tuple[str, ...]) -> Tree:
    for part in parts:
        (path / part).mkdir(parents=True, exist_ok=True)
        (path / part / "Makefile").write_text(part)
    return Tree(path, "1.2", Hashes(path, path / ".memory"))


def test_keys_follow_the_parts_and_their_edits(tmp_path: Path) -> None:
    build = data.of(releases.load("1.2")).model_copy(update={"edits": ()})
    tree = fake(tmp_path, ("share/mk", "bin/ls", "bin/cat"))
    parts = within.Parts(tree, build, ("share/mk", "bin/ls"))
    before = parts.inputs()
    (tmp_path / "bin/cat/Makefile").write_text("other")
    assert parts.inputs() == before
    (tmp_path / "bin/ls/Makefile").write_text("other")
    assert parts.inputs() != before
    change = data.Edit(file="bin/ls/Makefile", find="other", put="another", reason="a test")
    edited = within.Parts(tree, build.model_copy(update={"edits": (change,)}), parts.names)
    assert edited.inputs() != parts.inputs()
    mounts = edited.mounts(tmp_path / "copies")
    assert mounts[0] == Mount(SRC)
    assert [str(mount.inside) for mount in mounts[1:]] == [
        "/usr/src/bin/ls", "/usr/src/share/mk", "/usr/src/bin/ls/Makefile",
    ]  # fmt: skip


def test_a_compiler_that_the_release_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no compiler 'gcc3'"):
        toolchain.recipe(releases.load("1.2"), fake(tmp_path, ()), "gcc3")


def test_a_tree_without_its_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises((UsageError, BuildFailed), match="has no "):
        toolchain.recipe(releases.load("1.2"), fake(tmp_path, ("share/mk",)), "gcc34")
