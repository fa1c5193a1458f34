"""Kernels and modules of a real tree: complete, proven, always the same, quick to build again."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from pathlib import Path

import choice
import pytest

from dfbuild.build.dragonfly import data, elf, kernel
from dfbuild.build.recipe import Artefact
from dfbuild.build.store import MANIFEST, ArtefactStore, build_all
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed
from dfbuild.model import Variant
from dfbuild.releases import Release
from dfbuild.releases.schema import Kernel
from dfbuild.source import Tree
from dfbuild.source.hashes import Hashes
from dfbuild.workspace import Workspace

pytestmark = [pytest.mark.dragonfly, pytest.mark.timeout(2400)]

TOUCHED = "sys/netinet/tcp_input.c"
# A trimmed kernel, by way of a configuration of one's own.
UNNEEDED = ("device ahc", "device ahd", "device isp", "device mpt", "device sym", "device ncr", "options INET6")


def build(
    release: Release, tree: Tree, workspace: Workspace, toolchain: str, protector: str, name: str
) -> Artefact:
    recipe = kernel.recipe(release, tree, Variant(release.name, toolchain, protector, name))
    return build_all(recipe, ArtefactStore(workspace), Deadline.after(2400, what=name), print)


def digests(artefact: Artefact) -> dict[str, str]:
    return {
        path.relative_to(artefact.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(artefact.path.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def cell(release: Release) -> tuple[str, str, str]:
    """Toolchain, protector, kernel."""
    return choice.compiler(release), choice.protector(release), choice.kernel(release)


def installed(release: Release, made: Artefact) -> Path:
    return made.path / "root" / data.kernel(release).installed


def test_generic_as_it_stands(release: Release, tree: Tree, workspace: Workspace) -> None:
    toolchain, protector, name = cell(release)
    made = build(release, tree, workspace, toolchain, protector, name)
    (handler,) = release.stack_protectors[protector].of_kernel.present
    sites = made.facts["kernel"]["protector"]["sites"]
    assert sites > 100
    assert made.facts["kernel"]["linked"] == {handler: sites}
    assert elf.calls(installed(release, made), handler) == sites
    assert made.facts["modules"]["files"] == len(list((made.path / "root").rglob("*.ko"))) > 200
    assert made.facts["modules"]["protector"]["sites"] > 100
    log = (made.path / "install.mtree").read_text().splitlines()
    assert sum(".ko type=file " in line for line in log) == made.facts["modules"]["files"]
    assert any(line.startswith(f"./{data.kernel(release).installed} ") and "uname=root" in line for line in log)
    stamped = installed(release, made).read_bytes()
    assert b"root@localhost:/usr/obj/usr/src/sys/" + made.facts["name"].encode() in stamped


def test_every_toggle_shows(release: Release, tree: Tree, workspace: Workspace) -> None:
    if "smp" not in release.kernels:
        pytest.skip(f"{release.title} has one kernel for any number of CPUs")
    toolchain, protector, _ = cell(release)
    (handler,) = release.stack_protectors[protector].of_kernel.present
    made = build(release, tree, workspace, toolchain, "off", "smp")
    assert made.facts["kernel"]["protector"]["sites"] == 0
    assert elf.calls(made.path / "root/kernel", handler) == 0
    assert elf.calls(made.path / "root/kernel", "panic") > 1000
    assert "options SMP" in " ".join((made.path / "configuration").read_text().split())
    assert b"SMP: AP CPU" in (made.path / "root/kernel").read_bytes()


def writable(tree: Tree, place: Path) -> Tree:
    """A checkout of one's own: every file a link to the tree's, the one that is to be touched a copy."""
    shutil.copytree(tree.path, place, copy_function=os.link, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    touched = place / TOUCHED
    text = touched.read_bytes()
    touched.unlink()
    touched.write_bytes(text)
    return Tree(place, tree.release, Hashes(place, place.parent / "hashes.json"))


def marker() -> str:
    """A name that no earlier run of these tests used: what it built is cached, and its objects may be gone."""
    return f"dfbuild_probe_{secrets.token_hex(4)}"


def test_a_changed_file_is_built_alone_to_the_same_bytes(
    release: Release, tree: Tree, workspace: Workspace, tmp_path: Path
) -> None:
    toolchain, protector, name = cell(release)
    own = writable(tree, tmp_path / "checkout")
    markers = [marker(), marker()]
    for symbol in markers:
        with (own.path / TOUCHED).open("a") as file:
            file.write(f"int {symbol} = 42;\n")
        started = time.monotonic()
        again = build(release, own, workspace, toolchain, protector, name)
    print(f"after touching one file: {time.monotonic() - started:.1f} s")
    assert again.facts["incremental"]
    assert all(one.encode() in installed(release, again).read_bytes() for one in markers)
    # From the beginning, elsewhere, with tools that are at hand.
    other = Workspace(tmp_path / "work")
    for kind in ("tools", "toolchain"):
        shutil.copytree(workspace.artefacts / kind, other.artefacts / kind, symlinks=True, copy_function=os.link)
    moved = own.path.rename(tmp_path / "elsewhere")
    fresh = build(
        release, Tree(moved, own.release, Hashes(moved, tmp_path / "h.json")), other, toolchain, protector, name
    )
    assert not fresh.facts["incremental"]
    assert digests(fresh) == digests(again)


def test_what_does_not_compile_names_itself_and_is_gone_on_with(
    release: Release, tree: Tree, workspace: Workspace, tmp_path: Path
) -> None:
    toolchain, protector, name = cell(release)
    own = writable(tree, tmp_path / "checkout")
    whole = (own.path / TOUCHED).read_bytes()
    (own.path / TOUCHED).write_bytes(whole + b"this is no C\n")
    with pytest.raises(BuildFailed) as caught:
        build(release, own, workspace, toolchain, protector, name)
    assert caught.value.component == "kernel"
    assert "tcp_input.c" in caught.value.log.read_text() if caught.value.log else False
    mend = marker()
    (own.path / TOUCHED).write_bytes(whole + f"int {mend} = 1;\n".encode())
    mended = build(release, own, workspace, toolchain, protector, name)
    assert mended.facts["incremental"]
    assert mend.encode() in installed(release, mended).read_bytes()


def test_a_configuration_of_one_s_own(release: Release, tree: Tree, workspace: Workspace, tmp_path: Path) -> None:
    toolchain, protector, _ = cell(release)
    base = (tree.path / data.kernel(release).config).read_text(encoding="latin-1")
    own = tmp_path / "OWN"
    kept = [line for line in base.splitlines() if not " ".join(line.split()).startswith(UNNEEDED)]
    own.write_text("\n".join([*kept, "makeoptions NO_MODULES=yes", ""]))
    wished = Kernel(config=str(own), options={"DDB_UNATTENDED": "", "HZ": "1000", "TCPDEBUG": ""})
    changed = release.model_copy(update={"kernels": {**release.kernels, "own": wished}})
    made = build(changed, tree, workspace, toolchain, protector, "own")
    symbols = (made.path / "root" / data.kernel(release).installed).read_bytes()
    assert b"tcp_trace" in symbols
    assert b"ahc_attach" not in symbols
    assert made.facts["modules"]["files"] == 0
