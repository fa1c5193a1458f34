"""A disk whose root is HAMMER2: what is written here, and how a guest is told to write the rest."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dfbuild import filter, releases
from dfbuild.build.bench import no_machine
from dfbuild.build.dragonfly import Target, data, hammer2, image, part
from dfbuild.build.recipe import DISK, Artefact, Kitchen, Recipe
from dfbuild.build.store import MANIFEST, ArtefactStore, build_all
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed, UsageError
from dfbuild.image import disk64, dragonfly, identity
from dfbuild.image.inodes import Inodes
from dfbuild.image.manifest import Kind
from dfbuild.model import Cell, Login, Media, Shape, StepKind, Variant
from dfbuild.releases import Release
from dfbuild.shell.protocol import Answer
from dfbuild.workspace import Workspace

MASTER = releases.load("master")
SMALL = MASTER.model_copy(
    update={
        "build": {
            **MASTER.build,
            "image": {**MASTER.build["image"], "root": 32, "swap": 8, "hammer2": {"boot": 32, "root": 1024}},
        }
    }
)
VARIANT = Variant("master", "gcc80", "off", "nx1")
WORLD = {
    "etc/master.passwd": b"root::0:0::0:0:Charlie &:/root:/bin/csh\n",
    "etc/group": b"wheel:*:0:root\noperator:*:5:root\n",
    "boot/mbr": b"\xfc\x31\xc0",
    "boot/boot1_64": b"\xeb\x3c".ljust(510, b"\x90") + b"\x55\xaa",
    "boot/boot2_64": b"2" * 7168,
    "boot/loader": b"loader",
    "bin/su": b"su",
}
LOG = "./boot/loader type=file uname=root gname=operator mode=0555\n"
FSTAB = b"/dev/vbd0s1d\t/\thammer2\trw\t1\t1\n"


def small_world() -> Recipe:
    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        for path, content in WORLD.items():
            part.replace(kitchen.directory / part.ROOT, path, content)
        (kitchen.directory / part.LOG).write_text(LOG)
        return {}

    return Recipe(StepKind.WORLD, "world", {}, make)


def build(recipe: Recipe, place: Path) -> Artefact:
    return build_all(recipe, ArtefactStore(Workspace(place)), Deadline.after(120), print)


def raw(disk: Path, target: Path) -> Path:
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, target], check=True)
    return target


# ── what is written here ─────────────────────────────────────────────────────────────────────────────────────────


def test_all_is_there_but_the_root(tmp_path: Path) -> None:
    keys = identity.ensure(Workspace(tmp_path), "dragonfly", identity.Kind.RSA)
    recipe = image.recipe(SMALL, "nx1", [small_world()], keys, disk_model="ahci", hammer2=True)
    assert recipe.name == "nx1 on ahci but for its root"
    one, other = build(recipe, tmp_path / "a"), build(recipe, tmp_path / "b")
    assert one.facts == other.facts, "the same from the same input"
    assert [path.name for path in one.path.iterdir() if path.name != MANIFEST] == [DISK]
    disk, layout = raw(one.path / DISK, tmp_path / "disk"), disk64.plan(32, 8, 1024)
    assert disk.stat().st_size == layout.end * 512
    with Inodes(disk, layout.ufs_at) as inodes:
        found = dict(inodes.walk())
        files = {name: inodes.content(one) for name, one in found.items() if one.kind is Kind.FILE}
    assert {name.partition("/")[0] for name in files} == {
        "boot.config", "boot1_64", "boot2_64", "loader", "loader.conf", "mbr"
    }, "what a boot program looks for is at the top, and nothing of the root is there"  # fmt: skip
    assert files["boot.config"] == dragonfly.files(image.settings(SMALL, keys))["boot.config"]
    assert b'vfs.root.mountfrom="hammer2:da0s1d"\n' in files["loader.conf"]
    assert (found["loader"].mode & 0o777, found["loader"].gid) == (0o555, 5)


def test_a_ufs_root_is_the_loaders_own_choice(tmp_path: Path) -> None:
    keys = identity.ensure(Workspace(tmp_path), "dragonfly", identity.Kind.RSA)
    files = dragonfly.files(image.settings(MASTER, keys))
    assert b"mountfrom" not in files["boot/loader.conf"] and b"hammer2" not in files["etc/fstab"]
    files = dragonfly.files(image.settings(MASTER, keys, hammer2=True))
    assert b"/dev/vbd0s1d\t/\thammer2\t" in files["etc/fstab"]
    assert b"/dev/vbd0s1a\t/boot\tufs\t" in files["etc/fstab"]
    assert b"/dev/vbd0s1b\tnone\tswap\t" in files["etc/fstab"]


# ── what a guest writes ──────────────────────────────────────────────────────────────────────────────────────────


class Guest:
    """A machine and its shell, in which the command that begins with `fails` does."""

    def __init__(self, fails: str = "none") -> None:
        self.fails = fails
        self.disks: list[bytes] = []
        self.commands: list[str] = []
        self.put_there: dict[str, bytes] = {}

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
        assert kept is not None and memory == release.shape.memory
        self.disks = [disk.path.read_bytes() for disk in media.disks]
        kept.mkdir()
        for number, disk in enumerate(media.disks):
            overlay = kept / f"disk{number}.qcow2"
            argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk.path, "-F", "qcow2", overlay]
            subprocess.run(argv, check=True)
            subprocess.run(["qemu-io", "-c", f"write -P {number + 65} 4096 512", overlay], check=True)
        yield self

    def run(self, command: str, deadline: Deadline) -> Answer:
        self.commands.append(command)
        if command.startswith(self.fails):
            return Answer(command, 1, b"No space left on device")
        return Answer(command, 0, b"")

    def put(self, source: Path, target: str, deadline: Deadline) -> None:
        self.put_there[target] = source.read_bytes()

    def get(self, source: str, target: Path, deadline: Deadline) -> None:
        raise AssertionError("nothing is fetched but the disk")

    def save(self, deadline: Deadline) -> None:
        raise AssertionError("what it wrote is lost with the attempt")


def disk(name: str, mark: bytes) -> Recipe:
    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        file = kitchen.directory / "raw"
        file.write_bytes(mark * 8192)
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", file, kitchen.directory / DISK], check=True)
        file.unlink()
        return {"ssh": mark == b"o"}

    return Recipe(StepKind.IMAGE, name, {}, make)


def filled(guest: Guest) -> Recipe:
    old, new = disk("nx1", b"o"), disk("nx1 on ahci but for its root", b"n")
    return hammer2.recipe(MASTER, "nx1 on ahci on HAMMER2", VARIANT, old, new, FSTAB, Login(), guest)


def test_a_guest_fills_the_second_of_its_disks_from_the_third(tmp_path: Path) -> None:
    guest = Guest()
    recipe = filled(guest)
    assert recipe.name == "nx1 on ahci on HAMMER2"
    made = build(recipe, tmp_path)
    old, new, again = guest.disks
    assert old == again != new
    assert guest.commands[0] == "newfs_hammer2 -f /dev/vbd1s1d"
    assert "/dev/vbd2s1a" in guest.commands[1] and guest.commands[-1].startswith("umount ")
    (place,) = guest.put_there
    assert guest.put_there[place] == FSTAB and any(f"cp {place} " in command for command in guest.commands)
    assert made.facts["ssh"] is True
    assert list(made.facts["seconds"]) == [
        "formatting", "mounting", "copying", "configuration", "unmounting"
    ]  # fmt: skip
    assert sorted(path.name for path in made.path.iterdir()) == sorted([MANIFEST, DISK])
    assert (made.path / DISK).stat().st_mode & 0o777 == 0o600
    content = raw(made.path / DISK, tmp_path / "raw").read_bytes()
    assert content == b"n" * 4096 + b"B" * 512 + b"n" * 3584, "as it was, with what the guest wrote on it"


def test_a_step_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    guest = Guest("cpdup")
    with pytest.raises(BuildFailed, match="copying failed in the guest") as caught:
        build(filled(guest), tmp_path)
    assert caught.value.tail.endswith("No space left on device")
    assert caught.value.log is not None and "newfs_hammer2" in caught.value.log.read_text()
    assert guest.commands[-1].startswith("cpdup "), "nothing is done after that"


@pytest.mark.parametrize(("first", "names"), [("vbd0", ["vbd0", "vbd1"]), ("da0", ["da0", "da1"])])
def test_disks_are_counted_by_the_guest(first: str, names: list[str]) -> None:
    assert [hammer2.nth(first, number) for number in range(2)] == names


# ── the target ───────────────────────────────────────────────────────────────────────────────────────────────────


class Source:
    """A tree with all that is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        conf = path / data.kernel(MASTER).config
        conf.parent.mkdir(parents=True)
        conf.write_text("ident X86_64_GENERIC\n")

    def still(self) -> Source:
        return self

    def hash_of(self, parts: Iterable[str]) -> str:
        return " ".join(parts)


