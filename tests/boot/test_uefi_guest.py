"""The reference guest from UEFI firmware: it is what starts, and nobody changes the host's copy of it."""

from __future__ import annotations

import shutil

import pytest
from raw_console import read_until

from dfbuild.deadline import Deadline
from dfbuild.guest import create
from dfbuild.guest.accel import probe
from dfbuild.guest.models import FIRMWARES
from dfbuild.guest.protocol import GuestSpec
from dfbuild.model import Media, Shape
from dfbuild.workspace import Workspace, runtime_directory

pytestmark = pytest.mark.boot


def minutes(count: float) -> Deadline:
    return Deadline.after(count * 60)


def test_a_guest_from_uefi_firmware(reference_media: Media, workspace: Workspace) -> None:
    model = FIRMWARES["uefi"]
    assert model is not None
    before = [path.read_bytes() for path in (model.code, model.variables)]
    shape = Shape("uefi", firmware="uefi")
    spec = GuestSpec("uefi", shape, reference_media, runtime_directory("t"), wire=False)
    guest = create(spec, probe(workspace, minutes(1)))
    try:
        console = guest.start(minutes(1))
        with console:
            read_until(console, b"login: ", minutes(5))
            console.sendall(b"root\n")
            read_until(console, b"# ", minutes(1))
            console.sendall(b"echo started by $(ls /sys/firmware | grep -x efi).\n")
            read_until(console, b"started by efi.", minutes(1))
    finally:
        guest.stop(minutes(1))
        shutil.rmtree(spec.directory)
    assert [path.read_bytes() for path in (model.code, model.variables)] == before
