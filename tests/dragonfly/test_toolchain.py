"""The tree's own compilers, bootstrapped on this host: they work, say who they are, and are the same every time."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import choice
import pytest

from dfbuild import releases
from dfbuild.build import proof
from dfbuild.build.dragonfly import data, toolchain
from dfbuild.build.recipe import Artefact
from dfbuild.build.store import MANIFEST, ArtefactStore, build_all
from dfbuild.deadline import Deadline
from dfbuild.releases import Release
from dfbuild.source import Tree
from dfbuild.workspace import Workspace

pytestmark = [pytest.mark.dragonfly, pytest.mark.timeout(2400)]

NAMES = sorted({
    name for known in releases.available() if releases.load(known).target == "dragonfly"
    for name in releases.load(known).toolchains
})  # fmt: skip

GUARDED = """\
extern void other(char *);
int probe(int i) { char buffer[64]; other(buffer); return buffer[i]; }
"""
CPLUSPLUS = """\
struct Base { virtual int f() = 0; virtual ~Base() {} };
template <class T> struct Derived : Base { T value; int f() { return value; } };
int probe(Base *base) { Derived<char> derived; derived.value = 3; return base->f() + derived.f(); }
"""


def build(release: Release, tree: Tree, name: str, workspace: Workspace) -> Artefact:
    if name not in release.toolchains:
        pytest.skip(f"{release.title} has no {name}")
    recipe = toolchain.recipe(release, tree, name)
    return build_all(recipe, ArtefactStore(workspace), Deadline.after(2400, what=name), print)


def run(*words: str | Path, cwd: Path) -> str:
    return subprocess.run(words, cwd=cwd, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", NAMES)
def test_compilers_compile_protect_and_link(
    name: str, release: Release, tree: Tree, workspace: Workspace, tmp_path: Path
) -> None:
    made = build(release, tree, name, workspace)
    compiler = data.of(release).compilers[name]
    # Somewhere else than it was made, for it is a user's to move.
    prefix = shutil.copytree(made.path, tmp_path / "moved here", symlinks=True)
    (tmp_path / "probe.c").write_text(GUARDED)
    (tmp_path / "probe.cc").write_text(CPLUSPLUS)
    # What the host's own assembler refuses.
    refused = "\tmovl %fs,(%eax)\n" if release.elf_machine == "EM_386" else ""
    (tmp_path / "probe.s").write_text(f".globl _start\n_start:\n{refused}\tjmp _start\n")
    on = choice.protector(release)
    settings = ("plain",) if compiler.protector == "never" else ("plain", on, "off")
    for setting in settings:
        words = release.stack_protectors[setting].flags if setting != "plain" else ()
        run(prefix / "bin/cc", "-O", "-nostdinc", *words, "-c", "probe.c", "-o", f"{setting}.o", cwd=tmp_path)
        protector = setting if setting != "plain" else {"unless": on}.get(compiler.protector, "off")
        expected = release.toolchains[name], release.stack_protectors[protector], release.elf_machine
        assert proof.prove([tmp_path / f"{setting}.o"], *expected)["compiler"]
    if compiler.host is None:
        run(prefix / "bin/c++", "-O", "-nostdinc", "-c", "probe.cc", "-o", "cc.o", cwd=tmp_path)
        assert proof.elf_facts(tmp_path / "cc.o").machine == release.elf_machine
    run(prefix / "bin/as", "probe.s", "-o", "start.o", cwd=tmp_path)
    run(prefix / "bin/ld", "-o", "program", "start.o", cwd=tmp_path)
    run(prefix / "bin/strip", "program", cwd=tmp_path)
    facts = proof.elf_facts(tmp_path / "program")
    assert (facts.machine, facts.kind, facts.static) == (release.elf_machine, "ET_EXEC", True)
    for tool in ("ar", "nm", "objcopy", "objdump", "ranlib", "size", "strings"):
        assert (prefix / "bin" / tool).exists(), tool


def everything(directory: Path) -> dict[str, str]:
    """Path ▸ hash, mode or link target of every file below `directory`."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file() and path.name != MANIFEST:
            found[name] = f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return found


def seen(tree: Tree) -> dict[str, int]:
    """When what of the tree was last changed: any write, and any change of a directory, shows."""
    return {
        str(Path(directory, name)): Path(directory, name).lstat().st_ctime_ns
        for directory, names, files in os.walk(tree.path)
        for name in (".", *names, *files)
    }


def test_the_same_tree_gives_the_same_bytes_elsewhere_and_stays_as_it_is(
    release: Release, tree: Tree, workspace: Workspace, tmp_path: Path
) -> None:
    name = choice.compiler(release)
    first = build(release, tree, name, workspace)
    before = seen(tree)
    again = build(release, tree, name, Workspace(tmp_path / "a" / "quite different place"))
    assert seen(tree) == before
    assert first.key == again.key
    assert everything(first.path) == everything(again.path)