def shape(**fields: str) -> Shape:
    return Shape("x", **{**MASTER.shape.given(), **fields})


def test_it_is_filled_from_the_disk_that_the_plain_shape_boots(tmp_path: Path) -> None:
    source, workspace = Source(tmp_path / "src"), Workspace(tmp_path / "work")
    target = Target(source, source, Guest())  # type: ignore[arg-type]

    def recipe(**fields: str) -> Recipe:
        return target.image(MASTER, Cell(VARIANT, shape(**fields)), workspace)

    plain, whole, efi, other = recipe(), recipe(root="hammer2"), recipe(root="hammer2", firmware="uefi"), recipe()
    assert other is plain
    assert plain.needs != whole.needs and whole.needs[0] is plain is efi.needs[0]
    assert (whole.needs[1].name, efi.needs[1].name) == (
        "gcc80/nx1 but for its root", "gcc80/nx1 for uefi but for its root"
    )  # fmt: skip
    assert len({plain.key, whole.key, efi.key, whole.needs[1].key}) == 4
    (kernel,) = [step for step in whole.walk() if step.kind is StepKind.KERNEL]
    file = ArtefactStore(workspace).path(kernel) / part.ROOT / data.kernel(MASTER).installed
    file.parent.mkdir(parents=True)
    file.write_bytes(b"ELF")
    made = Artefact(StepKind.IMAGE, whole.name, whole.key, tmp_path, {})
    symbols = target.media(MASTER, Cell(VARIANT, shape(root="hammer2")), made, workspace).symbols
    assert symbols is not None and symbols.file == file, "of the kernel that both disks have"


