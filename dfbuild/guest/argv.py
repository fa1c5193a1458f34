"""From a `GuestSpec` to QEMU's command line. Pure: nothing here looks at the host."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dfbuild.errors import UsageError
from dfbuild.guest.models import (
    CDROMS,
    CONSOLES,
    DEFAULT_CPU,
    DISKS,
    FIRMWARES,
    HYPERTHREADS,
    NICS,
    VIDEOS,
    FirmwareModel,
    family,
    unknown,
)
from dfbuild.guest.protocol import GuestSpec, WireEnds
from dfbuild.model import Disk, Shape

QEMU = "qemu-system-x86_64"

# What a compromised QEMU may not do, beyond bubblewrap's walls: qemu(1), -sandbox.
SECCOMP = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

Options = Mapping[str, "str | int | bool | Path | Options"]


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a guest's sockets, overlays and QEMU's complaints lie: in its own directory, but for overlays that are
    `kept`."""

    directory: Path
    kept: Path | None = None

    @property
    def console(self) -> Path:
        return self.directory / "console.sock"

    @property
    def qmp(self) -> Path:
        return self.directory / "qmp.sock"

    @property
    def wire(self) -> WireEnds:
        return WireEnds(guest=self.directory / "wire.guest", peer=self.directory / "wire.peer")

    @property
    def log(self) -> Path:
        return self.directory / "qemu.log"

    def overlay(self, number: int) -> Path:
        return (self.kept or self.directory) / f"disk{number}.qcow2"

    @property
    def variables(self) -> Path:
        """The overlay over the firmware's variables."""
        return (self.kept or self.directory) / "variables.qcow2"

    @property
    def saved(self) -> Path | None:
        """The file that names the snapshot to go on from, if there is one."""
        return self.kept and self.kept / "saved"


def option(values: Options, head: str = "") -> str:
    """QEMU's `head,key=value,…`: commas in values doubled, booleans as on/off, nesting as dotted keys."""

    def flat(values: Options, prefix: str) -> Iterator[str]:
        for key, value in values.items():
            if isinstance(value, Mapping):
                yield from flat(value, f"{prefix}{key}.")
            else:
                text = ("off", "on")[value] if isinstance(value, bool) else str(value)
                yield f"{prefix}{key}={text.replace(',', ',,')}"

    return ",".join([*([head] if head else []), *flat(values, "")])


def device(driver: str, values: Options) -> list[str]:
    return ["-device", option(values, driver)]


def mac(guest: str, number: int) -> str:
    """A MAC address in QEMU's own range, the same for the same guest name and NIC, else distinct."""
    digest = hashlib.sha256(f"{guest}\0{number}".encode(errors="surrogateescape")).digest()
    return ":".join(f"{byte:02x}" for byte in (0x52, 0x54, 0x00, *digest[:3]))


def cpu(shape: Shape, accel: str) -> str:
    """The CPU model with its features. NX is said either way, so that no model's default decides it."""
    features = ["+nx" if shape.nx else "-nx"]
    if not shape.cpu and shape.threads > 1 and HYPERTHREADS[accel]:
        features.append(HYPERTHREADS[accel])
    return ",".join([shape.cpu or DEFAULT_CPU[accel], *features])


def qemu_argv(spec: GuestSpec, accel: str, console: int | None = None) -> list[str]:
    """QEMU's command line for `spec` under `accel` (`kvm` or `tcg`).

    The console is a connected socket that QEMU inherits as descriptor `console`; without one, as in a line for
    people to type, it is a UNIX socket on which somebody listens already, as QMP's always is. QEMU waits (`-S`)
    for `cont`, so that power-on is a definite moment. A guest that resets itself ends QEMU. Raises `UsageError`
    for models that are not known or do not go together.
    """
    shape, paths = spec.shape, Paths(spec.directory, spec.kept)
    stream = {"path": paths.console} if console is None else {"fd": console}
    family(shape.machine)
    flash = {"pflash0": "code", "pflash1": "variables"} if firmware(shape) else {}
    line = [
        QEMU,
        "-name", option({"guest": spec.name, "debug-threads": True}),
        "-nodefaults", "-no-user-config", "-no-reboot", "-S",
        "-display", "none", "-vga", "none",
        "-machine", option({"usb": False, **flash}, shape.machine),
        "-accel", accel,
        "-cpu", cpu(shape, accel),
        "-smp", option({"cpus": shape.cpus, "sockets": shape.sockets, "cores": shape.cores,
                        "threads": shape.threads, "maxcpus": shape.cpus}),
        "-m", f"{shape.memory}M",
        "-rtc", "base=utc",
        "-sandbox", SECCOMP,
        "-chardev", option({"id": "qmp", "path": paths.qmp}, "socket"),
        "-mon", "chardev=qmp,mode=control",
        "-chardev", option({"id": "console", **stream}, "socket"),
    ]  # fmt: skip
    line += _firmware(shape, paths)
    line += _console(shape)
    line += _video(shape)
    if shape.product:
        line += ["-smbios", option({"type": 1, "product": shape.product})]
    line += _boot(spec)
    line += _disks(spec, paths)
    line += _nics(spec, paths)
    # Last: what comes before keeps its place on the bus, and its interrupt, with CDs or without.
    line += _cdroms(spec)
    return [*line, *spec.extra]


def firmware(shape: Shape) -> FirmwareModel | None:
    """The files of a shape's firmware, None if QEMU has it; raises `UsageError`."""
    if shape.firmware not in FIRMWARES:
        raise unknown("firmware", shape.firmware, FIRMWARES)
    return FIRMWARES[shape.firmware]


