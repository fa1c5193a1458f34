"""The recipe of a disk: parts over one another, and what makes of them a guest's."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dfbuild import releases
from dfbuild.build.dragonfly import Target, image, part
from dfbuild.build.recipe import DISK, Artefact, Kitchen, Recipe
from dfbuild.build.store import MANIFEST, ArtefactStore, build_all
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed
from dfbuild.image import disklabel, disklabel64, efidisk, esp, identity, mbr
from dfbuild.image.inodes import Inodes
from dfbuild.image.manifest import Kind
from dfbuild.model import Cell, Login, Shape, StepKind, Symbols, Variant
from dfbuild.releases import Release
from dfbuild.workspace import Workspace

BOOT1 = b"\xeb\x3c".ljust(510, b"\x90") + b"\x55\xaa"
BOOT2 = bytes(512) + b"2" * 7168
WORLD: dict[str, bytes] = {
    "etc/master.passwd": b"root::0:0::0:0:Charlie &:/root:/bin/csh\n",
    "etc/group": b"wheel:*:0:root\noperator:*:5:root\n",
    "etc/rc.conf": b"hostname=nobody\n",
    "dev/MAKEDEV": b"PATH=$MAKEDEVPATH\nmknod ad0s1a c 116 0x20000 root:operator\nmkdir fd\nchmod 555 fd\n",
    "boot/mbr": b"\xfc\x31\xc0",
    "boot/boot1": BOOT1,
    "boot/boot2": BOOT2,
    "bin/su": b"su",
    "kernel": b"old",
}
WORLD_LOG = "./bin/su type=file uname=root gname=wheel mode=4555 flags=schg\n./etc/master.passwd mode=0600\n"


def a_part(name: str, files: Mapping[str, bytes], log: str = "") -> Recipe:
    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        for path, content in files.items():
            target = kitchen.directory / part.ROOT / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if log:
            (kitchen.directory / part.LOG).write_text(log)
        return {}

    return Recipe(StepKind.WORLD, name, {"files": {k: v.hex() for k, v in files.items()}, "log": log}, make)


@pytest.fixture
def release() -> Release:
    small = releases.load("1.2")
    return small.model_copy(
        update={"build": {**small.build, "image": {**small.build["image"], "root": 32, "swap": 8}}}
    )


Build = Callable[..., Artefact]


@pytest.fixture
def build(tmp_path: Path, release: Release) -> Build:
    workspace = Workspace(tmp_path)
    keys = identity.ensure(workspace, "dragonfly", identity.Kind.RSA)

    def built(*parts: Recipe) -> Artefact:
        made = image.recipe(release, "up", parts, keys)
        return build_all(made, ArtefactStore(workspace), Deadline.after(60), print)

    return built


def test_a_disk_of_parts(build: Build, tmp_path: Path) -> None:
    world = a_part("world", WORLD, WORLD_LOG)
    kernel = a_part("kernel", {"kernel": b"new", "modules/a.ko": b"a"}, "./kernel mode=0555 flags=schg\n")
    made = build(world, kernel)
    assert [path.name for path in made.path.iterdir() if path.name != MANIFEST] == [DISK]
    raw = tmp_path / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", made.path / DISK, raw], check=True)
    data = raw.read_bytes()
    assert b"\xcd\x18" in data[:446], "busmaster.S, with its way out"
    assert data[512:515] == WORLD["boot/mbr"]
    (only,) = mbr.parse(data[:512])
    assert disklabel.parse(data[only.start * 512 + 512 :][:512]).partitions["b"].size * 512 >= 8 << 20
    with Inodes(raw, only.start * 512) as inodes:
        files = inodes.walk()
        text = {name: inodes.content(found) for name, found in files.items() if found.kind is Kind.FILE}
    assert text["kernel"] == b"new" and text["modules/a.ko"] == b"a"
    assert files["kernel"].flags == files["bin/su"].flags == 0x20000
    assert files["bin/su"].mode & 0o7777 == 0o4555
    assert b"dfly" in text["etc/rc.conf"] and text["boot.config"] == b"-h -n\n"
    assert files["etc/ssh/ssh_host_rsa_key"].mode & 0o777 == 0o600
    assert text["etc/ssh/ssh_host_rsa_key"].startswith(b"-----BEGIN RSA PRIVATE KEY-----")
    assert (files["root/.ssh"].mode & 0o777, files["root/.ssh/authorized_keys"].mode & 0o777) == (0o700, 0o600)
    assert (files["dev/ad0s1a"].kind, files["dev/ad0s1a"].addresses[0]) == (Kind.CHARACTER, 0x27400)
    assert files["bin/su"].links == 1, "links of the host's own count for nothing"
    assert made.facts["files"] == len(files)


def test_a_disk_without_device_nodes_that_tells_the_kernel(tmp_path: Path) -> None:
    """As of the 64-bit line: devfs(5), and a variable for the loader."""
    blocks = {"boot/boot1_64": BOOT1, "boot/boot2_64": BOOT2}
    files = {**{name: text for name, text in WORLD.items() if not name.startswith("dev/")}, **blocks}
    world = a_part("world", files, WORLD_LOG)
    workspace = Workspace(tmp_path)
    keys = identity.ensure(workspace, "dragonfly", identity.Kind.RSA)
    recipe = image.recipe(releases.load("master"), "nx2", [world], keys, tunables={"machdep.pmap_nx_enable": "2"})
    made = build_all(recipe, ArtefactStore(workspace), Deadline.after(60), print)
    raw = tmp_path / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", made.path / DISK, raw], check=True)
    (only,) = mbr.parse(raw.read_bytes()[:512])
    with Inodes(raw, only.start * 512 + disklabel64.RESERVED) as inodes:
        files = {name: inodes.content(found) for name, found in inodes.walk().items() if found.kind is Kind.FILE}
    assert b'machdep.pmap_nx_enable="2"\n' in files["boot/loader.conf"]
    assert b"/dev/vbd0s1a\t/\tufs" in files["etc/fstab"]


def test_a_disk_for_uefi_firmware(tmp_path: Path) -> None:
    master = releases.load("master")
    small = master.model_copy(
        update={"build": {**master.build, "image": {**master.build["image"], "root": 32, "swap": 8}}}
    )
    program = b"MZ" * 500
    files = {name: text for name, text in WORLD.items() if not name.startswith(("dev/", "boot/"))}
    world = a_part("world", {**files, "boot/boot1.efi": program, "boot/loader.efi": b"loader"}, WORLD_LOG)
    workspace = Workspace(tmp_path)
    keys = identity.ensure(workspace, "dragonfly", identity.Kind.RSA)
    recipe = image.recipe(small, "up", [world], keys, firmware="uefi")
    assert recipe.name == "up for uefi"
    assert (
        recipe.key
        != image.recipe(small, "up", [world], keys).key
        == image.recipe(small, "up", [world], keys, firmware="bios").key
    )
    made = build_all(recipe, ArtefactStore(workspace), Deadline.after(300), print)
    assert [path.name for path in made.path.iterdir() if path.name != MANIFEST] == [DISK]
    raw, system = tmp_path / "disk.raw", tmp_path / "system"
    subprocess.run(["qemu-img", "convert", "-O", "raw", made.path / DISK, raw], check=True)
    layout = efidisk.Layout.plan(32, 8)
    data = raw.read_bytes()
    system.write_bytes(data[layout.esp * 512 :][: esp.SIZE])
    copied = subprocess.run(
        ["mcopy", "-i", system, f"::/{esp.PROGRAM}", "-"], check=True, capture_output=True, timeout=60
    )
    assert copied.stdout == program
    with Inodes(raw, layout.slice.ufs_at) as inodes:
        found = {name: inodes.content(one) for name, one in inodes.walk().items() if one.kind is Kind.FILE}
    assert found["boot/loader.efi"] == b"loader"
    assert b"/dev/vbd0s1a\t/\tufs" in found["etc/fstab"] and b"/dev/vbd0s1b\tnone\tswap" in found["etc/fstab"]
    without = a_part("world", files, WORLD_LOG)
    with pytest.raises(BuildFailed, match=r"no part of the image has /boot/boot1\.efi"):
        build_all(
            image.recipe(small, "up", [without], keys, firmware="uefi"),
            ArtefactStore(workspace),
            Deadline.after(300),
            print,
        )


def test_the_disk_has_its_name_by_the_model_that_carries_it(release: Release, tmp_path: Path) -> None:
    keys = identity.ensure(Workspace(tmp_path), "dragonfly", identity.Kind.RSA)
    parts = [a_part("world", WORLD, WORLD_LOG)]
    own, same, ide = (
        image.recipe(release, "up", parts, keys, disk_model=name) for name in ("", "lsi53c895a", "ide")
    )
    assert own.key == same.key != ide.key
    assert (own.name, ide.name) == ("up", "up on ide")


KERNEL = Recipe(StepKind.KERNEL, "UP", {}, lambda kitchen: {})


class Made(Target):
    """A target whose disk is of a world and `KERNEL`, without a tree."""

    def __init__(self) -> None:
        class Source:
            def still(self) -> Source:
                return self

        super().__init__(Source(), Source())  # type: ignore[arg-type]

    def image(self, release: Release, cell: Cell, workspace: Workspace) -> Recipe:
        return Recipe(
            StepKind.IMAGE, "up", {}, KERNEL.make, needs=(a_part("world", WORLD), KERNEL, a_part("more", {}))
        )


CELL = Cell(Variant("1.2", "gcc2", "on", "up"), Shape("up"))


def test_a_guest_with_a_server_and_one_without(release: Release, tmp_path: Path) -> None:
    def login(**facts: bool) -> Login:
        made = Artefact(StepKind.IMAGE, "up", "key", tmp_path, facts)
        return Made().media(release, CELL, made, Workspace(tmp_path)).login

    assert login(ssh=True).host_key and login().host_key, "nothing is known of an image that is not made yet"
    assert not login(ssh=False).host_key


def test_the_symbols_are_the_kernels(release: Release, tmp_path: Path) -> None:
    """As good as there are: those of a kernel that a guest built have no lines."""
    workspace = Workspace(tmp_path)
    place = ArtefactStore(workspace).path(KERNEL)

    def symbols() -> Symbols | None:
        made = Artefact(StepKind.IMAGE, "up", "key", tmp_path, {})
        return Made().media(release, CELL, made, workspace).symbols

    assert symbols() is None
    for file in (place / "root" / "kernel", place / "kernel.debug"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        assert symbols() == Symbols(file, "/usr/src")


def test_the_parts_stay_as_they_were(build: Build, tmp_path: Path) -> None:
    world = a_part("world", WORLD, WORLD_LOG)
    build(world)
    again = build(world, a_part("more", {"etc/motd": b"hello"}))
    assert again.facts["files"] > 0
    store = ArtefactStore(Workspace(tmp_path))
    found = store.find(world)
    assert found is not None
    for name, content in WORLD.items():
        assert (found.path / part.ROOT / name).read_bytes() == content


def test_the_same_disk_elsewhere(build: Build, release: Release, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "elsewhere")
    keys = identity.ensure(Workspace(tmp_path), "dragonfly", identity.Kind.RSA)
    parts = [a_part("world", WORLD, WORLD_LOG)]
    other = build_all(image.recipe(release, "up", parts, keys), ArtefactStore(workspace), Deadline.after(60), print)
    here = build(*parts)
    assert here.key == other.key and here.facts == other.facts
    assert (here.path / DISK).read_bytes() == (other.path / DISK).read_bytes()


@pytest.mark.parametrize("missing", ["etc/master.passwd", "dev/MAKEDEV", "boot/mbr", "boot/boot1", "boot/boot2"])
def test_what_no_part_has(build: Build, missing: str) -> None:
    with pytest.raises(BuildFailed, match=f"no part of the image has /{missing}"):
        build(a_part("world", {name: content for name, content in WORLD.items() if name != missing}))


def test_parts_that_do_not_go_together(build: Build) -> None:
    world = a_part("world", WORLD)
    with pytest.raises(BuildFailed, match="kernel is a file and a directory"):
        build(world, a_part("kernel", {"kernel/kernel": b"5.8"}))
    with pytest.raises(BuildFailed, match="bin is a directory and a file"):
        build(world, a_part("other", {"bin": b"?"}))
    with pytest.raises(BuildFailed, match="the image has no user 'nobody'"):
        build(a_part("world", WORLD, "./bin/su uname=nobody\n"))
