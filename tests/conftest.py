"""What all tests share: a work directory and the reference guest, built at most once a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from dfbuild.build.recipe import Artefact
from dfbuild.build.store import ArtefactStore, build_all
from dfbuild.build.targets import target
from dfbuild.deadline import Deadline
from dfbuild.matrix import xen
from dfbuild.model import Cell, Media, Shape, Variant, XenHost
from dfbuild.releases import load
from dfbuild.workspace import Workspace

# A property is no stopwatch: on a loaded host an example may take longer than hypothesis expects. What is tried is
# the same every time, so that a change is judged by what it changes: `--hypothesis-profile explore` tries others.
_BUSY = [HealthCheck.too_slow]
settings.register_profile("dfbuild", deadline=None, derandomize=True, suppress_health_check=_BUSY)
settings.register_profile("explore", deadline=None, suppress_health_check=_BUSY)
settings.load_profile("dfbuild")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The work directory of real builds.

    `DFBUILD_TEST_WORK` or `DFBUILD_WORK` names one that is kept, so that the next session finds its artefacts.
    """
    kept = os.environ.get("DFBUILD_TEST_WORK") or os.environ.get("DFBUILD_WORK")
    return Workspace(Path(kept).absolute() if kept else tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="session")
def reference_cell() -> Cell:
    """The reference guest compiled by gcc with the stack protector, on one CPU."""
    return Cell(Variant("reference", "gcc-12", "on", "smp"), Shape("up"))


@pytest.fixture(scope="session")
def reference_image(workspace: Workspace, reference_cell: Cell) -> Artefact:
    """The finished image of `reference_cell`."""
    release = load("reference")
    recipe = target(release).image(release, reference_cell, workspace)
    return build_all(recipe, ArtefactStore(workspace), Deadline.after(500, what="the reference image"), print)


@pytest.fixture(scope="session")
def reference_media(reference_image: Artefact, reference_cell: Cell, workspace: Workspace) -> Media:
    """What a guest of `reference_cell` boots from; add words to `append` for faults and other consoles."""
    release = load("reference")
    return target(release).media(release, reference_cell, reference_image, workspace)


@pytest.fixture(scope="session")
def xen_host(workspace: Workspace) -> XenHost:
    """A Xen host that is up, with room for guests as small as the reference release's."""
    shape = Shape("pv", **{**load("reference").shape.given(), "hypervisor": "xen-pv"})
    recipe = xen.host(shape, workspace)
    assert recipe is not None
    build_all(recipe, ArtefactStore(workspace), Deadline.after(500, what="the Xen host"), print)
    return xen.ready(recipe, shape, workspace)
