"""The whole way, as its users go it: a cell that boots and passes, and a bug planted in the kernel."""

from __future__ import annotations

import difflib
import json
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import choice
import pytest

from dfbuild.config import load
from dfbuild.matrix.expand import expand
from dfbuild.releases import Release
from dfbuild.source import Tree
from dfbuild.workspace import Workspace

pytestmark = [pytest.mark.dragonfly, pytest.mark.boot, pytest.mark.timeout(14400)]

CONFIGS = Path(__file__).parents[2] / "configs"
CHANGED = "sys/kern/kern_shutdown.c"
PLANTED = """\
static void planted(void *unused) {{ {} }}
SYSINIT(planted, SI_SUB_PSEUDO, SI_ORDER_ANY, planted, NULL);
"""
PANIC, LOOP = 'panic("planted by a test");', "for (;;) ;"
SMASH = "char small[16]; volatile int i, most = 40; for (i = 0; i < most; i++) ((volatile char *)small)[i] = 1;"


def cell(release: Release, firmware: str = "bios", root: str = "ufs") -> str:
    """The newest compiler of the tree that has a stack protector, with it, on one CPU."""
    found = [
        cell
        for cell in expand(load(CONFIGS / f"dragonfly-{release.name}.toml")).cells
        if cell.variant.stack_protector == choice.protector(release)
        and cell.variant.kernel == choice.kernel(release)
        and not release.toolchains[cell.variant.toolchain].packages
        and {"scheduler", "network", "security", "packages"} <= {*cell.suites}
        and (cell.shape.cpus, cell.shape.firmware, cell.shape.root) == (1, firmware, root)
    ]
    if not found:
        pytest.skip(f"{release.title} does not start from {firmware} and {root}, or no matrix has it do so")
    newest = list(release.toolchains).index
    return max(found, key=lambda cell: newest(cell.variant.toolchain)).id


def matrix(release: Release, tree: Tree, workspace: Workspace, cell: str, *words: str) -> dict[str, Any]:
    command = [
        sys.executable, "-m", "dfbuild", "matrix", CONFIGS / f"dragonfly-{release.name}.toml", "--src", tree.path,
        "--work", workspace.root, "--cell", cell, "--json", *words,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout[-2000:] + done.stderr[-4000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize(
    ("firmware", "root", "via"),
    [("bios", "ufs", "ssh"), ("bios", "ufs", "serial"), ("uefi", "ufs", "ssh"), ("bios", "hammer2", "ssh")],
)
def test_a_cell_boots_and_everything_is_as_expected(
    firmware: str, root: str, via: str, release: Release, tree: Tree, workspace: Workspace
) -> None:
    (only,) = matrix(release, tree, workspace, cell(release, firmware, root), "--via", via)["run"]["cells"]
    assert only["verdict"] == "PASS", only["title"]
    outcomes = {check["check"]: check["outcome"] for check in only["checks"]}
    assert outcomes["scheduler/cpu-count"] == "pass"
    assert outcomes["network/protocol-threads"] == "pass"
    assert outcomes["security/pid-random-on"] == "pass"
    assert outcomes["network/rst-in-window-middle"] == "known"
    assert outcomes["security/smash-16"] == "pass"
    assert outcomes["packages/isolated"] == "pass"
    assert outcomes.get("hardware/root", "pass") == "pass"


def patch(tree: Tree, directory: Path, planted: str) -> Path:
    """A patch of the tree whose kernel does what is `planted` while it starts."""
    before = (tree.path / CHANGED).read_text(encoding="latin-1").splitlines(keepends=True)
    # What an earlier run of these tests planted is cached.
    fresh = f"/* {secrets.token_hex(4)} */\n"
    lines = difflib.unified_diff(
        before, [*before, fresh, *PLANTED.format(planted).splitlines(keepends=True)], f"a/{CHANGED}", f"b/{CHANGED}"
    )
    file = directory / "planted.patch"
    file.write_text("".join(lines), encoding="latin-1")
    return file


def test_a_planted_bug_is_caught_told_and_repeated(
    release: Release, tree: Tree, workspace: Workspace, tmp_path: Path
) -> None:
    began = time.monotonic()
    document = matrix(release, tree, workspace, cell(release), "--patch", str(patch(tree, tmp_path, PANIC)))
    print(f"from the patch to the verdict: {time.monotonic() - began:.0f} s")
    (only,) = document["run"]["cells"]
    # 1.x prints no trace, and ddb's there begins in itself.
    where = r" at planted\+0x\w+ \(sys/kern/kern_shutdown\.c:\d+\)" if release.elf_machine == "EM_X86_64" else ""
    assert only["verdict"] == "PANIC" and re.fullmatch(f"panic: planted by a test{where}", only["title"])
    built = {step["kind"] for step in document["run"]["steps"] if not step["cached"]}
    assert built == {"kernel", "image"}
    (failure,) = document["failures"]
    assert f"--patch {tmp_path}" in failure["repeat"]


def test_a_stack_that_the_kernel_smashes_is_told(
    release: Release, tree: Tree, workspace: Workspace, tmp_path: Path
) -> None:
    document = matrix(release, tree, workspace, cell(release), "--patch", str(patch(tree, tmp_path, SMASH)))
    (only,) = document["run"]["cells"]
    assert only["verdict"] == "PANIC"
    # What tells of it has the words for it in the wrong order before 0061257332, and comes to grief of its own.
    told = "page fault" if release.name in ("1.0", "1.2") else "panic: .*stack (smashed|overflow) in "
    assert re.search(told, only["title"]), only["title"]


def test_a_loop_is_named(release: Release, tree: Tree, workspace: Workspace, tmp_path: Path) -> None:
    document = matrix(release, tree, workspace, cell(release), "--patch", str(patch(tree, tmp_path, LOOP)))
    (only,) = document["run"]["cells"]
    assert only["verdict"] == "HANG"
    assert "; cpu 0 at planted+0x" in only["title"]
