"""`--xen-host` and `DFBUILD_XEN_HOST`: which wins, what is looked at before a run, and what `doctor` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfbuild.cli import doctor, main, xenhost
from dfbuild.cli.parser import build
from dfbuild.deadline import Deadline
from dfbuild.errors import UsageError
from dfbuild.model import Cell, GivenXenHost, Media, Shape, Variant, XenHost
from dfbuild.releases import load
from dfbuild.session import keep, messages

CONFIG = Path(__file__).parents[2] / "configs" / "xen.toml"


@pytest.mark.parametrize(
    ("words", "environment", "found"),
    [
        ([], None, None),
        ([], "ssh://root@xen", GivenXenHost("ssh://root@xen")),
        (["--xen-host", "local"], "ssh://root@xen", GivenXenHost("local")),
        (["--xen-host", "nested"], "ssh://root@xen", None),
    ],
)
def test_the_option_goes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, words: list[str], environment: str | None, found: GivenXenHost | None
) -> None:
    monkeypatch.delenv("DFBUILD_XEN_HOST", raising=False)
    if environment is not None:
        monkeypatch.setenv("DFBUILD_XEN_HOST", environment)
    for command in (["matrix", "x.toml"], ["guest", "up", "x.toml"]):
        arguments = build().parse_args([*command, *words])
        assert xenhost.where(arguments) == found
        named = words[1] if words else environment
        assert tuple(xenhost.options(arguments)) == (("--xen-host", named) if named else ())


def cell(hypervisor: str) -> Cell:
    return Cell(Variant("reference", "gcc-12", "on", "smp"), Shape("x", hypervisor=hypervisor))


def test_a_host_is_looked_at_only_if_a_guest_is_to_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: GivenXenHost, shapes: list[Shape], deadline: Deadline) -> None:
        raise UsageError(f"{host.where}: {[shape.hypervisor for shape in shapes]}")

    monkeypatch.setattr(xenhost, "examine", refuse)
    local = GivenXenHost("local")
    xenhost.require(local, [cell("qemu")], Deadline.after(1))
    xenhost.require(None, [cell("xen-pv")], Deadline.after(1))
    with pytest.raises(UsageError, match=r"local: \['xen-pv'\]"):
        xenhost.require(local, [cell("qemu"), cell("xen-pv")], Deadline.after(1))


def test_a_machine_without_xen_is_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dfbuild.guest.xen.examine._PATH", f"PATH={tmp_path}")
    line = ["matrix", str(CONFIG), "--work", str(tmp_path), "--filter", "shape=xen-pv", "--xen-host", "local"]
    assert main(line) == 2
    said = capsys.readouterr().err
    assert "has no xl" in said and "hint: install" in said
    assert not (tmp_path / "results.sqlite").exists()


def test_an_order_keeps_the_host_that_it_names(tmp_path: Path) -> None:
    """What a guest's holder is told goes through JSON."""
    made = XenHost(Path("/x"), Path("/k"), Path("/i"), 768)
    for host in (GivenXenHost("ssh://root@xen", Path("/tap")), made, None):
        order = keep.Order(tmp_path, "g", load("reference"), cell("xen-pv"), Media(xen=host), 1.0)
        assert messages.parse(keep.Order, messages.dump(order)).media.xen == host


def test_the_doctor_tells_a_machine_that_is_no_host_from_a_broken_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "_ADMINISTRATORS", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.local_xen().ok
    (tmp_path / "xl").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "xl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = doctor.local_xen()
    assert not found.ok and "does not run Xen" in found.found and "boot it into Xen" in found.cure
