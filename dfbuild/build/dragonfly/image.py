"""The disk of a DragonFly guest: parts laid over one another, what makes it a guest of ours, boot blocks, qcow2.

World, kernel and the suites' programs are parts (`part.py`); of what several have the last one's counts. Out of the
whole come:

- `/etc/master.passwd` and `/etc/group`: the numbers of the users and groups that the logs name;
- `/dev/MAKEDEV`, where there is one: the device nodes;
- of `/boot`: what stands outside of the file system, see `disks.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from dfbuild.build import step
from dfbuild.build.dragonfly import data, disks, part
from dfbuild.build.recipe import DISK, Kitchen, Recipe
from dfbuild.image import devices, disk, dragonfly, inodes, manifest, ufs
from dfbuild.image.identity import Identity
from dfbuild.model import StepKind
from dfbuild.releases import Release
from dfbuild.workspace import remove

HOST_KEY = "etc/ssh/ssh_host_rsa_key"
_BOOT = "boot"
_BOOT_CONFIG = "boot.config"
"""What boot2 reads at the top of partition a."""
_SSHD = "usr/sbin/sshd"
"""Not every tree has the sources of a server: some were published without what was under export control."""


def settings(
    release: Release,
    identity: Identity,
    disk_model: str = "",
    tunables: Mapping[str, str] | None = None,
    *,
    hammer2: bool = False,
) -> dragonfly.Settings:
    """What makes a system a guest of ours, into which `identity`'s client may log in as root.

    `disk_model` is the shape's, else that of the release's own shape; `tunables` what the loader tells the kernel;
    `hammer2` whether its root is that.
    """
    sizes = data.of(release).image
    device = sizes.disks[disk_model or release.own_shape.disk]
    return dragonfly.Settings(
        authorized_key=identity.client_public,
        root=f"{device}s1{'d' if hammer2 else 'a'}",
        swap=f"{device}s1b" if sizes.swap else "",
        boot=f"{device}s1a" if hammer2 else "",
        tunables=tunables or {},
        delay=sizes.delay,
        management=sizes.management,
    )


def label(release: Release, name: str, disk_model: str, firmware: str) -> str:
    """What the disk `name` is called, with what is not as in the release's own shape. Pure."""
    own = release.own_shape
    name = name if disk_model == own.disk else f"{name} on {disk_model}"
    return name if firmware == own.firmware else f"{name} for {firmware}"


def recipe(
    release: Release,
    name: str,
    parts: Sequence[Recipe],
    identity: Identity,
    *,
    disk_model: str = "",
    firmware: str = "",
    root: int | None = None,
    tunables: Mapping[str, str] | None = None,
    hammer2: bool = False,
) -> Recipe:
    """`disk.qcow2` of `parts`, the world first, a guest of ours as `settings` says.

    `disk_model` and `firmware` are the shape's, else those of the release's own shape; `root` the size of the root
    in MiB, if not the release's own. With `hammer2` all of it is there but the root, see `hammer2.py`.
    """
    own = release.own_shape
    disk_model, firmware = disk_model or own.disk, firmware or own.firmware
    name = label(release, name, disk_model, firmware)
    name = f"{name} but for its root" if hammer2 else name
    sizes = data.of(release).image
    epoch = sizes.epoch
    layout = (
        disks.unfilled(sizes, firmware, data.hammer2(release), root)
        if hammer2
        else disks.plan(sizes, firmware, root)
    )
    files = dragonfly.files(settings(release, identity, disk_model, tunables, hammer2=hammer2))
    files |= {f"{HOST_KEY}.pub": f"{identity.host_public}\n".encode()}
    if hammer2:
        files[f"{_BOOT}/{_BOOT_CONFIG}"] = files[_BOOT_CONFIG]

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        work = kitchen.directory
        tree, image, raw = work / "tree", work / "root.ufs", work / "disk.raw"
        run = step.runner(kitchen, *layout.readable)

        made = kitchen.needs[: len(kitchen.needs) - len(parts)]
        laid = kitchen.needs[len(made) :]
        kitchen.say("laying out the root file system")
        logs = [part.lay(need.path, tree) for need in laid]
        for path, content in {**files, HOST_KEY: identity.host_key.read_bytes()}.items():
            part.replace(tree, path, content)
        text = "\n".join([*logs, dragonfly.log(), *((one.path / part.LOG).read_text() for one in made)])
        entries = manifest.scan(tree, manifest.parse_log(text, part.names(tree)))
        top = tree / _BOOT if hammer2 else tree
        if hammer2:
            entries = manifest.below(_BOOT, entries)

        kitchen.say(f"writing {len(entries)} files")
        ufs.make(top, manifest.manifest(entries, epoch), image, size=layout.ufs_bytes, epoch=epoch, run=run)
        inodes.finish(image, entries)
        layout.write(tree, image, raw, epoch, run)
        facts = {"files": len(entries), "sha256": disk.digest(raw), "ssh": (tree / _SSHD).is_file()}
        disk.convert(raw, work / DISK, run)
        (work / DISK).chmod(0o600)  # the host's private key is in it
        for left in (tree, image, raw):
            remove(left)
        return facts

    inputs = {
        "release": release.name,
        **layout.inputs(),
        "epoch": epoch,
        "files": {path: hashlib.sha256(content).hexdigest() for path, content in files.items()},
        "log": dragonfly.log(),
        "form": 4,
    }
    needs = (*((nodes(parts[0]),) if sizes.makedev else ()), *parts)
    return Recipe(StepKind.IMAGE, name, inputs, make, needs=needs, minutes=15)


def nodes(world: Recipe) -> Recipe:
    """`install.mtree` with the device nodes that the world's own MAKEDEV makes."""

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        (need,) = kitchen.needs
        directory = kitchen.directory / "dev"
        directory.mkdir()
        script = disks.read(need.path / part.ROOT, "dev/MAKEDEV").decode("latin-1")
        devices.make(script, directory, step.runner(kitchen))
        log = devices.log(directory)
        (kitchen.directory / part.LOG).write_text(log, encoding="ascii")
        remove(directory)
        return {"nodes": log.count("\n")}

    return Recipe(StepKind.IMAGE, f"devices of {world.name}", {"form": 1}, make, needs=(world,), minutes=5)
