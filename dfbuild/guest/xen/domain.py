"""From a `GuestSpec` to xl's configuration of the domain. Pure but for the template that it reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from dfbuild.errors import UsageError
from dfbuild.guest.argv import mac
from dfbuild.guest.models import unknown
from dfbuild.guest.protocol import GuestSpec
from dfbuild.guest.xen.argv import BOOT_ADDRESS, INITRD_ADDRESS, KERNEL_ADDRESS, files
from dfbuild.image import templates
from dfbuild.model import Shape


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of Xen guest: what it can have, by `Shape`'s names, and xl's names for it."""

    type: str
    disks: Mapping[str, str]
    """Disk model ▸ beginning of the disks' names, which say how they are attached."""
    nics: Mapping[str, str] = field(default_factory=dict)
    """NIC model ▸ xl's `model=`, empty for Xen's own."""
    consoles: Mapping[str, str] = field(default_factory=dict)
    """Console ▸ where xenstore has its terminal, below the domain's own directory."""


_PARAVIRTUAL = {"disks": {"xen-blk": "xvd"}, "nics": {"xen-net": ""}, "consoles": {"xen": "console"}}

KINDS: Mapping[str, Kind] = {
    "xen-pv": Kind("pv", **_PARAVIRTUAL),
    "xen-pvh": Kind("pvh", **_PARAVIRTUAL),
    "xen-hvm": Kind(
        "hvm",
        disks={"xen-blk": "xvd", "ahci": "hd", "ide": "hd", "lsi53c895a": "sd"},
        nics={"xen-net": "", "e1000": "e1000", "rtl8139": "rtl8139"},
        consoles={"xen": "console", "serial": "serial/0"},
    ),
}
"""`Shape.hypervisor` ▸ what guests of that kind can have."""

# xl.cfg(5) has no way to write these inside a string.
_UNQUOTABLE = re.compile(r'["\\\x00-\x1f\x7f-\x9f]')
_DISKS = "abcd"
_MOST_DISKS = 3
"""One of four emulated ones may be the boot disk."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where on its host a domain's files are, and what it and its networks' bridges are called there."""

    name: str = "guest"
    directory: PurePosixPath = field(default_factory=lambda: PurePosixPath("/run"))
    bridges: Mapping[str, str] = field(default_factory=lambda: {"mgmt": "xenbr0", "wire": "xenbr1"})


def kind(shape: Shape) -> Kind:
    """What kind of Xen guest `shape` is; raises `UsageError` for models that this kind cannot have."""
    if shape.hypervisor not in KINDS:
        raise unknown("hypervisor", shape.hypervisor, KINDS)
    found = KINDS[shape.hypervisor]
    for what, name, known in (
        ("disk", shape.disk, found.disks),
        ("nic", shape.nic, found.nics),
        ("console", shape.console, found.consoles),
    ):
        if name not in known:
            raise UsageError(
                f"shape {shape.name}: a {shape.hypervisor} guest has no {what} {name!r}",
                hint=f"one of: {', '.join(known)}",
                key=what,
            )
    return found


def console(shape: Shape) -> str:
    """Where xenstore has the terminal of the domain's console."""
    return kind(shape).consoles[shape.console]


def networks(spec: GuestSpec) -> tuple[str, ...]:
    """The networks that `spec` asks for, as `guest.argv.backends` names them, in the order of the domain's NICs."""
    return tuple(name for name, wanted in (("mgmt", spec.ssh_port is not None), ("wire", spec.wire)) if wanted)


def configuration(spec: GuestSpec, place: Place = Place()) -> str:
    """The configuration of the domain that `spec` describes, for `xl create`; see xl.cfg(5).

    In the place's directory a disk is `disk.` and its address; kernel and initrd are `kernel` and `initrd`.
    Raises `UsageError` for models that this kind of guest cannot have, and for words that its strings cannot say.
    """
    shape, media = spec.shape, spec.media
    this = kind(shape)
    if media.kernel is None and this.type != "hvm":
        raise UsageError(f"a {shape.hypervisor} guest boots from a kernel, not from its disks", key="hypervisor")
    if len(media.disks) > _MOST_DISKS:
        raise UsageError(f"{len(media.disks)} disks: a Xen guest carries {_MOST_DISKS}", key="disk")
    if bad := _UNQUOTABLE.search(media.append):
        raise UsageError(f"a Xen guest's kernel command line cannot have a {bad[0]!r}: {media.append!r}")
    given = files(spec)
    # hda and xvda are one disk: what follows the boot disk is b, however it is attached.
    letters = iter(_DISKS)
    disks = [("hd" + next(letters), BOOT_ADDRESS)] if BOOT_ADDRESS in given else []
    disks += [(this.disks[shape.disk] + next(letters), number) for number, _ in enumerate(media.disks)]
    template = (templates.images("xen") / "domain.cfg.j2").read_text(encoding="utf-8")
    values: dict[str, object] = {
        "name": place.name,
        "directory": place.directory,
        "type": this.type,
        "memory": shape.memory,
        "vcpus": shape.cpus,
        "nx": shape.nx,
        "kernel": KERNEL_ADDRESS in given,
        "initrd": INITRD_ADDRESS in given,
        "append": media.append,
        "disks": disks,
        "hdtype": "ide" if shape.disk == "ide" else "ahci",
        "vifs": [
            {"mac": mac(spec.name, number), "bridge": place.bridges[network], "model": this.nics[shape.nic]}
            for number, network in enumerate(networks(spec))
        ],
    }
    return templates.render(template, values)
