"""The Xen host that guests run on: Xen and a small dom0 from Debian packages, for QEMU to boot.

In: the lists and files of `images/xen`. Out: the recipe of Xen, dom0's kernel and its initramfs.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from dfbuild.build.debian import apt, linux
from dfbuild.build.debian.busybox import applets
from dfbuild.build.recipe import Kitchen, Recipe
from dfbuild.build.xen.data import HostFile
from dfbuild.errors import BuildFailed
from dfbuild.image import cpio, libraries, templates
from dfbuild.model import StepKind
from dfbuild.toml import Document
from dfbuild.workspace import Workspace

XEN, KERNEL, INITRD = "xen", "vmlinux", "initrd"
_BUSYBOX = "bin/busybox"


def recipe(workspace: Workspace) -> Recipe:
    """The recipe of the host's `xen`, `vmlinux` and `initrd`, with the packages and the kernel that it needs."""
    here = templates.images("xen")
    data = Document.read(here / "host.toml").validate(HostFile)
    resolve = functools.partial(apt.resolve, cache=workspace.cache)
    kernel_packages = apt.fetch("Xen host kernel packages", resolve((data.kernel,), data.kernel_follow))
    packages = apt.fetch("Xen host packages", resolve(data.packages, data.packages_follow))
    files = templates.render_tree(here / "root", {})

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        kernel, fetched = kitchen.needs
        unpacked = kitchen.directory / "packages"
        apt.unpack(kitchen, fetched, unpacked)
        os.link(kernel.path / "vmlinux", kitchen.directory / KERNEL)
        # QEMU loads a multiboot kernel only as a plain ELF file.
        (kitchen.directory / XEN).write_bytes(gzip.decompress(_file(unpacked, data.xen).read_bytes()))
        kitchen.say("packing dom0's initramfs")
        programs = {target: _file(unpacked, source) for target, source in data.install.items()}
        programs |= libraries.closure(list(programs.values()), unpacked)
        content = {target: (path.read_bytes(), 0o755) for target, path in programs.items()}
        content |= {f"modules/{path.name}": (path.read_bytes(), 0o644) for path in _modules(kernel.path)}
        content |= {name: (text, 0o755 if text.startswith(b"#!") else 0o644) for name, text in files.items()}
        links = dict(data.links)
        for applet in applets(kitchen, programs[_BUSYBOX]):
            links.setdefault(f"bin/{PurePosixPath(applet).name}", f"/{_BUSYBOX}")
        entries = list(_entries(content, {name: to for name, to in links.items() if name not in content}))
        (kitchen.directory / INITRD).write_bytes(cpio.archive(entries, epoch=data.epoch))
        shutil.rmtree(unpacked)
        return {"linux": kernel.facts["release"], "packages": fetched.facts["packages"]}

    inputs = {
        "host": data.model_dump(),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    return Recipe(
        StepKind.IMAGE, "Xen host", inputs, make, needs=(linux.recipe(kernel_packages, data.modules), packages)
    )


def _file(packages: Path, name: str) -> Path:
    found = packages / name
    if not found.is_file():
        raise BuildFailed(f"no package has {name}", component="packages")
    return found


def _modules(kernel: Path) -> list[Path]:
    return sorted((kernel / "modules").iterdir())


def _entries(files: Mapping[str, tuple[bytes, int]], links: Mapping[str, str]) -> Iterator[cpio.Entry]:
    """All of it as an archive's entries, directories before what is in them."""
    parents = {parent.as_posix() for name in (*files, *links) for parent in PurePosixPath(name).parents}
    for name in sorted(parents - {"."}):
        yield cpio.Entry.directory(name)
    for name, (content, mode) in sorted(files.items()):
        yield cpio.Entry.file(name, content, mode)
    for name, target in sorted(links.items()):
        yield cpio.Entry.symlink(name, target)
