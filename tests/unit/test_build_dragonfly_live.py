"""A CD with a live system, and how a disk is installed from one, up to the guest that does it."""

from __future__ import annotations

import gzip
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dfbuild import releases
from dfbuild.build.dragonfly import data, edits, image, imported, live, part, programs, taken_in
from dfbuild.build.recipe import DISK, LIVE, PROGRAMS, Artefact, Kitchen, Recipe
from dfbuild.build.store import MANIFEST, ArtefactStore, build_all
from dfbuild.console.monitor import Monitor
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed, InfraError, UsageError
from dfbuild.image import disk, dragonfly, esp, identity, iso, mbr
from dfbuild.model import Media, StepKind
from dfbuild.releases import Release
from dfbuild.source import Tree
from dfbuild.source.hashes import Hashes
from dfbuild.workspace import Workspace

MASTER = releases.load("master")
WORLD = {
    "etc/master.passwd": b"root::0:0::0:0:Charlie &:/root:/bin/csh\n",
    "etc/group": b"wheel:*:0:root\noperator:*:5:root\n",
    "etc/rc.conf": b"of a disk\n",
    "boot/cdboot": b"\xfa" * 1183,
    "boot/loader": b"the world's",
    "boot/loader.efi": b"the world's for UEFI",
}
LOG = "./etc type=dir mode=0755\n./etc/master.passwd mode=0600 gname=operator\n"


def a_part(name: str, files: Mapping[str, bytes], log: str = "") -> Recipe:
    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        for path, content in files.items():
            part.replace(kitchen.directory / part.ROOT, path, content)
        (kitchen.directory / part.LOG).write_text(log)
        return {}

    return Recipe(StepKind.WORLD, name, {"files": {k: v.hex() for k, v in files.items()}, "log": log}, make)


def build(recipe: Recipe, place: Path) -> Artefact:
    return build_all(recipe, ArtefactStore(Workspace(place)), Deadline.after(120), print)


def content(medium: Path, name: str, place: Path) -> bytes:
    place.mkdir(exist_ok=True)
    target = place / name.replace("/", "-")
    assert iso.extract(medium, name, target, Deadline.after(60)), name
    return target.read_bytes()


def skeleton(place: Path) -> Tree:
    for name, text in {"etc/rc.conf": "of a CD\n", "cpignore": "", "etc.hdd/motd": "hi\n"}.items():
        path = place / "nrelease/root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree(place, "master", Hashes(place, place.parent / "hashes.json"))


def test_a_live_system_of_parts_and_the_same_again_elsewhere(tmp_path: Path) -> None:
    below, over = (
        a_part("world", WORLD, LOG),
        a_part("loader", {"boot/loader": b"ours", "boot/loader.efi": b"MZ" * 9000}),
    )
    tree = skeleton(tmp_path / "src")
    tunables = {"machdep.pmap_nx_enable": "2"}
    recipe = live.recipe(MASTER, "nx2", [below], [over, live.skeleton(MASTER, tree)], tunables)
    one, other = build(recipe, tmp_path / "a"), build(recipe, tmp_path / "b")
    medium = one.path / LIVE
    assert sorted(path.name for path in one.path.iterdir()) == sorted([MANIFEST, LIVE])
    assert one.facts == other.facts and medium.read_bytes() == (other.path / LIVE).read_bytes()
    out = tmp_path / "out"
    assert content(medium, "etc/rc.conf", out) == b"of a CD\n"
    assert content(medium, "etc.hdd/rc.conf", out) == b"of a disk\n", "kept as it was before the skeleton"
    assert content(medium, "etc.hdd/motd", out) == b"hi\n"
    assert content(medium, "boot/loader", out) == b"ours"
    content(medium, live.EFI, out)
    started = ["mcopy", "-i", out / live.EFI.replace("/", "-"), f"::/{esp.PROGRAM}", "-"]
    assert subprocess.run(started, capture_output=True, check=True).stdout == b"MZ" * 9000
    told = content(medium, "boot/loader.conf.local", out)
    assert b'console="comconsole"\n' in told and b'machdep.pmap_nx_enable="2"\n' in told
    assert not iso.extract(medium, "cpignore", out / "cpignore", Deadline.after(60))
    modes = subprocess.run(
        ["xorriso", "-no_rc", "-indev", medium, "-lsl", "/etc.hdd/"], capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"^-rw-------\s+\d+ 0\s+5\s.*'master.passwd'$", modes, re.MULTILINE), "its log is kept, too"
    assert (build(below, tmp_path / "a").path / "root/etc/rc.conf").read_bytes() == b"of a disk\n"


