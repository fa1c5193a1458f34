"""The device models that a shape may name, as data. Names are QEMU's own where they are not simpler.

Which release has a driver for which model is the release's business (`releases/*.toml`), not this table's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dfbuild.errors import UsageError, nearest

MACHINES: Mapping[str, str] = {"q35": "q35", "pc": "pc", "pc-q35-": "q35", "pc-i440fx-": "pc"}
"""Machine name, or the beginning of a versioned one, ▸ chipset family."""


@dataclass(frozen=True, slots=True)
class DiskModel:
    """How a disk is attached: a device with `options`. They may use {n}, its number, {pair} and {half}, n by two.

    `controller` is a device with the id `disks` that carries them all; `machines` are the chipset families that
    can have it.
    """

    device: str
    options: Mapping[str, str] = field(default_factory=dict)
    controller: str = ""
    limit: int = 8
    machines: tuple[str, ...] = ("q35", "pc")


_SCSI = {"bus": "disks.0", "scsi-id": "{n}"}

DISKS: Mapping[str, DiskModel] = {
    "virtio-blk": DiskModel("virtio-blk-pci"),
    "virtio-scsi": DiskModel("scsi-hd", _SCSI, "virtio-scsi-pci"),
    "lsi53c895a": DiskModel("scsi-hd", _SCSI, "lsi53c895a", limit=7),
    "am53c974": DiskModel("scsi-hd", _SCSI, "am53c974", limit=7),
    "mptsas1068": DiskModel("scsi-hd", _SCSI, "mptsas1068"),
    "ahci": DiskModel("ide-hd", {"bus": "disks.{n}"}, "ich9-ahci", limit=6),
    # Only the i440fx has the PIIX3 with its two IDE channels; the SATA controller of q35 speaks AHCI.
    "ide": DiskModel("ide-hd", {"bus": "ide.{pair}", "unit": "{half}"}, limit=4, machines=("pc",)),
    "nvme": DiskModel("nvme", {"serial": "disk{n}"}),
}

CDROMS = DiskModel("ide-cd", {"bus": "cdroms.{n}"}, "ich9-ahci", limit=6)
"""How CDs are attached."""

NICS: Mapping[str, str] = {
    "virtio-net": "virtio-net-pci",
    "e1000": "e1000",
    "e1000e": "e1000e",
    "i82557b": "i82557b",
    "i82559er": "i82559er",
    "ne2k_pci": "ne2k_pci",
    "pcnet": "pcnet",
    "rtl8139": "rtl8139",
    "tulip": "tulip",
    "vmxnet3": "vmxnet3",
}
"""NIC model ▸ QEMU device, all of them PCI."""


@dataclass(frozen=True, slots=True)
class FirmwareModel:
    """Firmware in flash memory: its code, and what its variables are at first."""

    code: Path
    variables: Path


FIRMWARES: Mapping[str, FirmwareModel | None] = {
    "bios": None,
    "uefi": FirmwareModel(Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")),
}
"""Firmware ▸ its files, which Debian's and Ubuntu's `ovmf` has; None for the one that QEMU brings along."""

CONSOLES: Mapping[str, tuple[tuple[str, Mapping[str, str]], ...]] = {
    "serial": (("isa-serial", {"chardev": "console"}),),
    "virtio": (("virtio-serial-pci", {}), ("virtconsole", {"chardev": "console"})),
}
"""Console kind ▸ devices and their options."""

VIDEOS: Mapping[str, str] = {"none": "", "std": "VGA", "cirrus": "cirrus-vga", "vmware": "vmware-svga"}
"""Graphics card ▸ QEMU device. Some kernels want one to be there, though nobody looks at it."""

# TCG's `max` says AuthenticAMD, and AMD shows hyper-threads only with TOPOEXT, which TCG does not have: as an Intel
# CPU it shows them. For all shapes, so that two that differ in threads differ in nothing else.
DEFAULT_CPU: Mapping[str, str] = {"kvm": "host", "tcg": "max,vendor=GenuineIntel"}
"""Accelerator ▸ CPU model, for shapes that name none."""

HYPERTHREADS: Mapping[str, str] = {"kvm": "+topoext", "tcg": ""}
"""Accelerator ▸ what its default model needs besides to show more than one thread a core (on AMD hosts)."""


def unknown(kind: str, name: str, known: Mapping[str, object]) -> UsageError:
    """The error for a `name` that is not among `known`, with the nearest one as hint."""
    return UsageError(f"{kind} {name!r} is not known", hint=nearest(name, known), key=kind)


def family(machine: str) -> str:
    """The chipset family of a machine, versioned names included; raises `UsageError`."""
    for name, found in MACHINES.items():
        if machine == name or (name.endswith("-") and machine.startswith(name)):
            return found
    raise unknown("machine", machine, MACHINES)