def _firmware(shape: Shape, paths: Paths) -> list[str]:
    """Two flash chips: the code, which is only read, and a throwaway overlay over the variables."""
    model = firmware(shape)
    if model is None:
        return []
    code: Options = {
        "driver": "raw",
        "node-name": "code",
        "read-only": True,
        "file": {"driver": "file", "filename": model.code},
    }
    variables = overlay_node(Disk(model.variables, "raw"), paths.variables, "variables")
    return [word for node in (code, variables) for word in ("-blockdev", option(node))]


def _console(shape: Shape) -> list[str]:
    if shape.console not in CONSOLES:
        raise unknown("console", shape.console, CONSOLES)
    line = [word for driver, values in CONSOLES[shape.console] for word in device(driver, values)]
    for number in range(shape.spare_serials):
        line += ["-chardev", option({"id": f"spare{number}"}, "null")]
        line += device("isa-serial", {"chardev": f"spare{number}"})
    return line


def _video(shape: Shape) -> list[str]:
    if shape.video not in VIDEOS:
        raise unknown("video", shape.video, VIDEOS)
    model = VIDEOS[shape.video]
    return device(model, {}) if model else []


def _boot(spec: GuestSpec) -> list[str]:
    media = spec.media
    if media.kernel is None:
        return []
    # QEMU takes these three as they are: no commas to double.
    line = ["-kernel", str(media.kernel)]
    if media.initrd is not None:
        line += ["-initrd", str(media.initrd)]
    if media.append:
        line += ["-append", media.append]
    return line


def _disks(spec: GuestSpec, paths: Paths) -> list[str]:
    shape, disks = spec.shape, spec.media.disks
    if not disks:
        return []
    if shape.disk not in DISKS:
        raise unknown("disk", shape.disk, DISKS)
    model = DISKS[shape.disk]
    if family(shape.machine) not in model.machines:
        raise UsageError(
            f"a {shape.machine} machine has no {shape.disk} disks",
            hint=f"machine = {model.machines[0]!r}, or another disk model",
            key="disk",
        )
    if len(disks) > model.limit:
        raise UsageError(f"{len(disks)} disks: {shape.disk} carries {model.limit}", key="disk")
    line = device(model.controller, {"id": "disks"}) if model.controller else []
    for number, disk in enumerate(disks):
        line += ["-blockdev", option(overlay_node(disk, paths.overlay(number), f"disk{number}"))]
        values: dict[str, str | int] = {"drive": f"disk{number}"}
        places = {"n": number, "pair": number // 2, "half": number % 2}
        values |= {key: value.format(**places) for key, value in model.options.items()}
        # Index 0 is the kernel's, where QEMU loads one.
        line += device(model.device, {**values, "bootindex": number + 1})
    return line


def _cdroms(spec: GuestSpec) -> list[str]:
    """Drives on a controller of their own, whatever carries the disks: AHCI, which every firmware boots from."""
    cdroms = spec.media.cdroms
    if not cdroms:
        return []
    if len(cdroms) > CDROMS.limit:
        raise UsageError(f"{len(cdroms)} CDs: a guest has {CDROMS.limit} drives at most", key="cdroms")
    line = device(CDROMS.controller, {"id": "cdroms"})
    for number, path in enumerate(cdroms):
        node: Options = {
            "driver": "raw",
            "node-name": f"cdrom{number}",
            "read-only": True,
            "file": {"driver": "file", "filename": path},
        }
        values: dict[str, str | int] = {key: value.format(n=number) for key, value in CDROMS.options.items()}
        # Index 0 is before all disks, and a kernel's, where QEMU loads one.
        first = {"bootindex": 0} if number == 0 and spec.media.kernel is None else {}
        line += ["-blockdev", option(node), *device(CDROMS.device, {"drive": f"cdrom{number}", **values, **first})]
    return line


def overlay_node(disk: Disk, overlay: Path, node: str) -> Options:
    """The block graph: a throwaway overlay over the image, whose backing is named here and not by its header."""
    return {
        "driver": "qcow2",
        "node-name": node,
        # Flushes are lost on purpose: the overlay does not outlive the guest.
        "cache": {"direct": False, "no-flush": True},
        "file": {"driver": "file", "filename": overlay},
        "backing": {
            "driver": disk.format,
            "read-only": True,
            "file": {"driver": "file", "filename": disk.path},
        },
    }


def backends(spec: GuestSpec, paths: Paths) -> dict[str, tuple[str, Options]]:
    """QEMU's ends of the networks that `spec` asks for: id ▸ kind and options."""
    found: dict[str, tuple[str, Options]] = {}
    if spec.ssh_port is not None:
        # restrict: a hostile guest reaches neither the host's own services nor the network beyond.
        found["mgmt"] = ("user", {"restrict": True, "hostfwd": f"tcp:127.0.0.1:0-:{spec.ssh_port}"})
    if spec.wire:
        ends = paths.wire
        found["wire"] = (
            "dgram",
            {"local": {"type": "unix", "path": ends.guest}, "remote": {"type": "unix", "path": ends.peer}},
        )
    return found


def _nics(spec: GuestSpec, paths: Paths) -> list[str]:
    """The management NIC first, the wire second, each only if asked for."""
    model = spec.shape.nic
    if model not in NICS:
        raise unknown("nic", model, NICS)
    line: list[str] = []
    for number, (name, (kind, values)) in enumerate(backends(spec, paths).items()):
        line += ["-netdev", option({"id": name, **values}, kind)]
        # An empty ROM file: no PXE, which would cost seconds of every boot from disk.
        line += device(NICS[model], {"netdev": name, "mac": mac(spec.name, number), "romfile": ""})
    return line
