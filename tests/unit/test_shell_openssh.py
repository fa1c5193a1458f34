"""What OpenSSH's client is told of a guest, as the client itself understands it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dfbuild import releases
from dfbuild.model import Cell, Login, Shape, Variant
from dfbuild.session.protocol import Manifest
from dfbuild.shell import openssh

KEY = "ssh-rsa AAAAB3Nza root@dfly"


def manifest(directory: Path, release: str) -> Manifest:
    return Manifest(
        name="smp2",
        cell=Cell(Variant(release, "gcc34", "on", "smp"), Shape("smp2")),
        release=releases.load(release),
        owner=1,
        control=directory / "control",
        transcript=directory / "console.log",
        login=Login(user="root", key=directory / "a key", host_key=KEY),
        ssh=("127.0.0.1", 2200),
        wire=None,
        accel="tcg",
        overcommit=1.0,
        patience=1.0,
        command=(),
    )


@pytest.mark.parametrize("release", ["1.2", "master"])
def test_the_client_understands_it(tmp_path: Path, release: str) -> None:
    """`ssh -G` prints what it makes of its configuration, and refuses what it does not know."""
    guest = manifest(tmp_path, release)
    data = guest.release.shell.ssh
    assert data is not None
    file = tmp_path / "ssh_config"
    file.write_text(openssh.config(guest, data, tmp_path / "100% known"))
    done = subprocess.run(["ssh", "-G", "-F", file, "smp2"], check=True, capture_output=True, text=True)
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert (said["hostname"], said["port"], said["user"]) == ("127.0.0.1", "2200", "root")
    assert said["identityfile"] == str(tmp_path / "a key")
    assert said["userknownhostsfile"] == str(tmp_path / "100% known")
    assert said["stricthostkeychecking"] == "true"
    for name, theirs in (
        ("kexalgorithms", data.kex_algorithms),
        ("hostkeyalgorithms", data.key_algorithms),
        ("pubkeyacceptedalgorithms", data.key_algorithms),
        ("ciphers", data.ciphers),
        ("macs", data.macs),
    ):
        assert {*theirs} <= {*said[name].split(",")}
        assert len(said[name].split(",")) > len(theirs), "and what the client speaks of its own accord"


def test_the_host_is_known_by_its_port(tmp_path: Path) -> None:
    assert openssh.known_host(manifest(tmp_path, "1.2")) == f"[127.0.0.1]:2200 {KEY}\n"