def test_a_world_without_what_is_kept(tmp_path: Path) -> None:
    world = a_part("world", {"boot/cdboot": b"x"})
    with pytest.raises(BuildFailed, match="no part of the image has /etc"):
        build(live.recipe(MASTER, "x", [world], [], {}), tmp_path)
    world = a_part("world", {name: text for name, text in WORLD.items() if name != "boot/loader.efi"})
    with pytest.raises(BuildFailed, match=r"no part of the image has /boot/loader\.efi"):
        build(live.recipe(MASTER, "x", [world], [], {}), tmp_path)


@pytest.mark.parametrize(("release", "label"), [("master", "DRAGONFLY_MASTER"), ("5.8", "DRAGONFLY_5_8")])
def test_a_volume_is_labelled_by_its_release(release: str, label: str) -> None:
    assert live.label(release) == label


def test_a_log_is_said_twice_of_what_is_kept_and_of_nothing_else() -> None:
    log = "./etc mode=0755\n./etc/rc mode=0644\n./etcetera mode=0600\n./usr/etc mode=0700\n"
    assert live.kept(log, {"etc": "etc.hdd"}) == f"{log}./etc.hdd mode=0755\n./etc.hdd/rc mode=0644\n"


@pytest.mark.parametrize(
    "name", [name for name in releases.available() if releases.load(name).target == "dragonfly"]
)
def test_releases_have_a_live_system_or_say_that_they_have_none(name: str) -> None:
    release = releases.load(name)
    if data.of(release).iso is None:
        with pytest.raises(UsageError, match="no live system that dfbuild knows of"):
            data.iso(release)
        return
    own, disk, cd = data.iso(release), data.efi(release), data.cd_efi(release)
    assert cd.programs == disk.programs and {*disk.edits, *own.loader.edits} == {*cd.edits}
    changed = {edit.file for edit in own.loader.edits}
    assert all(any(name.startswith(f"{place}/") for place in own.libraries) for name in changed), (
        "what is changed is built again for both"
    )
    assert [stage.name for stage in own.stages][-1] == "login"
    assert own.boot.startswith("boot/") and own.loader.programs


def test_the_loader_counts_an_entry_before_it_goes_on() -> None:
    """As [build.iso.loader] has it, on lines of the shape that its edit looks for."""
    (edit,) = data.iso(MASTER).loader.edits
    there = "\t\t\tdp = (struct record *)\n\t\t\t\t((char *) dp + isonum_711(dp->length));\n"
    counted = "\t\t\toff += isonum_711(dp->length);\n"
    assert edits.apply(f"{{\n{there}{counted}}}\n", edit) == f"{{\n{counted}{there}}}\n"


# ── what installs itself ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("console", "title"),
    [
        ("dfbuild: installation failed: newfs\r\n", "the installation failed: newfs"),
        ("\r\nlogin: ", "the live system came up and looked for no pfi.conf"),
        ("To install it, login as root\r\n", ""),
    ],
)
def test_an_installation_that_goes_wrong(console: str, title: str) -> None:
    monitor = Monitor(imported.installing(MASTER, "f00").console.crashes)
    report = monitor.feed(console.encode(), 0) or monitor.settle()
    assert (report.title if report is not None else "") == title


def test_an_installation_is_followed_to_its_last_word() -> None:
    release = imported.installing(MASTER, "f00")
    stages = release.console.stages
    names = ["cdboot", "menu", "prompt", "console", "menu again", "kernel", "root", "installed"]
    assert [stage.name for stage in stages] == names
    assert "".join(stage.type for stage in stages) == "9set console=comconsole\rmenu\r1"
    assert re.search(stages[-1].pattern, "dfbuild: unmounting\r\ndfbuild: installed f00\r\n", re.MULTILINE)
    assert not re.search(stages[-1].pattern, "dfbuild: installed other\r\n", re.MULTILINE)
    assert stages[-1].deadline == release.console.silence == data.iso(MASTER).minutes * 60
    assert MASTER.console.stages[-1].name == "login", "the release itself is as it was"


def test_a_disk_that_is_written_meanwhile_is_not_taken_in(tmp_path: Path) -> None:
    medium = tmp_path / "their.img"
    medium.write_bytes(bytes(1 << 20))
    recipe = imported.raw(MASTER, medium, disk.digest(medium))
    medium.write_bytes(b"other" * 1000)
    with pytest.raises(InfraError, match=r"their\.img was changed"):
        build_all(recipe, ArtefactStore(Workspace(tmp_path / "w")), Deadline.after(60), print)


