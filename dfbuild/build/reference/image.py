"""The image: an initramfs with the modules and process 1, and a disk with the root file system."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfbuild.build import step
from dfbuild.build.debian import apt
from dfbuild.build.debian.busybox import applets
from dfbuild.build.recipe import DISK, Kitchen, Recipe
from dfbuild.build.reference import data, world
from dfbuild.errors import BuildFailed
from dfbuild.image import cpio, disk, ext4, libraries
from dfbuild.image.identity import Identity, dropbear_key
from dfbuild.model import StepKind
from dfbuild.releases import Release

KERNEL, BZIMAGE, INITRD = "vmlinux", "vmlinuz", "initrd"
_DIRECTORIES = (
    "dev", "proc", "sys", "tmp", "run", "etc/dropbear", "root/.ssh", "var/tmp",
    "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/libexec",
)  # fmt: skip
_MERGED = ("bin", "sbin", "lib", "lib64")
_BUSYBOX = "usr/bin/busybox"
_PRIVATE = ("root", "etc/shadow", "root/.ssh", "root/.ssh/authorized_keys", "etc/dropbear/host_key")
_NAMESPACE = uuid.UUID("6d1b9f0e-8c1a-5b6f-9a35-3e0f6c1f7a10")


def recipe(
    release: Release,
    kernel: Recipe,
    made: Recipe,
    userland: Recipe,
    files: Mapping[str, bytes],
    identity: Identity,
) -> Recipe:
    """`vmlinux`, `vmlinuz`, `initrd` and `disk.qcow2`.

    `files` are written over the packages (path in the guest ▸ content).
    """
    build = data.of(release)

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        linux, compiled, packages = kitchen.needs
        for name in (KERNEL, BZIMAGE):
            os.link(linux.path / name, kitchen.directory / name)
        kitchen.say("packing the initramfs")
        (kitchen.directory / INITRD).write_bytes(initramfs(linux.path, compiled.path, build.epoch))
        tree = kitchen.directory / "tree"
        unpacked = kitchen.directory / "packages"
        apt.unpack(kitchen, packages, unpacked)
        programs = [path for path in sorted((compiled.path / "programs").iterdir()) if path.name != world.INIT]
        _populate(tree, unpacked, build, release.probes.lstrip("/"), programs)
        for name, content in files.items():
            _write(tree / name, content)
        _write(tree / "etc/dropbear/host_key", dropbear_key(identity.host_key))
        _applets(kitchen, tree)
        for name in _PRIVATE:
            path = tree / name
            path.chmod(0o700 if path.is_dir() else 0o600)
        for name in ("tmp", "var/tmp"):
            (tree / name).chmod(0o1777)
        kitchen.say("writing the root file system")
        _disk(kitchen, tree, build)
        shutil.rmtree(tree)
        shutil.rmtree(unpacked)
        return {"probes": [path.name for path in programs]}

    inputs = {
        "release": release.name,
        "probes": release.probes,
        "install": build.install,
        "disk_size": build.disk_size,
        "epoch": build.epoch,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "host_key": identity.host_public,
    }
    return Recipe(StepKind.IMAGE, made.name, inputs, make, needs=(kernel, made, userland), minutes=5)


def initramfs(kernel: Path, compiled: Path, epoch: int) -> bytes:
    """Process 1 and the kernel modules, as a cpio archive."""
    entries = [cpio.Entry.file("init", (compiled / "programs" / world.INIT).read_bytes(), 0o755)]
    for directory in ("modules", "modules.fault"):
        entries.append(cpio.Entry.directory(directory))
        entries += [
            cpio.Entry.file(f"{directory}/{module.name}", module.read_bytes())
            for module in sorted((kernel / directory).iterdir())
        ]
    return cpio.archive(entries, epoch=epoch)


def _populate(tree: Path, packages: Path, build: data.Build, probes: str, programs: Sequence[Path]) -> None:
    for name in (*_DIRECTORIES, probes):
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name in _MERGED:
        (tree / name).symlink_to(f"usr/{name}")
    for program in programs:
        _copy(program, tree / probes / program.name)
    installed = []
    for target, source in build.install.items():
        found = packages / source
        if not found.is_file():
            raise BuildFailed(f"no package has {source}", component="packages")
        _copy(found, tree / target)
        installed.append(found)
    for place, library in libraries.closure([*installed, *programs], packages).items():
        _copy(library, tree / place)


def _applets(kitchen: Kitchen, tree: Path) -> None:
    """Link every applet's name to busybox, except where there is a real program."""
    for name in applets(kitchen, tree / _BUSYBOX):
        # `bin` and `sbin` are links to `usr/bin` and `usr/sbin`, and `linuxrc` is of no use.
        link = tree / "usr" / name.removeprefix("usr/")
        if link.parent.parent == tree / "usr" and not link.exists():
            link.symlink_to(f"/{_BUSYBOX}")


def _disk(kitchen: Kitchen, tree: Path, build: data.Build) -> None:
    raw = kitchen.directory / "disk.raw"

    run = step.runner(kitchen)
    ext4.make(
        tree, raw, size=build.disk_size, uuid=str(uuid.uuid5(_NAMESPACE, "root")), label="root",
        epoch=build.epoch, run=run,
    )  # fmt: skip
    disk.convert(raw, kitchen.directory / DISK, run)
    raw.unlink()
    (kitchen.directory / DISK).chmod(0o600)  # the host's private key is in it


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o644)
