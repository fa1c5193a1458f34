"""The reference guest under QEMU: to its login prompt, over SSH's port, its wire, and its disk left alone."""

from __future__ import annotations

import hashlib
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from raw_console import read_until

from dfbuild.deadline import Deadline
from dfbuild.guest import create
from dfbuild.guest.accel import probe
from dfbuild.guest.protocol import Guest, GuestSpec
from dfbuild.model import Media, Shape
from dfbuild.runtime import runtime_directory
from dfbuild.workspace import Workspace

pytestmark = pytest.mark.boot


def minutes(count: float) -> Deadline:
    return Deadline.after(count * 60)


@dataclass
class Booted:
    guest: Guest
    console: socket.socket
    wire: socket.socket
    printed: bytes
    digest: bytes
    """Of the disk image, before the guest started."""


def digest(media: Media) -> bytes:
    return hashlib.sha256(media.disks[0].path.read_bytes()).digest()


@pytest.fixture(scope="module")
def booted(reference_media: Media, workspace: Workspace) -> Iterator[Booted]:
    """One guest for all tests here: two sockets with hyper-threads, at its login prompt."""
    before = digest(reference_media)
    shape = Shape("ht2", threads=2)
    spec = GuestSpec("reference", shape, reference_media, runtime_directory("t"))
    guest = create(spec, probe(workspace, minutes(1)))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
            wire.bind(str(guest.wire_ends().peer))
            console = guest.start(minutes(1))
            printed = read_until(console, b"login: ", minutes(3))
            console.sendall(b"root\n")
            read_until(console, b"# ", minutes(1))
            yield Booted(guest, console, wire, printed, before)
    finally:
        guest.stop(minutes(1))
        shutil.rmtree(spec.directory)


def test_it_boots_to_its_login_prompt(booted: Booted) -> None:
    assert b"Linux version" in booted.printed


def test_ssh_answers_on_the_forwarded_port(booted: Booted) -> None:
    address = booted.guest.ssh_address(minutes(1))
    deadline = minutes(1)
    banner = b""
    while not banner:
        # QEMU accepts before the guest does: only a banner proves somebody is there.
        deadline.check("an SSH banner")
        with socket.create_connection(address, timeout=deadline.remaining()) as connection:
            banner = connection.recv(64)
    assert banner.startswith(b"SSH-2.0-")


def test_the_disk_image_is_left_alone(booted: Booted, reference_media: Media) -> None:
    assert digest(reference_media) == booted.digest
    overlays = [path for path in booted.guest.spec.directory.iterdir() if path.suffix == ".qcow2"]
    assert len(overlays) == len(reference_media.disks)


def test_frames_leave_through_the_wire_and_come_in(booted: Booted) -> None:
    run(booted, b"ip addr add 10.9.0.1/24 dev eth1; ip link set eth1 up")
    ours = bytes.fromhex("02 00 00 00 00 01")
    request = (
        b"\xff" * 6 + ours + bytes.fromhex("0806 0001 0800 06 04 0001")
        + ours + bytes([10, 9, 0, 2]) + bytes(6) + bytes([10, 9, 0, 1])
    )  # fmt: skip
    booted.wire.sendto(request.ljust(60, b"\0"), str(booted.guest.wire_ends().guest))
    deadline = minutes(1)
    while True:
        deadline.select(booted.wire.fileno(), what="an ARP reply")
        frame = booted.wire.recv(2048)
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x02":
            break
    assert frame[:6] == ours
    assert frame[28:32] == bytes([10, 9, 0, 1])


def test_a_pause_stops_it_and_a_diagnosis_shows_both_threads(booted: Booted) -> None:
    booted.guest.pause(minutes(1))
    text = booted.guest.diagnose(minutes(1))
    booted.guest.resume(minutes(1))
    assert "paused" in text and "CPU#1" in text and "RIP=" in text


def test_the_guest_sees_one_core_with_two_threads(booted: Booted) -> None:
    printed = run(booted, b"cat /sys/devices/system/cpu/cpu1/topology/thread_siblings_list")
    assert b"0-1" in printed


def test_a_virtio_console_takes_its_place(reference_media: Media, workspace: Workspace) -> None:
    media = replace(reference_media, append=reference_media.append.replace("ttyS0", "hvc0"))
    spec = GuestSpec("hvc", Shape("hvc", console="virtio"), media, runtime_directory("t"), wire=False)
    guest = create(spec, probe(workspace, minutes(1)))
    try:
        with guest.start(minutes(1)) as console:
            read_until(console, b"login: ", minutes(3))
        assert guest.stop(minutes(1)).rung == "quit"
    finally:
        guest.stop(minutes(1))
        shutil.rmtree(spec.directory)


def run(booted: Booted, command: bytes) -> bytes:
    """Run a command in the console's shell and return what was printed."""
    # The quotes keep the echo of the command from looking like its end.
    booted.console.sendall(command + b"; echo en''d-of-it\n")
    return read_until(booted.console, b"end-of-it\r\n", minutes(1))
