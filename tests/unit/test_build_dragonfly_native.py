"""Kernels and worlds built in a guest: what is asked of the guest, what comes back, how it compares."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dfbuild import releases
from dfbuild.build.dragonfly import Target, data, kernel, native, nativeworld, part
from dfbuild.build.recipe import DISK, Artefact, Kitchen, Recipe
from dfbuild.build.store import ArtefactStore, build_all
from dfbuild.build.targets import Built
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed
from dfbuild.model import Cell, Login, Media, StepKind, Variant
from dfbuild.releases import Release
from dfbuild.shell.protocol import Answer
from dfbuild.source import Tree
from dfbuild.source.hashes import Hashes
from dfbuild.workspace import Workspace

RELEASE = releases.load("1.2")
VARIANT = Variant("1.2", "gcc34", "on", "smp")
IDENT = "SMP-GCC34-SSP"
HANDLER = "__stack_smash_handler"


def program(directory: Path, name: str, text: str, *, call: str = HANDLER, compiler: str = "gcc") -> Path:
    """A linked i386 program with these words in its data, and a call."""
    source = directory / f"{name}.c"
    source.write_text(
        f'char words[] = "{text}"; int zeros[64]; void {call}(void) {{ zeros[2]++; }}\n'
        f"void _start(void) {{ words[0]++; zeros[1]++; {call}(); }}\n"
    )
    command = [
        compiler,
        "-m32",
        "-ffreestanding",
        "-nostdlib",
        "-static",
        "-fno-pie",
        "-no-pie",
        "-Wl,--build-id=none",
    ]
    subprocess.run([*command, source, "-o", directory / name], check=True)
    return directory / name


class Guest:
    """A machine and its shell: make(1) runs for as long as `looks` says."""

    def __init__(self, kernel: Path, looks: list[str], *, begun: bool = False) -> None:
        self.kernel, self.looks, self.begun = kernel, looks, begun
        self.disks = 0
        self.commands: list[str] = []
        self.put_there: dict[str, bytes] = {}
        self.saved = 0
        self.up = False

    @contextlib.contextmanager
    def __call__(
        self,
        release: Release,
        variant: Variant,
        media: Media,
        memory: int,
        kitchen: Kitchen,
        kept: Path | None = None,
    ) -> Iterator[Guest]:
        assert media.disks[0].path.name == DISK
        self.disks = len(media.disks)
        self.up = True
        yield self
        self.up = False

    def run(self, command: str, deadline: Deadline, *, stdin: bytes = b"") -> Answer:
        assert self.up
        self.commands.append(command)
        if command.endswith("cat /var/tmp/native.began"):
            return Answer(command, 0, b"1000\n")
        if "sleep" in command:
            assert "$((n" not in command, "the sh of 2005 knows variables by their $ only"
            if not self.looks:
                return Answer(command, 2, b"arith: syntax error")
            return Answer(command, 0, self.looks.pop(0).encode())
        if command == "test -s /var/tmp/native.began":
            return Answer(command, 0 if self.begun else 1, b"")
        return Answer(command, 0, b"*** Error code 1\n" if command.startswith("tail") else b"")

    def put(self, source: Path, target: str, deadline: Deadline) -> None:
        self.put_there[target] = source.read_bytes()

    def get(self, source: str, target: Path, deadline: Deadline) -> None:
        shutil.copyfile(self.kernel, target)

    def save(self, deadline: Deadline) -> None:
        self.saved += 1


def recipe(tmp_path: Path, guest: Guest, variant: Variant = VARIANT) -> Recipe:
    cross = program(tmp_path, "cross", "built here")

    def crossed(kitchen: Kitchen) -> dict[str, object]:
        (kitchen.directory / part.ROOT).mkdir()
        shutil.copyfile(cross, kitchen.directory / part.ROOT / "kernel")
        (kitchen.directory / kernel.CONFIGURATION).write_text("ident it\n")
        log = "./kernel type=file uname=root mode=0555 flags=schg\n./modules/a.ko type=file uname=root\n"
        (kitchen.directory / part.LOG).write_text(log)
        return {"name": IDENT}

    needs = Recipe(StepKind.IMAGE, "builder", {}, lambda kitchen: {}), Recipe(StepKind.KERNEL, IDENT, {}, crossed)
    return native.recipe(RELEASE, variant, *needs, Login(), guest)


def test_the_kernel_of_the_guest_becomes_a_part_of_an_image(tmp_path: Path) -> None:
    guest = Guest(
        program(tmp_path, "native", "built far"),
        ["5\n1020\nrunning\nstage 3: building it\n", "7\n1090\n0\nstage 3: building it\n"],
    )
    said: list[str] = []
    made = build_all(
        recipe(tmp_path, guest), ArtefactStore(Workspace(tmp_path / "w")), Deadline.after(60), said.append
    )
    assert not guest.up
    assert guest.put_there == {f"/usr/src/sys/i386/conf/{IDENT}": b"ident it\n"}
    start = next(command for command in guest.commands if "nativekernel" in command)
    assert f"KERNCONF={IDENT}" in start
    assert "CCVER=gcc34" in start
    assert f"{IDENT}: stage 3: building it: 5 files compiled in the guest" in said
    assert (made.path / part.ROOT / "kernel").read_bytes() == guest.kernel.read_bytes()
    assert (made.path / part.LOG).read_text() == "./kernel type=file uname=root mode=0555 flags=schg\n"
    assert made.facts["seconds"] == 90
    data = made.facts["sections"][".data"]
    assert data == {"cross": len("built here") + 1, "native": len("built far") + 1, "differing": 4}
    assert made.facts["sections"][".text"]["differing"] == 0
    assert made.facts["sections"][".bss"] == {"cross": 0, "native": 0, "differing": 0}


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ({"call": "nothing"}, "does not call __stack_smash_handler"),
        ({"compiler": "clang-14"}, "was made by .*clang"),
        ({"protector": "off"}, "calls __stack_smash_handler, which must not be there"),
    ],
)
def test_a_kernel_that_is_not_what_the_cell_says_is_none(tmp_path: Path, made: dict[str, str], why: str) -> None:
    variant = replace(VARIANT, stack_protector=made.pop("protector", VARIANT.stack_protector))
    guest = Guest(program(tmp_path, "native", "x", **made), ["7\n1090\n0\nstage 3: building it\n"])
    with pytest.raises(BuildFailed, match=why):
        built(recipe(tmp_path, guest, variant), tmp_path)


def test_what_fails_in_the_guest_is_the_builds_fault(tmp_path: Path) -> None:
    guest = Guest(program(tmp_path, "native", "-"), ["5\n1020\n1\n"])
    with pytest.raises(BuildFailed, match="nativekernel") as caught:
        build_all(recipe(tmp_path, guest), ArtefactStore(Workspace(tmp_path / "w")), Deadline.after(60), print)
    assert "Error code 1" in caught.value.tail
    assert caught.value.component == IDENT


def test_a_guest_that_cannot_be_looked_at_has_not_failed_to_build(tmp_path: Path) -> None:
    guest = Guest(program(tmp_path, "native", "-"), [])
    with pytest.raises(BuildFailed, match="cannot look") as caught:
        build_all(recipe(tmp_path, guest), ArtefactStore(Workspace(tmp_path / "w")), Deadline.after(60), print)
    assert "arith" in caught.value.tail


def test_a_guest_without_a_clock_is_told_of(tmp_path: Path) -> None:
    guest = Guest(program(tmp_path, "native", "-"), ["5\nnever\n0\n"])
    with pytest.raises(BuildFailed, match="never"):
        build_all(recipe(tmp_path, guest), ArtefactStore(Workspace(tmp_path / "w")), Deadline.after(60), print)


def pack(directory: Path, files: dict[str, Path]) -> Path:
    """What a guest installed, as it packs that, with links and with what would lie elsewhere."""
    packed = directory / "installed.tgz"
    with tarfile.open(packed, "w:gz") as archive:
        for name, path in files.items():
            archive.add(path, name)
        for name, kind, leads in (
            ("./bin/[", tarfile.LNKTYPE, "./bin/test"),
            ("./bin/link", tarfile.SYMTYPE, "/etc"),
            ("../evil", tarfile.REGTYPE, ""),
            ("/evil", tarfile.REGTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, leads
            archive.addfile(member)
    return packed


def world(tmp_path: Path, guest: Guest, release: Release = RELEASE, compiler: str = "gcc34") -> Recipe:
    def crossed(kitchen: Kitchen) -> dict[str, object]:
        root = kitchen.directory / part.ROOT
        (root / "bin").mkdir(parents=True)
        for name in ("test", "[", "sh", "ls"):
            shutil.copyfile(program(tmp_path, "crossed", "here"), root / "bin" / name)
            (root / "bin" / name).chmod(0o555)
        (root / "bin/script").write_text("#!/bin/sh\n")
        (root / "bin/link").symlink_to("sh")
        (root / "etc").mkdir()
        (root / "etc/fstab").write_text("")
        shutil.copyfile(root / "bin/sh", root / "only-here")
        log = "".join(f"./bin/{name} type=file mode=0555\n" for name in ("test", "[", "sh", "script", "ls"))
        (kitchen.directory / part.LOG).write_text(f"./bin type=dir\n{log}./only-here type=file mode=0644\n")
        return {}

    def disk(name: str) -> Recipe:
        return Recipe(StepKind.IMAGE, name, {}, lambda kitchen: {})

    objects = disk("objects") if data.of(release).image.hammer2 is not None else None
    cross = Recipe(StepKind.WORLD, "gcc34+ssp", {}, crossed)
    variant = Variant(release.name, compiler, "on", "smp")
    protection = RELEASE.stack_protectors["on"].of_world
    return nativeworld.recipe(release, variant, protection, disk("builder"), objects, cross, Login(), guest)


def installed(tmp_path: Path) -> Path:
    same, other = program(tmp_path, "crossed", "here"), program(tmp_path, "else", "here", compiler="clang-14")
    script = tmp_path / "script"
    script.write_text("#!/bin/csh\n")
    files = {"./bin/test": same, "./bin/sh": same, "./bin/ls": other, "./bin/script": script, "./bin/mine": same}
    return pack(tmp_path, files)


DONE = "900\n4600\n0\nstage 4: building everything..\n"


def built(recipe: Recipe, tmp_path: Path, said: list[str] | None = None) -> Artefact:
    say = print if said is None else said.append
    return build_all(recipe, ArtefactStore(Workspace(tmp_path / "w")), Deadline.after(60), say)


def test_a_world_is_built_by_the_trees_own_make(tmp_path: Path) -> None:
    guest = Guest(installed(tmp_path), ["0\n1010\nrunning\n", DONE])
    said: list[str] = []
    made = built(world(tmp_path, guest), tmp_path, said)
    assert "world: 0 files compiled in the guest" in said
    assert guest.disks == 1
    assert b"-fstack-protector" in guest.put_there["/etc/make.conf"]
    start = next(command for command in guest.commands if "buildworld" in command)
    assert "cd /usr/src" in start
    assert "export CCVER=gcc34; make buildworld && " in start
    assert made.facts["seconds"] == 3600
    assert made.facts["programs"]["count"] == 4
    assert made.facts["programs"]["same"] == 3
    assert made.facts["programs"]["as large"] == 0
    (told,) = made.facts["programs"]["differ"].items()
    assert told[0] == "bin/ls" and re.fullmatch(r"[1-9]\d* of \d+ bytes", told[1])
    assert made.facts["missing"] == ["only-here"]


def test_of_what_a_guest_installed_only_what_the_cross_built_world_has_is_taken(tmp_path: Path) -> None:
    made = built(world(tmp_path, Guest(installed(tmp_path), [DONE])), tmp_path)
    root = made.path / part.ROOT
    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()) == [
        f"bin/{name}" for name in ("[", "ls", "script", "sh", "test")
    ]
    assert not (root / "bin/link").is_symlink()
    assert (root / "bin/[").read_bytes() == (root / "bin/test").read_bytes()
    assert (root / "bin/script").read_text() == "#!/bin/csh\n"
    assert (root / "bin/sh").stat().st_mode & 0o777 == 0o555
    assert [line.split()[0] for line in (made.path / part.LOG).read_text().splitlines()] == [
        f"./bin/{name}" for name in ("test", "[", "sh", "script", "ls")
    ]
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("kept", [0, 5, 100, 500])
def test_what_is_no_whole_archive_is_the_builds_fault(tmp_path: Path, kept: int) -> None:
    packed = installed(tmp_path)
    packed.write_bytes(packed.read_bytes()[:kept] or b"none")
    with pytest.raises(BuildFailed, match="cannot be read"):
        built(world(tmp_path, Guest(packed, [DONE])), tmp_path)


@pytest.mark.parametrize("begun", [False, True])
def test_where_a_release_has_hammer2_the_objects_lie_on_it(tmp_path: Path, begun: bool) -> None:
    guest = Guest(installed(tmp_path), [DONE], begun=begun)
    built(world(tmp_path, guest, releases.load("master"), "gcc80"), tmp_path)
    assert guest.disks == 2
    formats = [command for command in guest.commands if "newfs_hammer2" in command]
    assert formats == ([] if begun else ["newfs_hammer2 -f /dev/vbd1s1d && mount -t hammer2 /dev/vbd1s1d /usr/obj"])
    assert bool(guest.put_there) is not begun


def test_a_guest_that_builds_for_hours_is_saved_now_and_then(tmp_path: Path) -> None:
    times = (1020, 1590, 1610, 2200, 2220)
    looks = [f"0\n{seconds}\nrunning\n" for seconds in times]
    guest = Guest(installed(tmp_path), [*looks, "900\n2800\n0\n"])
    built(world(tmp_path, guest), tmp_path)
    assert guest.saved == 2


def test_make_is_started_once_however_often_the_guest_is_come_back_to(tmp_path: Path) -> None:
    guest = Guest(installed(tmp_path), [DONE])
    built(world(tmp_path, guest), tmp_path)
    start = next(command for command in guest.commands if "buildworld" in command)
    here = start.replace("/var/tmp", str(tmp_path)).replace("/usr/src", str(tmp_path))
    here = here.replace("/usr/obj", str(tmp_path))
    (tmp_path / "make").write_text("#!/bin/sh\necho $CCVER $1 >> started\n")
    (tmp_path / "make").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    answers = {
        subprocess.run(["sh", "-c", f"{here}; wait"], env=environment, check=True, capture_output=True).stdout
        for _ in range(2)
    }
    assert len(answers) == 1
    assert int(answers.pop()) > 0
    assert (tmp_path / "started").read_text() == "gcc34 buildworld\ngcc34 installworld\n"
    assert (tmp_path / "native.status").read_text() == "0\n"


def test_a_world_that_fails_in_the_guest_says_where(tmp_path: Path) -> None:
    guest = Guest(program(tmp_path, "log", "-"), ["5\n1020\n1\nstage 1: bootstrap tools\n"])
    with pytest.raises(BuildFailed, match=r"make buildworld .*failed") as caught:
        built(world(tmp_path, guest), tmp_path)
    assert "Error code 1" in caught.value.tail


def test_the_sources_of_a_world_are_the_tree_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "tree/bin/sh").mkdir(parents=True)
    (tmp_path / "tree/.git").mkdir()
    (tmp_path / "tree/Makefile").write_text("all:\n")
    (tmp_path / "tree/bin/sh/mkbuiltins").write_text("/usr/bin/mktemp")
    (tmp_path / "tree/bin/sh/mktokens").write_text("#!/bin/sh\n")
    sources = nativeworld.sources(
        Tree(tmp_path / "tree", "1.2", Hashes(tmp_path / "tree", tmp_path / "hashes.json"))
    )
    made = built(sources, tmp_path)
    there = made.path / part.ROOT / "usr/src"
    assert sorted(path.name for path in there.iterdir()) == ["Makefile", "bin"]
    assert (there / "bin/sh/mkbuiltins").read_text() == "/usr/bin/mktemp"
    # The permission to be run does not outlive every way that a tree goes, and makefiles want it.
    modes = {path.name: path.stat().st_mode & 0o777 for path in (there / "bin/sh").iterdir()}
    assert modes == {"mkbuiltins": 0o644, "mktokens": 0o755}


@pytest.mark.parametrize("toolchain", ["gcc80", "gcc-12", "clang-14"])
def test_kernels_of_a_compiler_of_this_host_are_not_built_in_guests(tmp_path: Path, toolchain: str) -> None:
    master = releases.load("master")
    tree = Tree(tmp_path, "master", Hashes(tmp_path, tmp_path / "hashes.json"))
    cell = Cell(Variant("master", toolchain, "strong", "nx1"), replace(master.own_shape, name="smp1"))
    assert Target(tree, tree).refuse(master, cell) is None
    refusal = Target(tree, tree, Guest(tmp_path, []), Built.NATIVE).refuse(master, cell)
    if toolchain in data.of(master).native:
        assert refusal is None
    else:
        assert refusal is not None
        assert f"{toolchain} is this host's compiler" in refusal.reason


@pytest.mark.parametrize(
    ("release", "device", "reason"),
    [
        ("master", {"disk": "am53c974"}, "only for virtio-blk, mptsas1068"),
        ("master", {"nic": "rtl8139"}, "guests of master are not made for nic 'rtl8139', only for e1000, vmxnet3"),
        ("1.2", {"nic": "virtio-net"}, "guests of 1.2 are not made for nic 'virtio-net', only for e1000"),
        ("1.2", {"disk": "ahci"}, "only for ide, lsi53c895a"),
    ],
)
def test_devices_that_have_no_name_in_the_guest_are_refused(
    tmp_path: Path, release: str, device: dict[str, str], reason: str
) -> None:
    known = releases.load(release)
    tree = Tree(tmp_path, release, Hashes(tmp_path, tmp_path / "hashes.json"))
    cell = Cell(Variant(release, "gcc34", "on", "smp"), known.own_shape)
    assert Target(tree, tree).refuse(known, cell) is None
    refusal = Target(tree, tree).refuse(known, replace(cell, shape=replace(cell.shape, **device)))
    assert refusal is not None and reason in refusal.reason
