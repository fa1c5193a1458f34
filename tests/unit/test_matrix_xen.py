"""Which Xen host a cell runs on: one for all shapes that it has room for, and none for those of QEMU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dfbuild.build.debian import apt
from dfbuild.build.recipe import Artefact, Recipe
from dfbuild.matrix import xen
from dfbuild.matrix.plan import plan
from dfbuild.model import Cell, GivenXenHost, Media, Refusal, Shape, StepKind, Variant
from dfbuild.releases import Release, load
from dfbuild.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A work directory on a host whose package lists have one version of everything."""
    monkeypatch.setattr(
        apt, "resolve", lambda names, follow, cache: tuple(apt.Package(name, "1", "amd64", "0") for name in names)
    )
    monkeypatch.setattr(xen, "qemu_version", lambda: "7.2.22")
    return Workspace(tmp_path)


def cell(name: str, hypervisor: str, **more: int) -> Cell:
    shape = Shape(name, hypervisor=hypervisor, disk="xen-blk", nic="xen-net", console="xen", **more)
    return Cell(Variant("reference", "gcc-12", "on", "smp"), shape)


class Target:
    """Builds an image out of nothing."""

    def image(self, release: Release, cell: Cell, workspace: Workspace) -> Recipe:
        def make(_: object) -> Mapping[str, Any]:
            return {}

        return Recipe(StepKind.IMAGE, "image", {}, make)

    def refuse(self, release: Release, cell: Cell) -> Refusal | None:
        return None

    def media(self, release: Release, cell: Cell, image: Artefact, workspace: Workspace) -> Media:
        return Media(kernel=image.path / "kernel")


def test_cells_share_a_host_as_far_as_it_has_room_for_them(workspace: Workspace) -> None:
    cells = [
        cell("pv", "xen-pv"),
        cell("pvh", "xen-pvh", sockets=2),
        cell("large", "xen-pv", memory=1024),
        cell("up", "qemu"),
    ]
    planned = plan(cells, (), Target(), load("reference"), workspace)
    hosts = {found.shape.name: planned.hosts.get(found.id) for found in cells}
    assert hosts["up"] is None
    assert hosts["pv"] is not None and hosts["pv"] is hosts["pvh"]
    assert hosts["large"] is not None and hosts["large"].key != hosts["pv"].key
    assert hosts["large"].needs[0].key == hosts["pv"].needs[0].key, "what is booted is the same"
    assert planned.needs(cells[0]) == (planned.images[cells[0].id], hosts["pv"])
    assert planned.needs(cells[3]) == (planned.images[cells[3].id],)
    ids = list(planned.recipes)
    assert ids.index(hosts["pv"].needs[0].id) < ids.index(hosts["pv"].id)


def test_no_host_is_made_where_one_is_given(workspace: Workspace) -> None:
    given = GivenXenHost("ssh://root@xen")
    cells = [cell("pv", "xen-pv"), cell("up", "qemu")]
    planned = plan(cells, (), Target(), load("reference"), workspace, given)
    assert [recipe.name for recipe in planned.recipes.values()] == ["image", "Xen host tap"]
    assert [recipe.name for recipe in planned.hosts.values()] == ["Xen host tap"]
    image = Artefact(StepKind.IMAGE, "image", "key", Path("/image"))
    found = [
        xen.media(Target(), load("reference"), each, image, workspace, planned.hosts.get(each.id), given).xen
        for each in cells
    ]
    assert isinstance(found[0], GivenXenHost) and found[0].where == given.where and found[1] is None
    assert found[0].tap is not None and found[0].tap.is_relative_to(workspace.artefacts / "tools")


def test_a_state_is_of_the_qemu_that_it_was_taken_from(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = cell("pv", "xen-pv").shape
    before = xen.host(shape, workspace)
    monkeypatch.setattr(xen, "qemu_version", lambda: "8.0.0")
    after = xen.host(shape, workspace)
    assert before is not None and after is not None and before.key != after.key


def test_a_guests_media_say_where_its_hosts_state_will_be(workspace: Workspace) -> None:
    image = Artefact(StepKind.IMAGE, "image", "key", Path("/image"))
    host = xen.host(cell("pv", "xen-pv").shape, workspace)
    found = xen.media(Target(), load("reference"), cell("pv", "xen-pv"), image, workspace, host)
    assert found.kernel == Path("/image/kernel")
    assert found.xen is not None and found.xen.state is not None and found.xen.memory == 768
    assert found.xen.state.is_relative_to(workspace.artefacts / "guest")
    plain = xen.media(Target(), load("reference"), cell("up", "qemu"), image, workspace, None)
    assert plain.xen is None
