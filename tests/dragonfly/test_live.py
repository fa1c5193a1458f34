"""The live system of a real tree: boots from its CD to a login, and installs itself on a disk that does so too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import choice
import pytest

from dfbuild.build.dragonfly import data
from dfbuild.config import load
from dfbuild.matrix.expand import expand
from dfbuild.model import Shape
from dfbuild.releases import Release
from dfbuild.source import Tree
from dfbuild.workspace import Workspace

pytestmark = [pytest.mark.dragonfly, pytest.mark.boot, pytest.mark.timeout(14400)]

CONFIGS = Path(__file__).parents[2] / "configs"
NAME = "live-test"


def dfbuild(workspace: Workspace, *words: str | Path) -> str:
    command = [sys.executable, "-m", "dfbuild", *words[:2], "--work", workspace.root, *words[2:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def chosen(release: Release, tree: Tree, firmware: str) -> tuple[str | Path, ...]:
    """The words that name a cell: of the tree's own compiler, with the stack protector, on one CPU."""
    if data.of(release).iso is None:
        pytest.skip(f"{release.title} has no live system that dfbuild knows of")
    config = CONFIGS / f"dragonfly-{release.name}.toml"
    own = Shape("own", **{**release.shape.given(), "firmware": firmware})
    plain = {field: getattr(own, field) for field in ("disk", "firmware", "root")}
    found = next(
        cell.id
        for cell in expand(load(config)).cells
        if cell.variant.toolchain == choice.compiler(release)
        and cell.variant.stack_protector == choice.protector(release)
        and cell.variant.kernel == choice.kernel(release)
        and cell.shape.cpus == 1
        and all(getattr(cell.shape, field) == value for field, value in plain.items())
    )
    return config, "--src", tree.path, "--cell", found


@pytest.fixture(scope="module")
def cell(release: Release, tree: Tree) -> tuple[str | Path, ...]:
    return chosen(release, tree, "bios")


@pytest.fixture(scope="module")
def medium(cell: tuple[str | Path, ...], workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cd") / f"{NAME}.iso"
    dfbuild(workspace, "image", "iso", *cell, "-o", path)
    return path


@pytest.fixture
def up(workspace: Workspace) -> Iterator[Any]:
    began: list[str] = []

    def begin(cell: tuple[str | Path, ...], *words: str | Path) -> None:
        dfbuild(workspace, "guest", "up", *cell, "--name", NAME, *words)
        began.append(NAME)

    yield begin
    for name in began:
        dfbuild(workspace, "guest", "down", name)


@pytest.mark.parametrize(("firmware", "device"), [("bios", "cd"), ("uefi", "part")])
def test_the_live_system_boots_to_a_login_on_the_serial_console(
    firmware: str, device: str, up: Any, release: Release, tree: Tree, workspace: Workspace
) -> None:
    up(chosen(release, tree, firmware), "--live")
    assert dfbuild(workspace, "guest", "exec", "--via", "serial", NAME, "kenv loaddev").startswith(device)
    ask = "mount -p; echo > /etc/written && echo > /tmp/written && id -u && ls /etc.hdd/rc.conf"
    said = dfbuild(workspace, "guest", "exec", "--via", "serial", NAME, ask)
    mounted = {words[1]: words[2] for words in map(str.split, said.splitlines()) if len(words) > 3}
    assert mounted["/"] == "cd9660"
    assert {mounted[place] for place in ("/etc", "/var", "/tmp", "/root")} == {"tmpfs"}
    assert said.splitlines()[-2:] == ["0", "/etc.hdd/rc.conf"]


def test_a_cd_becomes_a_base_image_that_boots_by_itself(
    cell: tuple[str | Path, ...], medium: Path, up: Any, workspace: Workspace
) -> None:
    sum = subprocess.run(["sha256sum", medium], capture_output=True, text=True, check=True).stdout.split()[0]
    report = json.loads(dfbuild(workspace, "image", "import", medium, "--sha256", sum, "--json"))
    assert "installed" in report["facts"]["installed"] and "login" in report["facts"]["booted"]
    up(cell, "--base", NAME)
    said = dfbuild(workspace, "guest", "exec", NAME, "mount -p; cat /boot/loader.conf; ls -d /etc.hdd || true")
    device, place, kind, *_ = said.splitlines()[0].split()
    assert (Path(device).name, place, kind) == ("vbd0s1a", "/", "ufs")
    assert "kernel_options" not in said, "no trace of the CD's"
    assert "No such file" in said
