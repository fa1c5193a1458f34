"""From a `GuestSpec` to xl's configuration of the domain. Pure but for the template that it reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from dfbuild.errors import UsageError
from dfbuild.guest.argv import mac
from dfbuild.guest.models import unknown
from dfbuild.guest.protocol import GuestSpec
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
    """Console ▸ what `xenconsole --type` calls it."""


_PARAVIRTUAL = {"disks": {"xen-blk": "xvd"}, "nics": {"xen-net": ""}, "consoles": {"xen": "pv"}}

KINDS: Mapping[str, Kind] = {
    "xen-pv": Kind("pv", **_PARAVIRTUAL),
    "xen-pvh": Kind("pvh", **_PARAVIRTUAL),
    "xen-hvm": Kind(
        "hvm",
        disks={"xen-blk": "xvd", "ahci": "hd", "ide": "hd"},
        nics={"xen-net": "", "e1000": "e1000", "rtl8139": "rtl8139"},
        consoles={"xen": "pv", "serial": "serial"},
    ),
}
"""`Shape.hypervisor` ▸ what guests of that kind can have."""

# xl.cfg(5) has no way to write these inside a string.
_UNQUOTABLE = re.compile(r'["\\\x00-\x1f\x7f-\x9f]')
_DISKS = "abcd"
BRIDGES = {"mgmt": "xenbr0", "wire": "xenbr1"}


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
    """The type of the domain's console as `xenconsole --type` takes it."""
    return kind(shape).consoles[shape.console]


def configuration(spec: GuestSpec) -> str:
    """The configuration of the domain that `spec` describes, for `xl create`; see xl.cfg(5).

    Disk n is `/run/disk.n` in dom0, kernel and initrd are `/run/kernel` and `/run/initrd`. Raises `UsageError` for
    models that this kind of guest cannot have, and for words that xl's configuration has no way to say.
    """
    import jinja2

    shape, media = spec.shape, spec.media
    this = kind(shape)
    if media.kernel is None and this.type != "hvm":
        raise UsageError(f"a {shape.hypervisor} guest boots from a kernel, not from its disks", key="hypervisor")
    if len(media.disks) > len(_DISKS):
        raise UsageError(f"{len(media.disks)} disks: a Xen guest carries {len(_DISKS)}", key="disk")
    if bad := _UNQUOTABLE.search(media.append):
        raise UsageError(f"a Xen guest's kernel command line cannot have a {bad[0]!r}: {media.append!r}")
    networks = [name for name, wanted in (("mgmt", spec.ssh_port is not None), ("wire", spec.wire)) if wanted]
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True, autoescape=False
    )
    template = (templates.images("xen") / "domain.cfg.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        type=this.type,
        memory=shape.memory,
        vcpus=shape.cpus,
        nx=shape.nx,
        kernel=media.kernel is not None,
        initrd=media.initrd is not None,
        append=media.append,
        disks=[f"{this.disks[shape.disk]}{letter}" for letter, _ in zip(_DISKS, media.disks, strict=False)],
        hdtype="ahci" if shape.disk == "ahci" else "ide",
        vifs=[
            {"mac": mac(spec.name, number), "bridge": BRIDGES[network], "model": this.nics[shape.nic]}
            for number, network in enumerate(networks)
        ],
    )
