"""A guest to build in: booted for a block, with a shell, and what becomes of one that does not come up."""

from __future__ import annotations

import dataclasses
import secrets
import subprocess
from pathlib import Path

import pytest

from dfbuild import releases
from dfbuild.build.recipe import Kitchen
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed, Cancelled
from dfbuild.matrix.machine import machine
from dfbuild.model import Cell, Media
from dfbuild.workspace import Workspace

pytestmark = pytest.mark.boot

RELEASE = releases.load("reference")


def kitchen(workspace: Workspace, directory: Path) -> Kitchen:
    return Kitchen(directory, (), workspace, Deadline.after(300), directory / "step.log", print)


def test_a_guest_is_up_for_the_block(
    reference_cell: Cell, reference_media: Media, workspace: Workspace, tmp_path: Path
) -> None:
    with machine(RELEASE, reference_cell.variant, reference_media, 300, kitchen(workspace, tmp_path)) as shell:
        answer = shell.run("nproc; sed -n 's/^MemTotal: *//p' /proc/meminfo", Deadline.after(60))
    cpus, memory = answer.text.splitlines()
    assert cpus == "1"
    assert 250_000 < int(memory.split()[0]) < 300 * 1024
    assert (tmp_path / "console.log").stat().st_size > 0


def test_a_build_that_is_cut_off_goes_on_in_the_guest_as_it_was_saved(
    reference_cell: Cell, reference_media: Media, workspace: Workspace, tmp_path: Path
) -> None:
    said: list[str] = []
    own = dataclasses.replace(kitchen(workspace, tmp_path), say=said.append)
    with (
        pytest.raises(Cancelled),
        machine(RELEASE, reference_cell.variant, reference_media, 300, own) as shell,
    ):
        shell.run(
            "(while :; do echo >> /tmp/steps; sleep 0.1; done) >/dev/null 2>&1 & echo one > /saved", own.deadline
        )
        shell.save(own.deadline)
        shell.run("sync; echo two > /saved", own.deadline)
        shell.save(own.deadline)
        shell.run("echo three > /saved; sync", own.deadline)
        raise Cancelled("cut off")
    assert said == []
    with machine(RELEASE, reference_cell.variant, reference_media, 300, own) as shell:
        assert shell.run("cat /saved", own.deadline).text == "two"
        grows = "a=`wc -l < /tmp/steps`; sleep 1; b=`wc -l < /tmp/steps`; test $b -gt $a"
        assert shell.run(grows, own.deadline).status == 0
    assert said == ["going on in the guest as it was last saved"]
    assert not (workspace.root / "objects" / tmp_path.name).exists()


def test_its_disks_are_kept_where_they_are_wanted(
    reference_cell: Cell, reference_media: Media, workspace: Workspace, tmp_path: Path
) -> None:
    kept, mark = tmp_path / "kept", secrets.token_hex(2048).encode()
    (tmp_path / "mark").write_bytes(mark)
    own = kitchen(workspace, tmp_path)
    with machine(RELEASE, reference_cell.variant, reference_media, 300, own, kept) as shell:
        shell.put(tmp_path / "mark", "/mark", own.deadline)
        assert shell.run("sync", own.deadline).status == 0
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", kept / "disk0.qcow2", raw], check=True)
    assert mark in raw.read_bytes(), "beside what was on the disk before"
    assert not (workspace.root / "objects" / tmp_path.name).exists()


def test_one_that_does_not_come_up_is_the_builds_fault(
    reference_cell: Cell, reference_media: Media, workspace: Workspace, tmp_path: Path
) -> None:
    broken = dataclasses.replace(reference_media, append=reference_media.append + " dfbuild.fault=panic")
    with (
        pytest.raises(BuildFailed, match="panic") as caught,
        machine(RELEASE, reference_cell.variant, broken, 300, kitchen(workspace, tmp_path)),
    ):
        pytest.fail("a guest that panicked is up")
    assert caught.value.log == tmp_path / "console.log"
