"""The whole userland, cross-built on this host: complete, of the compiler and protector asked for, owned by whom it
should be, and the same wherever it is built."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import choice
import pytest
from elftools.elf.elffile import ELFFile

from dfbuild import releases
from dfbuild.build.dragonfly import data, part, programs, world
from dfbuild.build.recipe import Artefact
from dfbuild.build.store import ArtefactStore, build_all
from dfbuild.deadline import Deadline
from dfbuild.image.manifest import Names, parse_log, scan
from dfbuild.releases import Release
from dfbuild.source import Tree
from dfbuild.workspace import Workspace

pytestmark = [pytest.mark.dragonfly, pytest.mark.timeout(7200)]

BUILDABLE = {
    name: release
    for name in releases.available()
    if (release := releases.load(name)).target == "dragonfly" and data.of(release).world is not None
}
CELLS = sorted({
    (name, protector)
    for release in BUILDABLE.values()
    for name, protector in itertools.product(data.of(release).compilers, ("off", choice.protector(release)))
})  # fmt: skip
# What a guest needs to boot, to be logged into and to be tested.
NEEDED = (
    "bin/sh", "sbin/init", "usr/libexec/getty", "usr/bin/login", "sbin/mount", "sbin/fsck", "sbin/ifconfig",
    "sbin/sysctl", "bin/ps", "bin/ls", "bin/cat", "bin/cp", "bin/stty", "usr/bin/uuencode", "usr/bin/uudecode",
    "usr/bin/cksum", "bin/dd", "usr/bin/sed", "usr/bin/awk", "usr/sbin/sshd", "usr/sbin/syslogd", "etc/rc",
    "etc/pwd.db", "etc/spwd.db", "etc/login.conf.db", "boot/loader", "usr/bin/cc", "usr/bin/c++",
    "usr/share/man/man1/sh.1.gz",
)  # fmt: skip
# What is not there where the world is built without a part that the tree has no source of.
OPTIONAL = {"NO_OPENSSL": "usr/sbin/sshd"}


def build(release: Release, tree: Tree, name: str, protector: str, workspace: Workspace) -> Artefact:
    if name not in release.toolchains or protector not in release.stack_protectors:
        pytest.skip(f"{release.title} has no {name} with {protector}")
    if data.of(release).userland(name) != name:
        pytest.skip(f"{name} makes no world of {release.title}")
    protection = release.stack_protectors[protector].of_world
    if protection.present and set(protection.flags) & set(release.toolchains[name].unknown):
        pytest.skip(f"{name} of {release.title} protects nothing")
    recipe = world.recipe(release, tree, name, protection)
    return build_all(recipe, ArtefactStore(workspace), Deadline.after(7000), print)


@pytest.mark.parametrize(("name", "protector"), CELLS)
def test_everything_is_built_installed_and_proven(
    name: str, protector: str, release: Release, tree: Tree, workspace: Workspace
) -> None:
    made = build(release, tree, name, protector, workspace)
    exempt = {one.name for one in data.world(release).exempt}
    options = {line.partition("=")[0].strip() for line in data.world(release).options}
    assert set(made.facts["failed"]) <= exempt
    assert made.facts["coverage"]["named"] > 5000
    assert set(made.facts["compilers"]) >= {name}
    assert bool(made.facts["protector"]["sites"]) == (protector != "off")
    root = made.path / part.ROOT
    without = {path for option, path in OPTIONAL.items() if option in options}
    assert [path for path in NEEDED if path not in without and not (root / path).exists()] == []
    assert (root / "dev/MAKEDEV").is_file() == data.of(release).image.makedev
    assert list((root / "usr/libexec").glob("ld-elf.so.*"))
    for compiler in data.of(release).native:
        assert (root / "usr/libexec" / compiler / "cc1").is_file()
        assert (root / "usr/lib" / compiler / "libgcc.a").is_file()


@pytest.mark.parametrize("name", sorted({name for name, _ in CELLS}))
def test_programs_need_nothing_that_is_this_hosts(
    name: str, release: Release, tree: Tree, workspace: Workspace
) -> None:
    root = build(release, tree, name, choice.protector(release), workspace).path / part.ROOT
    libraries = {path.name for path in root.rglob("*.so*")}
    seen = 0
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not path.is_file() or not (needs := needed(path)):
            continue
        assert {need for need in needs if not need.startswith("/")} <= libraries, path
        for interpreter in (need for need in needs if need.startswith("/")):
            loader = root / interpreter.lstrip("/")
            if loader.is_symlink():
                loader = root / loader.readlink().as_posix().lstrip("/")  # from the root of the guest
            assert loader.is_file(), path
        seen += 1
    assert seen > 300


def needed(path: Path) -> list[str]:
    """The libraries that a program or library is linked with, and the program that loads it."""
    with path.open("rb") as stream:
        if stream.read(4) != b"\x7fELF":
            return []
        elf = ELFFile(stream)
        dynamic = elf.get_section_by_name(".dynamic")
        interpreters = [part.get_interp_name() for part in elf.iter_segments("PT_INTERP")]
        return [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")] + interpreters if dynamic else []


def test_files_belong_to_whom_they_should(release: Release, tree: Tree, workspace: Workspace) -> None:
    made = build(release, tree, choice.compiler(release), choice.protector(release), workspace)
    root = made.path / part.ROOT
    names = Names.parse((root / "etc/master.passwd").read_text(), (root / "etc/group").read_text())
    entries = scan(root, parse_log((made.path / part.LOG).read_text(), names))
    su, spwd = entries["usr/bin/su"], entries["etc/spwd.db"]
    assert (su.mode, su.uid, su.flags) == (0o4555, 0, "schg")
    assert spwd.mode == 0o600
    assert entries["var/games"].gid == names.group("games")
    assert "schg" in entries["var/empty"].flags.split(","), "whatever chflags(1) adds"
    assert entries["tmp"].mode == 0o1777


def test_the_suites_programs_are_the_cells(release: Release, tree: Tree, workspace: Workspace) -> None:
    protection = release.stack_protectors[choice.protector(release)].of_world
    for name in data.of(release).compilers:
        if data.of(release).userland(name) != name or set(protection.flags) & set(release.toolchains[name].unknown):
            continue
        beneath = world.recipe(release, tree, name, protection)
        recipe = programs.recipe(release, tree, name, protection, beneath)
        made = build_all(recipe, ArtefactStore(workspace), Deadline.after(7000), print)
        where = made.path / part.ROOT / release.probes.lstrip("/")
        assert {"smash", "netserve"} <= {path.name for path in where.iterdir()}
        assert made.facts["protector"]["sites"] > 0


def everything(directory: Path) -> dict[str, str]:
    """Path ▸ hash or link target of every file below `directory`."""
    return {
        str(path.relative_to(directory)): f"-> {path.readlink()}"
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def test_the_same_tree_gives_the_same_bytes_elsewhere(
    release: Release, tree: Tree, workspace: Workspace, tmp_path: Path
) -> None:
    name, protector = choice.compiler(release), choice.protector(release)
    first = build(release, tree, name, protector, workspace)
    again = build(release, tree, name, protector, Workspace(tmp_path / "a" / "quite different place"))
    assert first.key == again.key
    one, other = everything(first.path / part.ROOT), everything(again.path / part.ROOT)
    assert sorted(path for path in one if one[path] != other.get(path)) == []
    assert one.keys() == other.keys()
    assert (first.path / part.LOG).read_text() == (again.path / part.LOG).read_text()
