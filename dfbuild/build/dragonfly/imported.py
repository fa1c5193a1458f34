"""A disk out of somebody else's medium: a live system that installs itself, unattended, or a disk as it is.

A CD is booted with a second one beside it, the *seed*: the live system's pfi finds the seed's `pfi.conf` and runs
the script that this names (etc/rc.d/pfi of a tree's nrelease). The script, `images/dragonfly/install`, installs on
an empty disk with the live system's own programs, and puts the files of a guest of ours over that, so that the disk
is one like any other. All of it is seen on the serial console, which the loader is told of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfbuild.build import step
from dfbuild.build.bench import Boot
from dfbuild.build.dragonfly import data, image, live, part
from dfbuild.build.recipe import DISK, Kitchen, Recipe
from dfbuild.image import disk, dragonfly, iso, manifest
from dfbuild.image.identity import Identity
from dfbuild.image.manifest import Names
from dfbuild.image.ufs import Run
from dfbuild.model import Disk, Media, StepKind, Verdict
from dfbuild.releases import Release
from dfbuild.releases.schema import Crash, Stage
from dfbuild.source import changed_meanwhile
from dfbuild.workspace import remove

_SEED = iso.Volume("DFBUILD_SEED")
_MARGIN = 16
"""MiB of a disk beside its partitions, for label, alignment and what the geometry leaves over."""
_BOOT_MINUTES = 15.0


def raw(release: Release, medium: Path, digest: str) -> Recipe:
    """`disk.qcow2` with the bytes of the raw disk `medium`, whose SHA-256 is `digest`. It is not booted."""

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        kitchen.say(f"copying {medium.name}")
        disk.convert(medium, kitchen.directory / DISK, step.runner(kitchen, medium))
        _require_same(medium, digest)
        return {"medium": digest, "ssh": False}

    return Recipe(StepKind.IMAGE, f"disk {digest[:12]}", {"release": release.name, "medium": digest}, make)


def recipe(release: Release, medium: Path, digest: str, keys: Identity, boot: Boot) -> Recipe:
    """`disk.qcow2`, installed from the CD `medium`, whose SHA-256 is `digest`; it was seen to boot by itself.

    `keys` are those of the guests. Facts: seconds by stage of both boots. Raises `UsageError` where the release has
    no such CD; making it raises `BuildFailed` for a live system that does not come up, does not look for the seed,
    or fails to install, and for a disk that does not boot.
    """
    own, sizes, shape = data.iso(release), data.of(release).image, release.own_shape
    name = sizes.disks[shape.disk]
    mark = hashlib.sha256(f"{digest} installed".encode()).hexdigest()[:16]
    script = dragonfly.install({
        "disk": name,
        "root": own.root,
        "swap": sizes.swap,
        "probes": release.probes,
        "kept": own.kept,
        "left": [*own.left, iso.CATALOG, live.EFI],
        "mark": mark,
    })  # fmt: skip
    files = {**dragonfly.files(image.settings(release, keys)), **dragonfly.base(release.probes)}
    files |= {f"{image.HOST_KEY}.pub": f"{keys.host_public}\n".encode()}
    public = {**script, **{f"root/{path}": content for path, content in files.items()}}

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        work, run = kitchen.directory, step.runner(kitchen, medium)
        beside, blank, kept = work / "seed.iso", work / "blank.qcow2", work / "kept"
        seed(work / "seed", {**public, f"root/{image.HOST_KEY}": keys.host_key.read_bytes()}, beside, run)
        size = own.root + sizes.swap + _MARGIN
        run(["qemu-img", "create", "-q", "-f", "qcow2", blank, f"{size}M"], {})
        kept.mkdir(mode=0o700)
        kitchen.say("installing")
        media = Media(disks=(Disk(blank),), cdroms=(medium, beside))
        installed = boot(installing(release, mark), media, kitchen, "install", kept)
        made = work / DISK
        disk.flatten(kept / "disk0.qcow2", made, run)
        for left in (work / "seed", beside, kept, blank):
            remove(left)
        _require_same(medium, digest)
        kitchen.say("booting what was installed")
        booted = boot(release, Media(disks=(Disk(made),)), kitchen, "boot")
        return {"medium": digest, "installed": installed, "booted": booted, "ssh": True}

    inputs = {
        "release": release.name,
        "medium": digest,
        "sizes": [own.root, sizes.swap],
        "log": dragonfly.log(),
        "seed": {path: hashlib.sha256(content).hexdigest() for path, content in public.items()},
        "form": 1,
    }
    minutes = own.minutes * release.console.emulation_factor + _BOOT_MINUTES
    return Recipe(StepKind.IMAGE, f"disk {digest[:12]}", inputs, make, minutes=minutes, guest=shape.memory)


def _require_same(medium: Path, digest: str) -> None:
    """Raise `InfraError` unless the file has that SHA-256 still, by which what was made of it is known."""
    if disk.digest(medium) != digest:
        raise changed_meanwhile(medium)


def installing(release: Release, mark: str) -> Release:
    """`release` as its live system is followed that installs itself: to the script's last word, `mark`. Pure."""
    own, alive = data.iso(release), live.followed(release)
    console = alive.console
    seconds = own.minutes * 60
    last = Stage(name="installed", pattern=f"^dfbuild: installed {mark}", deadline=seconds)
    failed = Crash(
        name="installation",
        literal="dfbuild: installation failed",
        pattern=r"^dfbuild: installation failed: ([^\r\n]+)",
        title="the installation failed: {1}",
        verdict=Verdict.BUILD_FAIL,
    )
    ignored = Crash(
        name="no-installation",
        literal="login: ",
        pattern="^login: ",
        title="the live system came up and looked for no pfi.conf",
        verdict=Verdict.BUILD_FAIL,
    )
    changed = {
        "stages": (console.stages[0], *own.serial, *console.stages[1:-1], last),
        "crashes": (*console.crashes, failed, ignored),
        "silence": max(console.silence, seconds),
    }
    return alive.model_copy(update={"console": console.model_copy(update=changed)})


def seed(directory: Path, files: Mapping[str, bytes], target: Path, run: Run) -> None:
    """Write the seed: `files` as they lie on it, of which those below `root/` are a guest's, with its modes."""
    for path, content in files.items():
        part.replace(directory, path, content)
    guests = dragonfly.log().replace("\n./", "\n./root/")
    log = manifest.parse_log(f"./{dragonfly.INSTALL} mode=0755\n{guests}", Names({}, {}))
    iso.make(_SEED, directory, target, manifest.scan(directory, log), run)