class Bench:
    """Stands for the machine: remembers what it was told to boot, and installs nothing."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Media, bool]] = []
        self.seed: dict[str, bytes] = {}

    def __call__(
        self, release: Release, media: Media, kitchen: Kitchen, what: str, kept: Path | None = None
    ) -> Mapping[str, float]:
        assert all(disk.path.is_file() for disk in media.disks)
        self.seen.append((release.console.stages[-1].name, media, kept is not None))
        if kept is not None:
            out = kitchen.directory / "out"
            for name in ("pfi.conf", "install", "root/etc/fstab", "root/root/.ssh/authorized_keys"):
                self.seed[name] = content(media.cdroms[1], name, out)
            image.remove(out)
            argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", media.disks[0].path, "-F", "qcow2"]
            subprocess.run([*argv, kept / "disk0.qcow2"], check=True)
        return {release.console.stages[-1].name: 1.0}


def test_a_cd_is_installed_and_what_comes_of_it_is_booted(tmp_path: Path) -> None:
    medium = tmp_path / "some.iso"
    medium.write_bytes(bytes(16 * 2048 + 1) + b"CD001")
    bench, workspace = Bench(), Workspace(tmp_path / "work")
    digest = disk.digest(medium)
    recipe = taken_in(MASTER, medium, digest, workspace, bench)
    made = build(recipe, tmp_path / "work")
    (installed, cd, kept), (booted, alone, left) = bench.seen
    assert (installed, kept, booted, left) == ("installed", True, "login", False)
    assert cd.cdroms[0] == medium and len(cd.disks) == 1
    assert not alone.cdroms, "by itself"
    assert made.facts == {
        "medium": digest, "installed": {"installed": 1.0}, "booted": {"login": 1.0}, "ssh": True
    }  # fmt: skip
    assert sorted(path.name for path in made.path.iterdir()) == sorted([MANIFEST, DISK])
    assert (made.path / DISK).stat().st_mode & 0o777 == 0o600
    assert b'pfi_script="install"' in bench.seed["pfi.conf"]
    script = bench.seed["install"].decode()
    assert (
        "newfs /dev/vbd0s1a" in script and "dfbuild: installed " in script and "{" not in script.split("die()")[0]
    )
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert b"/dev/vbd0s1a\t/\tufs" in bench.seed["root/etc/fstab"]
    keys = identity.ensure(workspace, "dragonfly", identity.Kind.RSA)
    assert keys.client_public.encode() in bench.seed["root/root/.ssh/authorized_keys"]
    other = taken_in(MASTER, medium, "cd" * 32, workspace, bench)
    moved = medium.rename(tmp_path / "moved.iso")
    assert other.key != recipe.key == taken_in(MASTER, moved, digest, workspace, bench).key


def test_the_programs_are_on_a_cd_as_they_lie_in_their_directory(tmp_path: Path) -> None:
    made = a_part("programs", {"usr/libexec/dfbuild/hogs": b"hogs", "usr/bin/other": b"?"})
    medium = build(programs.cd(MASTER, made), tmp_path).path / PROGRAMS
    assert content(medium, "hogs", tmp_path / "out") == b"hogs"
    assert not iso.extract(medium, "usr/bin/other", tmp_path / "out" / "other", Deadline.after(60))
    assert b"mount_cd9660 /dev/cd0 /usr/libexec/dfbuild " in dragonfly.base(MASTER.probes)["etc/rc.local"]


def test_a_raw_disk_is_taken_as_it_is(tmp_path: Path) -> None:
    medium = tmp_path / "some.img"
    medium.write_bytes(mbr.sector(b"boot", []) * 32)
    bench = Bench()
    made = build(
        taken_in(MASTER, medium, disk.digest(medium), Workspace(tmp_path / "work"), bench), tmp_path / "work"
    )
    subprocess.run(["qemu-img", "convert", "-O", "raw", made.path / DISK, tmp_path / "back"], check=True)
    assert (tmp_path / "back").read_bytes() == medium.read_bytes()
    assert not bench.seen and made.facts["ssh"] is False


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("some.img", b"yes", "is no disk: no boot sector"),
        ("some.img", gzip.compress(mbr.sector(b"boot", [])), "is no disk: no boot sector"),
        ("some.iso", b"yes", "is no CD: it has no ISO 9660"),
        ("some.iso", mbr.sector(b"boot", []) * 100, "is no CD: it has no ISO 9660"),
    ],
)
def test_what_it_is_not_by_its_content(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    medium = tmp_path / name
    medium.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        taken_in(MASTER, medium, "ab" * 32, Workspace(tmp_path / "work"), Bench())


def test_neither_a_cd_nor_a_disk(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a CD nor a disk"):
        taken_in(MASTER, tmp_path / "some.zip", "ab" * 32, Workspace(tmp_path), Bench())
    medium = tmp_path / "some.iso"
    medium.write_bytes(bytes(16 * 2048 + 1) + b"CD001")
    with pytest.raises(UsageError, match="no live system"):
        taken_in(releases.load("1.2"), medium, "ab" * 32, Workspace(tmp_path), Bench())
