"""Guests from UEFI firmware: it starts what we write and what it is given; the host's copy of it stays as it is."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from raw_console import read_until

from dfbuild.build.recipe import Artefact
from dfbuild.build.targets import target
from dfbuild.deadline import Deadline
from dfbuild.guest import create
from dfbuild.guest.accel import probe
from dfbuild.guest.models import FIRMWARES
from dfbuild.guest.protocol import GuestSpec
from dfbuild.image import efidisk, esp
from dfbuild.model import Cell, Disk, Media, Shape
from dfbuild.releases import load
from dfbuild.runtime import runtime_directory
from dfbuild.workspace import Workspace

pytestmark = pytest.mark.boot

# Writes to the first serial port, which is nobody else's by then. A program without .reloc is not loaded.
PROGRAM = """
        .text
        .globl start
start:  mov $0x3f8, %dx
        lea text(%rip), %rsi
1:      lodsb
        test %al, %al
        jz 2f
        out %al, (%dx)
        jmp 1b
2:      hlt
        jmp 2b
text:   .asciz "started from the EFI system partition.\\n"
        .section .reloc, "a"
        .long 0, 10
        .word 0
"""


def run(argv: Sequence[str | Path], environment: Mapping[str, str] = {}) -> str:
    done = subprocess.run(argv, env={**os.environ, **environment}, check=True, capture_output=True, text=True)
    return done.stdout


def minutes(count: float) -> Deadline:
    return Deadline.after(count * 60)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """With that program, and no root worth the name."""
    source, linked, program, system, root = (tmp_path / name for name in ("s", "so", "efi", "system", "root"))
    source.write_text(PROGRAM)
    run(["as", "-o", tmp_path / "o", source])
    run(["ld", "-shared", "-e", "start", "-o", linked, tmp_path / "o"])
    sections = [word for name in (".text", ".reloc") for word in ("-j", name)]
    run(["objcopy", *sections, "--subsystem", "efi-app", "--output-target=pei-x86-64", linked, program])
    layout = efidisk.Layout.plan(8, 0)
    esp.make(program, system, start=layout.esp, epoch=1, run=run)
    with root.open("wb") as file:
        file.truncate(layout.slice.ufs_bytes)
    efidisk.write(layout, system, root, tmp_path / "disk.raw")
    return tmp_path / "disk.raw"


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_firmware_starts_the_program(disk: Path, machine: str, workspace: Workspace) -> None:
    model = FIRMWARES["uefi"]
    assert model is not None
    before = [path.read_bytes() for path in (model.code, model.variables, disk)]
    shape = Shape("uefi", machine=machine, firmware="uefi")
    spec = GuestSpec("uefi", shape, Media((Disk(disk, "raw"),)), runtime_directory("t"), wire=False)
    guest = create(spec, probe(workspace, minutes(1)))
    try:
        with guest.start(minutes(1)) as console:
            read_until(console, b"started from the EFI system partition.", minutes(3))
    finally:
        guest.stop(minutes(1))
        shutil.rmtree(spec.directory)
    assert [path.read_bytes() for path in (model.code, model.variables, disk)] == before


def test_firmware_starts_the_reference_guest(
    reference_image: Artefact, reference_cell: Cell, workspace: Workspace
) -> None:
    release = load("reference")
    shape = Shape("uefi", firmware="uefi")
    cell = dataclasses.replace(reference_cell, shape=shape)
    media = target(release).media(release, cell, reference_image, workspace)
    spec = GuestSpec("uefi", shape, media, runtime_directory("t"), wire=False)
    guest = create(spec, probe(workspace, minutes(1)))
    try:
        with guest.start(minutes(1)) as console:
            read_until(console, b"login: ", minutes(4))
            console.sendall(b"root\n")
            read_until(console, b"# ", minutes(1))
            console.sendall(b"echo started by $(ls /sys/firmware | grep -x efi).\n")
            read_until(console, b"started by efi.", minutes(1))
    finally:
        guest.stop(minutes(1))
        shutil.rmtree(spec.directory)
