"""A disk whose root is HAMMER2, which no other kernel than DragonFly's can write.

All else of it is written here (`image.recipe` with `hammer2`): table, label, boot programs, and `/boot`, a UFS. The
root is written by a guest of the same variant, started from its UFS disk: it formats the partition, and copies the
files onto it from another copy of that disk, where they are as they were made: no system has run from it. What a
guest writes has times and random identifiers in it, so that such a disk is not the same from the same input.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from dfbuild.build import step
from dfbuild.build.bench import Machine, Workbench
from dfbuild.build.dragonfly import data
from dfbuild.build.recipe import DISK, Kitchen, Recipe
from dfbuild.build.store import tail
from dfbuild.errors import BuildFailed
from dfbuild.image import disk
from dfbuild.model import Disk, Login, Media, StepKind, Variant
from dfbuild.releases import Release
from dfbuild.workspace import remove

_NEW, _OLD, _FSTAB = "/mnt", "/var/tmp/old", "/var/tmp/fstab"
_BOOT_MINUTES = 15.0


def recipe(
    release: Release,
    name: str,
    variant: Variant,
    source: Recipe,
    unfilled: Recipe,
    fstab: bytes,
    login: Login,
    machine: Machine,
) -> Recipe:
    """`disk.qcow2`: the disk `unfilled` with the files of the disk `source` in its root, and `fstab` for theirs.

    Facts: what the guest took for each step, in seconds. Raises `UsageError` where the release has no HAMMER2;
    making it raises `BuildFailed` for a guest that does not come up, and for a step in it that fails.
    """
    own = release.own_shape
    first = data.of(release).image.disks[own.disk]
    script = steps(nth(first, 1), nth(first, 2))

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        old, new = kitchen.needs
        kept, made, table = kitchen.directory / "kept", kitchen.directory / DISK, kitchen.directory / "fstab"
        table.write_bytes(fstab)
        media = Media(disks=tuple(Disk(need.path / DISK) for need in (old, new, old)), login=login)
        kitchen.say("booting a guest that formats it")
        with machine(release, variant, media, own.memory, kitchen, kept) as shell:
            shell.put(table, _FSTAB, kitchen.deadline)
            seconds = {what: _step(kitchen, shell, name, what, command) for what, command in script.items()}
        disk.flatten(kept / "disk1.qcow2", made, step.runner(kitchen, new.path))
        remove(kept)
        remove(table)
        return {"seconds": seconds, "ssh": old.facts["ssh"]}

    inputs = {"steps": script, "fstab": hashlib.sha256(fstab).hexdigest(), "memory": own.memory, "form": 1}
    minutes = data.hammer2(release).minutes * release.console.emulation_factor + _BOOT_MINUTES
    return Recipe(StepKind.IMAGE, name, inputs, make, needs=(source, unfilled), minutes=minutes, guest=own.memory)


def steps(new: str, old: str) -> dict[str, str]:
    """What the guest does, by what it is called: `new` and `old` are the disks, as it calls them. Pure."""
    # cpdup(1) stops where another file system is mounted, on either side: /boot has all that belongs there.
    return {
        "formatting": f"newfs_hammer2 -f /dev/{new}s1d",
        "mounting": f"mkdir -p {_OLD} && mount -t ufs -o ro /dev/{old}s1a {_OLD} && "
        f"mount -t hammer2 /dev/{new}s1d {_NEW} && mkdir {_NEW}/boot && mount -t ufs /dev/{new}s1a {_NEW}/boot",
        "copying": f"cpdup -I {_OLD} {_NEW}",
        "configuration": f"cp {_FSTAB} {_NEW}/etc/fstab",
        "unmounting": f"umount {_NEW}/boot && umount {_NEW} && umount {_OLD}",
    }


def nth(first: str, number: int) -> str:
    """The guest's name for the disk with that number, where it calls number 0 `first`: vbd0, da0. Pure."""
    return f"{first.rstrip('0123456789')}{number}"


def _step(kitchen: Kitchen, shell: Workbench, name: str, what: str, command: str) -> float:
    """Run one step in the guest, logged; its seconds."""
    kitchen.say(f"{what} in the guest")
    began = time.monotonic()
    answer = shell.run(command, kitchen.deadline)
    with kitchen.log.open("a", encoding="utf-8") as log:
        log.write(f"$ {command}\n{answer.text}\n")
    if answer.status != 0:
        raise BuildFailed(f"{what} failed in the guest", component=name, log=kitchen.log, tail=tail(kitchen.log))
    return round(time.monotonic() - began, 1)
