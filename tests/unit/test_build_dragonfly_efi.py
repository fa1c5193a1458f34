"""Which releases UEFI firmware can start, and that what is built for that is of no concern to their worlds."""

from __future__ import annotations

import pytest

from dfbuild import filter, releases
from dfbuild.build.dragonfly import data
from dfbuild.config.shapes import objections
from dfbuild.errors import UsageError
from dfbuild.model import Cell, Shape, Variant

DRAGONFLY = ["1.0", "1.2", "1.4", "master"]


@pytest.mark.parametrize("name", DRAGONFLY)
def test_a_release_without_boot_programs_refuses_with_its_evidence(name: str) -> None:
    release = releases.load(name)
    plain = Shape("x", **release.shape.given())
    uefi = Shape("x", **{**release.shape.given(), "firmware": "uefi"})
    variant = Variant(name, next(iter(release.toolchains)), "off", next(iter(release.kernels)))
    because = [
        rule
        for rule in release.refuse
        if filter.compile(rule.when)(Cell(variant, uefi).attributes())
        and not filter.compile(rule.when)(Cell(variant, plain).attributes())
    ]
    if data.of(release).efi is not None:
        assert not because and data.efi(release).programs
        return
    (only,) = because
    assert "UEFI" in only.reason and only.evidence
    with pytest.raises(UsageError, match="nothing that UEFI firmware could start"):
        data.efi(release)


def test_no_edit_for_them_is_one_for_the_world() -> None:
    master = releases.load("master")
    theirs = {edit.file for edit in data.efi(master).edits}
    assert theirs.isdisjoint(edit.file for edit in data.of(master).edits)


def test_no_domain_has_firmware_of_its_own() -> None:
    domain = Shape("x", hypervisor="xen-hvm", disk="ahci", nic="e1000", accel="tcg", firmware="uefi")
    (only,) = objections(domain)
    assert "Xen" in only.message and only.hint == 'firmware = "bios"'
