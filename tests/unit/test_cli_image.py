"""What `dfbuild image` says before anything is built or booted, and the names of base images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dfbuild.build import bases
from dfbuild.build.bases import Base, Based
from dfbuild.build.recipe import DISK, PROGRAMS, Artefact, Kitchen, Recipe
from dfbuild.build.store import ArtefactStore, build_all
from dfbuild.cli import image, main
from dfbuild.cli.guest import up
from dfbuild.cli.parser import build
from dfbuild.deadline import Deadline
from dfbuild.errors import UsageError
from dfbuild.image import mbr
from dfbuild.model import Cell, Disk, Media, Refusal, Shape, StepKind, Variant
from dfbuild.releases import Release, load
from dfbuild.workspace import Workspace

CONFIG = Path(__file__).parents[2] / "configs" / "reference.toml"
CELL = ("--cell", "reference/gcc-12+ssp/smp @ up")


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(mbr.sector(b"boot", []))
    return path


def take(work: Path, medium: Path, sum: str, *more: str) -> int:
    words = ["image", "import", str(medium), "--sha256", sum, "--work", str(work), "--json", *more]
    return image.take(build().parse_args(words))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_with_another_sum_is_not_taken(tmp_path: Path, medium: Path) -> None:
    other = hashlib.sha256(b"another").hexdigest()
    with pytest.raises(UsageError, match=f"its SHA-256 is {digest(medium)}, not {other}"):
        take(tmp_path / "work", medium, other.upper(), "--release", "master")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("sum", "more", "message"),
    [
        ("abc", (), "'abc' is no SHA-256"),
        ("", (), "'' is no SHA-256"),
        ("of it", (), "does not say which release it is of"),
        ("of it", ("--release", "reference"), "is not taken in from elsewhere"),
        ("of it", ("--release", "master", "--name", "../x"), r"'\.\./x' can't be a base image's name"),
    ],
)
def test_what_is_refused(tmp_path: Path, medium: Path, sum: str, more: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        take(tmp_path / "work", medium, digest(medium) if sum == "of it" else sum, *more)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.txt", r"text\.txt is neither a CD nor a disk by its name"),
        ("text.img", "is no disk: no boot sector"),
        ("text.iso", "is no CD: it has no ISO 9660"),
    ],
)
def test_what_a_file_is_comes_before_what_release_it_is_of(tmp_path: Path, name: str, message: str) -> None:
    file = tmp_path / name
    file.write_text("text\n")
    with pytest.raises(UsageError, match=message):
        take(tmp_path / "work", file, digest(file))
    assert not (tmp_path / "work").exists()


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        take(tmp_path, tmp_path / "none.iso", "0" * 64)


def test_a_disk_gets_a_name_and_is_listed(tmp_path: Path, medium: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    assert take(work, medium, digest(medium), "--release", "master") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["name"], report["release"]) == ("disk", "master")
    base = bases.find(Workspace(work), "disk")
    assert (base.medium, base.ssh) == (digest(medium), False)
    assert base.disk(Workspace(work)).parent == Path(report["path"])
    assert image.listing(build().parse_args(["image", "list", "--work", str(work)])) == 0
    assert capsys.readouterr().out == f"disk  master  {digest(medium)}\n"
    before = digest(medium)
    medium.write_bytes(mbr.sector(b"another", []))
    words = ["image", "import", str(medium), "--sha256", digest(medium), "--work", str(work), "--release", "5.8"]
    assert image.take(build().parse_args(words)) == 0
    assert f"no longer the one of master with SHA-256 {before}" in capsys.readouterr().out


def test_a_base_image_that_is_removed_leaves_its_disk_to_the_cleaning(
    tmp_path: Path, medium: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Workspace(tmp_path / "work")
    take(work.root, medium, digest(medium), "--release", "master")
    disk = bases.find(work, "disk").disk(work)
    where = ("--work", str(work.root))
    assert main(["clean", "--unused", "0", *where]) == main(["image", "remove", "disk", *where]) == 0
    assert "disk is no base image any more" in capsys.readouterr().out
    assert bases.known(work) == [] and disk.is_file()
    assert main(["clean", "--unused", "0", *where]) == 0
    assert not disk.exists()
    assert main(["image", "remove", "disk", *where]) == 2
    assert "no base image is called 'disk'" in capsys.readouterr().err


def test_what_is_no_base_images_file_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases/bad.json").write_text("garbage")
    assert main(["image", "remove", "bad", "--work", str(tmp_path)]) == 0
    assert not any((tmp_path / "bases").iterdir())


@pytest.mark.parametrize("output", ["none/live.iso", "."])
def test_where_a_cd_is_to_be_is_looked_at_first(output: str, tmp_path: Path) -> None:
    words = ["image", "iso", str(CONFIG), *CELL, "-o", str(tmp_path / output), "--work", str(tmp_path / "work")]
    with pytest.raises(UsageError, match="directory"):
        image.iso(build().parse_args(words))
    assert not (tmp_path / "work").exists()


def test_a_base_image_that_is_not_there(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(UsageError, match="no base image is called 'x'") as caught:
        bases.find(workspace, "x")
    assert "dfbuild image import" in caught.value.hint
    (workspace.bases / "bad.json").parent.mkdir(parents=True)
    (workspace.bases / "bad.json").write_text("garbage")
    with pytest.raises(UsageError, match="no base image's file") as damaged:
        bases.find(workspace, "bad")
    assert damaged.value.file == workspace.bases / "bad.json"
    bases.save(workspace, Base("y", "master", "0" * 64, "gone", True))
    assert [base.name for base in bases.known(workspace)] == ["y"]
    with pytest.raises(UsageError, match="no base image is called 'x'") as caught:
        bases.find(workspace, "x")
    assert caught.value.hint == "there are: y"
    with pytest.raises(UsageError, match="the disk of base image 'y' has gone"):
        bases.find(workspace, "y").disk(workspace)


def test_a_guest_of_a_base_image_of_another_release(tmp_path: Path) -> None:
    bases.save(Workspace(tmp_path), Base("y", "master", "0" * 64, "key", True))
    words = ["guest", "up", str(CONFIG), *CELL, "--work", str(tmp_path), "--base", "y"]
    with pytest.raises(UsageError, match="base image 'y' is of release master"):
        up(build().parse_args(words))


def test_the_reference_guest_has_no_live_system(tmp_path: Path) -> None:
    words = ["image", "iso", str(CONFIG), *CELL, "--work", str(tmp_path)]
    with pytest.raises(UsageError, match="has no live system"):
        image.iso(build().parse_args(words))


class Nothing:
    """Stands for the target: whatever it is asked for it must not be."""

    def image(self, release: Release, cell: Cell, workspace: Workspace) -> Recipe:
        raise AssertionError("the tree's image is not wanted")

    def refuse(self, release: Release, cell: Cell) -> Refusal | None:
        return None

    def media(self, release: Release, cell: Cell, image: Artefact, workspace: Workspace) -> Media:
        return Media(disks=(Disk(image.path / DISK),))


@pytest.mark.parametrize(
    ("shape", "wrong"),
    [
        (Shape("x", disk="virtio-blk"), ""),
        (Shape("x", disk="mptsas1068"), "base image y is made for disk 'virtio-blk', not 'mptsas1068'"),
        (Shape("x", firmware="uefi"), "base image y is made for firmware 'bios', not 'uefi'"),
        (Shape("x", root="hammer2"), "base image y is made for root 'ufs', not 'hammer2'"),
        (Shape("x", hypervisor="xen-hvm"), "base image y is made for hypervisor 'qemu', not 'xen-hvm'"),
    ],
)
def test_a_base_image_boots_on_the_hardware_that_it_was_made_on(shape: Shape, wrong: str) -> None:
    cell = Cell(Variant("master", "gcc80", "off", "nx1"), shape)
    refusal = Based(Nothing(), Base("y", "master", "0" * 64, "key", True)).refuse(load("master"), cell)
    assert (refusal.reason if refusal is not None else "") == wrong


def test_cells_boot_the_base_image_instead_of_the_trees(tmp_path: Path, medium: Path) -> None:
    work, release = Workspace(tmp_path / "work"), load("master")
    take(work.root, medium, digest(medium), "--release", "master")
    base = bases.find(work, "disk")
    cell = Cell(Variant("master", "gcc80", "off", "nx1"), Shape("x"))
    target = Based(Nothing(), base)
    made = build_all(target.image(release, cell, work), ArtefactStore(work), Deadline.after(60), print)
    assert made.facts == {"base": "disk", "medium": digest(medium), "ssh": False}
    (disk,) = target.media(release, cell, made, work).disks
    assert disk.path.samefile(base.disk(work))


class WithPrograms(Nothing):
    """One that puts the suites' programs on a CD."""

    def programs(self, release: Release, variant: Variant) -> Recipe:
        def make(kitchen: Kitchen) -> Mapping[str, Any]:
            (kitchen.directory / PROGRAMS).write_bytes(variant.id.encode())
            return {}

        return Recipe(StepKind.IMAGE, f"CD of {variant.id}", {}, make)


@pytest.mark.parametrize("ours", [True, False])
def test_a_disk_that_was_installed_here_gets_the_programs_on_a_cd(tmp_path: Path, medium: Path, ours: bool) -> None:
    work, release = Workspace(tmp_path / "work"), load("master")
    take(work.root, medium, digest(medium), "--release", "master")
    base = replace(bases.find(work, "disk"), ssh=ours)
    cell = Cell(Variant("master", "gcc80", "off", "nx1"), Shape("x"))
    target = Based(WithPrograms(), base)
    made = build_all(target.image(release, cell, work), ArtefactStore(work), Deadline.after(60), print)
    found = target.media(release, cell, made, work)
    assert [path.read_bytes() for path in found.cdroms] == ([cell.variant.id.encode()] if ours else [])
    assert len(found.disks) == 1
