"""What a DragonFly image gets beside its world: the files of `images/dragonfly`, for a guest that is alone with its
tests. Pure but for reading them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from dfbuild.image.templates import images, render_tree

_NAME = "dragonfly"
INSTALL = "install"
"""Of the files that `install` makes, the script."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the templates are filled with. Addresses are those of QEMU's user network."""

    authorized_key: str
    """The public key that may log in as root over SSH."""
    root: str
    """Partition, as the guest calls it."""
    swap: str = ""
    """Empty for none."""
    boot: str = ""
    """The partition of `/boot` where the root is HAMMER2; empty where it is UFS, with `/boot` in it."""
    tunables: Mapping[str, str] = field(default_factory=dict)
    """What the loader tells the kernel."""
    delay: int = 0
    """Seconds that the loader waits for a key."""
    hostname: str = "dfly"
    management: tuple[str, ...] = ("em0",)
    """Names that the network interface may have that SSH comes in by."""
    address: str = "10.0.2.15"
    netmask: str = "255.255.255.0"
    gateway: str = "10.0.2.2"
    console: str = "ttyd0"
    speed: int = 115200
    """Of the console: the serial driver's buffers grow with it."""


def files(settings: Settings) -> dict[str, bytes]:
    """Content by path in the image."""
    return render_tree(images(_NAME) / "root", dataclasses.asdict(settings))


def live(title: str, tunables: Mapping[str, str]) -> dict[str, bytes]:
    """Content by path of what a live system gets beside its skeleton. `title` is the release's."""
    return render_tree(images(_NAME) / "live", {"title": title, "tunables": tunables})


def base(probes: str) -> dict[str, bytes]:
    """Content by path of what a disk that installed itself gets besides; `probes` is where the programs belong."""
    return render_tree(images(_NAME) / "base", {"probes": probes})


def install(values: Mapping[str, object]) -> dict[str, bytes]:
    """Content by path on a medium that a live system installs itself by. `values` are what its templates name."""
    return render_tree(images(_NAME) / "install", values)


def log() -> str:
    """The modes of those that are not 0644, as an installation log (see `manifest.parse_log`)."""
    return (images(_NAME) / "prepared.mtree").read_text(encoding="ascii")
