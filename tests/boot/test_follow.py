"""A guest that is followed through its boot and ended: the times that it took, what it wrote, and why it failed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dfbuild import releases
from dfbuild.build.recipe import Kitchen
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed
from dfbuild.matrix.follow import follow
from dfbuild.model import Media
from dfbuild.workspace import Workspace

pytestmark = pytest.mark.boot

RELEASE = releases.load("reference")


def kitchen(workspace: Workspace, directory: Path) -> Kitchen:
    return Kitchen(directory, (), workspace, Deadline.after(300), directory / "step.log", print)


def test_times_of_all_stages_and_what_it_wrote(
    reference_media: Media, workspace: Workspace, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o700)
    took = follow(RELEASE, reference_media, kitchen(workspace, tmp_path), "once", kept)
    assert list(took) == [stage.name for stage in RELEASE.console.stages]
    assert list(took.values()) == sorted(took.values())
    assert (kept / "disk0.qcow2").is_file() is bool(reference_media.disks)
    assert (tmp_path / "once" / "console.log").stat().st_size > 0


def test_a_guest_that_panics_is_the_builds_failure(
    reference_media: Media, workspace: Workspace, tmp_path: Path
) -> None:
    broken = dataclasses.replace(reference_media, append=f"{reference_media.append} dfbuild.fault=panic")
    with pytest.raises(BuildFailed, match="once: ") as caught:
        follow(RELEASE, broken, kitchen(workspace, tmp_path), "once")
    assert caught.value.log == tmp_path / "once" / "console.log" and caught.value.tail
