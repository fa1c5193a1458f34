"""From a `GuestSpec` to the command line of the QEMU that runs its Xen host. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dfbuild.errors import InfraError
from dfbuild.guest.argv import QEMU, SECCOMP, Options, Paths, backends, device, option, overlay_node
from dfbuild.guest.protocol import GuestSpec
from dfbuild.model import XenHost

DOM0_MEMORY = 384
_SPARE = 128
"""MiB for Xen itself and what it needs for a domain."""
_STEP = 256
# dom0's PV kernel dies with SMAP at its first return to user mode; PVH and HVM guests need SVM, which TCG has.
_CPU = "max,+svm,-smap"
_XEN = (
    f"console=com1 com1=115200,8n1 conring_size=64k dom0_mem={DOM0_MEMORY}M,max:{DOM0_MEMORY}M "
    "loglvl=info guest_loglvl=all"
)
_DOM0 = "console=hvc0 ipv6.disable=1 loglevel=5 panic=1"

PORTS = ("agent", "console", "events")
"""Serial ports of dom0, each a socket that QEMU inherits."""
LOG = "xen.log"
"""What Xen and dom0's kernel print, in the guest's directory."""
KERNEL_ADDRESS, INITRD_ADDRESS, BOOT_ADDRESS = 100, 101, 102
"""SCSI addresses in dom0 of the domain's kernel, initrd and boot disk; disk n has address n."""


def host_memory(guest: int) -> int:
    """MiB that a host needs for a guest of `guest` MiB. In steps, so that many guests share one state."""
    return -(-(DOM0_MEMORY + _SPARE + guest) // _STEP) * _STEP


def host(spec: GuestSpec) -> XenHost:
    if not isinstance(spec.media.xen, XenHost):
        raise InfraError(f"guest {spec.name} is to run under Xen, and there is no Xen host for it")
    return spec.media.xen


def links(spec: GuestSpec) -> Mapping[Path, Path]:
    """Links to make in the guest's directory ▸ what to: a multiboot module's path ends at a space or a comma."""
    xen = host(spec)
    return {spec.directory / "dom0": xen.kernel, spec.directory / "dom0.initrd": xen.initrd}


def boots_from_disk(spec: GuestSpec) -> bool:
    """Whether the kernel of `spec` comes to the domain by a boot disk (`bootdisk.py`)."""
    return spec.shape.hypervisor == "xen-hvm" and spec.media.kernel is not None


def files(spec: GuestSpec) -> Mapping[int, tuple[str, Path]]:
    """SCSI address ▸ name and file of what dom0 gets beside disks: `boot`, or `kernel` and `initrd`."""
    media = spec.media
    if boots_from_disk(spec):
        return {BOOT_ADDRESS: ("boot", spec.directory / "boot.img")}
    given = {KERNEL_ADDRESS: ("kernel", media.kernel), INITRD_ADDRESS: ("initrd", media.initrd)}
    return {address: (name, path) for address, (name, path) in given.items() if path is not None}


def host_argv(spec: GuestSpec, ports: Mapping[str, int], *, restored: bool) -> list[str]:
    """QEMU's command line for the Xen host of `spec`; `ports` are the descriptors of `PORTS` that it inherits.

    Without `ports`, as in a line for people to type, they are UNIX sockets on which somebody listens. A host to be
    `restored` waits for its state. What the domain gets is there as block nodes, without devices: a state knows
    none, so they are plugged in when the host is up.
    """
    xen, paths = host(spec), Paths(spec.directory)
    first, second = links(spec)
    line = [
        QEMU,
        "-name", option({"guest": spec.name, "debug-threads": True}),
        "-nodefaults", "-no-user-config", "-no-reboot", "-S",
        "-display", "none", "-vga", "none",
        "-machine", option({"usb": False}, "q35"),
        "-accel", "tcg",
        "-cpu", _CPU,
        # With two, Xen came up four times slower under emulation.
        "-smp", "1",
        "-m", f"{xen.memory}M",
        "-rtc", "base=utc",
        "-sandbox", SECCOMP,
        "-chardev", option({"id": "qmp", "path": paths.qmp}, "socket"),
        "-mon", "chardev=qmp,mode=control",
        "-chardev", option({"id": "xen", "path": spec.directory / LOG, "append": True}, "file"),
        *device("isa-serial", {"chardev": "xen"}),
        *device("virtio-serial-pci", {}),
    ]  # fmt: skip
    for name in PORTS:
        stream = {"fd": ports[name]} if ports else {"path": spec.directory / f"{name}.sock"}
        line += ["-chardev", option({"id": name, **stream}, "socket")]
        line += device("virtserialport", {"chardev": name, "name": name})
    line += device("virtio-scsi-pci", {"id": "disks"})
    line += _nics(spec, paths)
    for number, disk in enumerate(spec.media.disks):
        line += ["-blockdev", option(overlay_node(disk, paths.overlay(number), f"disk{number}"))]
    for name, path in files(spec).values():
        read_only = path.parent != spec.directory
        node: Options = {"driver": "raw", "node-name": name, "read-only": read_only, "file": _file(path, read_only)}
        line += ["-blockdev", option(node)]
    line += ["-kernel", str(xen.xen), "-append", _XEN, "-initrd", f"{first} {_DOM0},{second}"]
    if restored:
        line += ["-incoming", "defer"]
    return [*line, *spec.extra]


def _file(path: Path, read_only: bool) -> Options:
    return {"driver": "file", "filename": path, "read-only": read_only}


def _nics(spec: GuestSpec, paths: Paths) -> list[str]:
    """dom0's NICs, which are always there: a state knows its devices. One that nobody asked for leads nowhere."""
    found = backends(spec, paths)
    line: list[str] = []
    for number, name in enumerate(("mgmt", "wire")):
        kind, values = found.get(name, ("hubport", {"hubid": number}))
        line += ["-netdev", option({"id": name, **values}, kind)]
        address = f"02:00:00:00:00:0{number + 1}"
        line += device("virtio-net-pci", {"netdev": name, "mac": address, "romfile": ""})
    return line


def plugs(spec: GuestSpec) -> list[dict[str, object]]:
    """Arguments of QMP's `device_add` for all that dom0 gets once the host is up."""
    nodes = {number: f"disk{number}" for number, _ in enumerate(spec.media.disks)}
    nodes |= {address: name for address, (name, _) in files(spec).items()}
    return [
        {"driver": "scsi-hd", "bus": "disks.0", "scsi-id": address, "id": f"plug-{node}", "drive": node}
        for address, node in nodes.items()
    ]
