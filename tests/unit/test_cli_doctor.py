"""The doctor: names what is missing, for which feature, and the command that installs it."""

from __future__ import annotations

import errno
import json
import os
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from dfbuild.build.dragonfly import hostkit
from dfbuild.build.xen import tap
from dfbuild.cli import doctor, main
from dfbuild.guest import accel
from dfbuild.workspace import Workspace


def host() -> dict[str, object]:
    return tomllib.loads(resources.files("dfbuild").joinpath("host.toml").read_text(encoding="utf-8"))


def test_a_missing_program_names_its_package_and_feature() -> None:
    data = {
        "programs": [{"name": "no-such-program-here", "package": "some-package", "features": ["guest"]}],
        "files": [{"path": "/no/such/file", "package": "other-package", "features": ["gcc-12"]}],
    }
    program, file = doctor.programs(data)
    assert not program.ok
    assert program.features == ("guest",)
    assert program.cure.endswith("apt-get install --no-install-recommends some-package")
    assert not file.ok
    assert "other-package" in file.cure


def test_features_of_every_program_are_explained() -> None:
    data = host()
    known = set(data["features"])  # type: ignore[call-overload]
    for entry in [*data["programs"], *data["files"]]:  # type: ignore[misc]
        assert set(entry["features"]) <= known


def test_what_steps_ask_for_the_doctor_looks_at() -> None:
    data = host()
    packages = {
        feature: {entry["package"] for entry in [*data["programs"], *data["files"]] if feature in entry["features"]}  # type: ignore[misc]
        for feature in ("dragonfly", "xen-ssh", "xen-local")
    }
    for needed in hostkit.PACKAGES.values():
        assert {*needed} <= packages["dragonfly"]
    assert {*tap.PACKAGES} <= packages["xen-ssh"] & packages["xen-local"]


def test_a_work_directory_that_nobody_may_write_to_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda place, how: Path(place) != tmp_path)
    for root, ok in ((tmp_path, False), (tmp_path / "new", False), (tmp_path.parent, True)):
        found = {finding.what: finding for finding in doctor.room(Workspace(root))}["work directory"]
        assert (found.ok, "--work" in found.cure) == (ok, not ok)


def test_what_was_found_of_an_accelerator_counts_where_it_cannot_be_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(accel, "_KVM", tmp_path)
    monkeypatch.setattr(accel, "_host_key", lambda: "key")
    monkeypatch.setattr(accel, "run_probe", lambda *_: (True, "it ran"))

    def refused(path: Path, data: bytes | str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(accel, "atomic_write", refused)
    found = doctor.accelerator(Workspace(tmp_path))
    assert (found.ok, found.found) == (True, "kvm: it ran")


def test_a_bare_host_gets_one_line_that_installs_everything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["doctor", "--json", "--work", str(tmp_path)]) == 3
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    for package in ("bubblewrap", "qemu-system-x86", "clang-14"):
        assert package in report["install"].split()
