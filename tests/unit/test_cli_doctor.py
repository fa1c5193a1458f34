"""The doctor: names what is missing, for which feature, and the command that installs it."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from dfbuild.build.dragonfly import hostkit
from dfbuild.build.xen import tap
from dfbuild.cli import doctor, main


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


def test_a_bare_host_gets_one_line_that_installs_everything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["doctor", "--json", "--work", str(tmp_path)]) == 3
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    for package in ("bubblewrap", "qemu-system-x86", "clang-14"):
        assert package in report["install"].split()
