"""A host without the firmware that a shape asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfbuild.deadline import Deadline
from dfbuild.errors import MissingTool
from dfbuild.guest import create
from dfbuild.guest.accel import Accel
from dfbuild.guest.models import FIRMWARES, FirmwareModel
from dfbuild.guest.protocol import GuestSpec
from dfbuild.model import Media, Shape


def test_what_is_missing_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = FirmwareModel(tmp_path / "OVMF_CODE.fd", tmp_path / "OVMF_VARS.fd")
    monkeypatch.setitem(FIRMWARES, "uefi", missing)  # type: ignore[arg-type]
    guest = create(GuestSpec("g", Shape("x", firmware="uefi"), Media(), tmp_path / "g"), Accel("tcg"))
    with pytest.raises(MissingTool, match=r"OVMF_CODE\.fd is not installed") as caught:
        guest.start(Deadline.after(20))
    assert "doctor" in caught.value.hint
