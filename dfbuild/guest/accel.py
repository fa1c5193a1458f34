"""Which accelerator really works here, found by a guest that must run, and remembered until the next boot."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from dfbuild import process
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, InfraError, UsageError
from dfbuild.guest.argv import QEMU
from dfbuild.guest.firmware import DEBUG_EXIT, PROGRESS, STAGES, STATUS, probe_rom
from dfbuild.guest.models import DEFAULT_CPU
from dfbuild.model import Shape
from dfbuild.runtime import runtime_directory
from dfbuild.sandbox import Sandbox
from dfbuild.workspace import Workspace, atomic_write

# The probe guest takes 0.15 s even under emulation; a loaded host gets some room.
_PROBE_SECONDS = 3.0
_AGAIN_SECONDS = 3600.0
_KVM = Path("/dev/kvm")


@dataclass(frozen=True, slots=True)
class Accel:
    """An accelerator by QEMU's name, `kvm` or `tcg`, and why it is this one."""

    name: str
    reason: str = ""


def for_shape(shape: Shape, found: Accel) -> Accel:
    """What a guest of `shape` runs under where `found` is what works here; raises `UsageError`."""
    match shape.accel:
        case "auto":
            return found
        case "kvm" | "tcg":
            return Accel(shape.accel, f"shape {shape.name} asks for it")
    raise UsageError(f"accelerator {shape.accel!r} is not known", hint="one of: auto, kvm, tcg", key="accel")


def qemu_version() -> str:
    """QEMU's version (`7.2.22`). Raises `MissingTool`, `InfraError`."""
    said = process.version(QEMU)
    found = re.search(r"version (\d+(?:\.\d+)+)", said)
    if found is None:
        raise InfraError(f"{QEMU} --version says {said.strip()!r}")
    return found[1]


def probe(workspace: Workspace, deadline: Deadline) -> Accel:
    """KVM if a guest really runs under it, else TCG; from the cache if this host was asked since it booted."""
    if not _KVM.exists():
        return Accel("tcg", f"{_KVM} is not there")
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return Accel("tcg", f"{_KVM} is not ours to open: add the user to its group")
    cache = workspace.cache / "accel.json"
    key = _host_key()
    known = _read(cache, key, time.time())
    if known is not None:
        return known
    works, why = run_probe("kvm", deadline)
    accel = Accel("kvm" if works else "tcg", why)
    with contextlib.suppress(OSError):  # then it is asked again
        atomic_write(cache, json.dumps({"key": key, **asdict(accel)}))
    return accel


def run_probe(accel: str, deadline: Deadline, rom: bytes | None = None) -> tuple[bool, str]:
    """Does the probe guest (or another `rom`) come to its end under `accel`, and what was seen of it?

    Raises as `Deadline.check` does only where the caller's own time is over: that says nothing of the host.
    """
    directory = runtime_directory("probe")
    try:
        image, console = directory / "probe.rom", directory / "console"
        image.write_bytes(rom or probe_rom())
        argv: list[str | Path] = [
            QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-vga", "none",
            "-machine", "pc", "-accel", accel, "-cpu", DEFAULT_CPU[accel], "-m", "16M", "-bios", image,
            "-serial", f"file:{console}", "-device", DEBUG_EXIT,
        ]  # fmt: skip
        sandbox = Sandbox(writable=(directory,), devices=(_KVM,) if accel == "kvm" else ())
        began = time.monotonic()
        try:
            done = process.run(sandbox.argv(argv), deadline.sooner(_PROBE_SECONDS))
            works = done.status == STATUS
            end = f"QEMU ended with status {done.status}: {done.output.partition(chr(10))[0]}"
        except DeadlineExceeded:
            deadline.check("the probe guest")
            works, end = False, f"no end in {_PROBE_SECONDS:.0f} s"
        printed = console.read_text(errors="replace") if console.exists() else ""
    finally:
        shutil.rmtree(directory)
    if works and printed == PROGRESS:
        return True, f"a probe guest ran under {accel} in {time.monotonic() - began:.2f} s"
    return False, f"under {accel} the probe guest {STAGES.get(printed, f'printed {printed!r}')} ({end})"


def _host_key() -> str:
    """Changes with QEMU, the host's kernel and every boot."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    host = os.uname()
    return hashlib.sha256("\0".join([qemu_version(), host.release, host.version, boot]).encode()).hexdigest()


def _read(cache: Path, key: str, now: float) -> Accel | None:
    """The cached verdict, if it is whole and of this key. That nothing runs is asked again after an hour: it may
    have been a host too busy for the probe."""
    try:
        stored = json.loads(cache.read_text())
        age = now - cache.stat().st_mtime
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(stored, dict) or stored.pop("key", None) != key or set(stored) != {"name", "reason"}:
        return None
    found = Accel(**stored)
    return found if found.name == "kvm" or 0 <= age < _AGAIN_SECONDS else None