def test_nobody_is_there_to_fill_it(tmp_path: Path) -> None:
    kitchen = Kitchen(tmp_path, (), Workspace(tmp_path), Deadline.after(1), tmp_path / "log", print)
    with pytest.raises(UsageError, match=r"a guest of master/gcc80/nx1 is needed"):
        no_machine(MASTER, VARIANT, Media(), 64, kitchen)


@pytest.mark.parametrize("name", releases.available())
def test_releases_refuse_a_root_that_they_have_no_disk_with(name: str) -> None:
    release = releases.load(name)
    variant = Variant(name, next(iter(release.toolchains)), "off", next(iter(release.kernels)))

    def because(root: str) -> list[str]:
        other = Cell(variant, Shape("x", **{**release.shape.given(), "root": root}))
        plain = Cell(variant, Shape("x", **release.shape.given()))
        rules = ((rule, filter.compile(rule.when)) for rule in release.refuse)
        found = [rule for rule, holds in rules if holds(other.attributes()) and not holds(plain.attributes())]
        assert all(rule.evidence for rule in found)
        return [rule.reason for rule in found]

    if release.target != "dragonfly":
        assert because("ext4") == [] and len(because("ufs")) == len(because("hammer2")) == 1
        return
    assert because("ufs") == [] and len(because("ext4")) == 1
    if data.of(release).image.hammer2 is not None:
        assert because("hammer2") == [] and data.of(release).image.label == 64
        return
    (reason,) = because("hammer2")
    assert "HAMMER2 came with 5.0" in reason
    with pytest.raises(UsageError, match="has no HAMMER2"):
        data.hammer2(release)
