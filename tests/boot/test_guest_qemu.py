"""QEMU's own side of a guest: every model is one that it knows, the ladder's middle rung, the accelerator."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from payload import BANNER, write_disk

from dfbuild.deadline import Deadline
from dfbuild.errors import InfraError
from dfbuild.guest import accel as accel_module
from dfbuild.guest.accel import Accel, probe, qemu_version, run_probe
from dfbuild.guest.models import CONSOLES, DISKS, NICS
from dfbuild.guest.monitor import ResetWatch
from dfbuild.guest.process import EarlyDeath
from dfbuild.guest.protocol import GuestSpec
from dfbuild.guest.qemu import QemuGuest
from dfbuild.model import Disk, Media, Shape
from dfbuild.runtime import runtime_directory
from dfbuild.workspace import Workspace

pytestmark = pytest.mark.boot

TCG = Accel("tcg")


def soon() -> Deadline:
    return Deadline.after(30)


@pytest.fixture
def directory() -> Iterator[Path]:
    made = runtime_directory("t")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "empty.img"
    path.write_bytes(bytes(1 << 20))
    return path


def start(directory: Path, shape: Shape, *images: Path, **more: object) -> tuple[QemuGuest, socket.socket]:
    media = Media(disks=tuple(Disk(path, "raw") for path in images))
    guest = QemuGuest(GuestSpec("t", shape, media, directory, **more), TCG)  # type: ignore[arg-type]
    return guest, guest.start(soon())


# Every model once, on each chipset that can have it: one more than a disk and a NIC cannot tell more.
SHAPES = [
    *(
        Shape(f"{name}-{machine}", disk=name, machine=machine)
        for name, m in DISKS.items()
        for machine in m.machines
    ),
    *(Shape(name, nic=name, machine="pc") for name in NICS),
    *(Shape(name, console=name) for name in CONSOLES),
    Shape("ht", sockets=2, cores=2, threads=2),
    Shape("nx-off", nx=False),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_qemu_takes_every_shape_without_complaint(shape: Shape, directory: Path, image: Path) -> None:
    guest, console = start(directory, shape, image, image)
    with console:
        end = guest.stop(soon())
    assert (end.status, end.rung, end.stderr) == (0, "quit", "")


def test_a_process_that_only_hears_signals_is_terminated(directory: Path) -> None:
    guest, console = start(directory, Shape("up"))
    assert guest._qmp is not None
    guest._qmp.close(soon())
    with console:
        end = guest.stop(soon())
    assert (end.rung, end.status) == ("terminate", 0)
    assert "terminating on signal 15" in end.stderr


def test_a_guest_that_resets_itself_ends_even_after_a_reset_from_here(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is the firmware's: its own reset stands in for the guest's.
    monkeypatch.setattr(ResetWatch, "FIRMWARE_SECONDS", -1.0)
    guest, console = start(directory, Shape("up", memory=32), write_disk(tmp_path / "payload.img"))
    with console:
        assert console.recv(1) == BANNER[:1]  # SeaBIOS resets only where it ran before
        guest.reset(soon())
        end = guest.wait(soon())
    assert (end.rung, end.cause, end.status) == ("guest", "guest-reset", 0)


def test_odd_paths_survive_the_whole_way(tmp_path: Path, image: Path) -> None:
    odd = runtime_directory("t") / "a,b=c 'd' \"e\" %s"
    odd.mkdir(mode=0o700)
    disk = tmp_path / "base,file=x:y #1.img"
    shutil.copy(image, disk)
    try:
        guest, console = start(odd, Shape("up"), disk)
        with console:
            assert guest.stop(soon()).stderr == ""
    finally:
        shutil.rmtree(odd.parent)


def test_images_behind_links_are_found(directory: Path, tmp_path: Path, image: Path) -> None:
    (tmp_path / "link.img").symlink_to(image)
    guest, console = start(directory, Shape("up"), tmp_path / "link.img")
    with console:
        assert guest.stop(soon()).stderr == ""


def test_an_early_death_is_reported_at_once_with_everything(directory: Path) -> None:
    with pytest.raises(EarlyDeath) as caught:
        start(directory, Shape("up"), extra=("-device", "no,such=device"))
    assert "no" in caught.value.stderr and caught.value.status == 1
    assert "qemu-system-x86_64" in str(caught.value) and "no,such=device" in str(caught.value)


def test_a_broken_image_names_itself(directory: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.qcow2"
    broken.write_bytes(b"this is no qcow2 image")
    guest = QemuGuest(GuestSpec("t", Shape("up"), Media(disks=(Disk(broken),)), directory), TCG)
    with pytest.raises(InfraError, match=r"broken\.qcow2"):
        guest.start(soon())


def test_kvm_asked_for_where_it_does_not_work_is_refused(directory: Path) -> None:
    spec = GuestSpec("t", Shape("fast", accel="kvm"), Media(), directory)
    with pytest.raises(InfraError, match="a good reason") as caught:
        QemuGuest(spec, Accel("tcg", "a good reason")).start(soon())
    assert "auto" in caught.value.hint


# ── the accelerator ───────────────────────────────────────────────────────────────────────────────────────────────
def test_the_probe_guest_runs_to_its_end_under_emulation() -> None:
    works, why = run_probe("tcg", soon())
    assert works, why
    assert "ran under tcg" in why


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (bytes.fromhex("fa f4 eb fd"), "never ran an instruction (no end"),  # cli; hlt; for ever
        (bytes.fromhex("b0 52 ba f8 03 ee f4 eb fd"), "never reached long mode (no end"),  # prints R, halts
        (bytes.fromhex("b0 31 e6 f4 f4"), "never ran an instruction (QEMU ended with status 99"),  # leaves at once
    ],
    ids=["hangs", "hangs later", "lies"],
)
def test_a_guest_that_does_not_get_through_is_no_proof(
    code: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel_module, "_PROBE_SECONDS", 2.0)
    rom = bytearray(64 << 10)
    rom[-16:-11] = bytes.fromhex("ea 00 00 00 f0")
    rom[: len(code)] = code
    works, seen = run_probe("tcg", soon(), bytes(rom))
    assert not works
    assert why in seen


def test_the_verdict_is_cached_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fake(name: str, deadline: Deadline) -> tuple[bool, str]:
        asked.append(name)
        return works, "it ran"

    works = True

    node = tmp_path / "kvm"
    node.touch()
    monkeypatch.setattr(accel_module, "_KVM", node)
    monkeypatch.setattr(accel_module, "run_probe", fake)
    workspace = Workspace(tmp_path)
    assert probe(workspace, soon()) == probe(workspace, soon()) == Accel("kvm", "it ran")
    assert asked == ["kvm"]
    for broken in ("", "{", "[]", '{"key": 1}', json.dumps({"key": "other", "name": "tcg", "reason": ""})):
        (workspace.cache / "accel.json").write_text(broken)
        assert probe(workspace, soon()).name == "kvm"
    assert len(asked) == 6
    monkeypatch.setattr(accel_module, "qemu_version", lambda: "0.0")
    probe(workspace, soon())
    assert len(asked) == 7
    works = False
    cached = workspace.cache / "accel.json"
    cached.unlink()
    assert probe(workspace, soon()) == probe(workspace, soon()) == Accel("tcg", "it ran")
    assert len(asked) == 8
    # The host may have been too busy then.
    long_ago = cached.stat().st_mtime - 4000
    os.utime(cached, (long_ago, long_ago))
    works = True
    assert probe(workspace, soon()).name == "kvm"
    assert len(asked) == 9


def test_no_device_means_emulation_without_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel_module, "_KVM", tmp_path / "none")
    found = probe(Workspace(tmp_path), soon())
    assert found.name == "tcg" and "is not there" in found.reason
    assert not (tmp_path / "cache").exists()


def test_this_hosts_verdict_is_one_that_runs() -> None:
    """Whatever the probe says here, a guest must run under it."""
    directory = runtime_directory("t")
    try:
        found = probe(Workspace(directory), soon())
        assert run_probe(found.name, soon())[0], found
    finally:
        shutil.rmtree(directory)


def test_qemu_has_a_version() -> None:
    assert qemu_version()[0].isdigit()
