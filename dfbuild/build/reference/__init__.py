"""The reference target: a small Linux guest from Debian packages, its world compiled by the cell's compiler.

In: the release data of `releases/reference.toml`, the files of `images/reference` and the suites' C programs.
Out: recipes fetch ▸ kernel, fetch + world ▸ image, and the media that guests boot from.
"""

from __future__ import annotations

import functools

from dfbuild.build import probes
from dfbuild.build.debian import apt, linux
from dfbuild.build.recipe import DISK, Artefact, Recipe
from dfbuild.build.reference import data, world
from dfbuild.build.reference import image as image_files
from dfbuild.build.targets import undriven
from dfbuild.image import identity, templates
from dfbuild.model import Cell, Disk, Login, Media, Refusal
from dfbuild.releases import Release
from dfbuild.workspace import Workspace

_NAME = "reference"


class Target:
    """Implements `build.targets.Target`."""

    def image(self, release: Release, cell: Cell, workspace: Workspace) -> Recipe:
        """The recipe of the image of `cell`. Shapes share it: they differ in hardware and kernel arguments only."""
        build = data.of(release)
        keys = identity.ensure(workspace, _NAME)
        resolve = functools.partial(apt.resolve, cache=workspace.cache)
        fetched = apt.fetch("kernel packages", resolve((build.kernel,), build.kernel_follow))
        userland = apt.fetch("userland packages", resolve(build.packages, build.packages_follow))
        here = templates.images(_NAME)
        sources = probes.read(probes.PROBES, here)
        values = {"authorized_key": keys.client_public, "hostname": release.name}
        files = templates.render_tree(here / "root", values)
        return image_files.recipe(
            release,
            kernel=linux.recipe(fetched, build.modules, build.fault_modules),
            made=world.recipe(release, cell.variant, sources),
            userland=userland,
            files=files,
            identity=keys,
        )

    def refuse(self, release: Release, cell: Cell) -> Refusal | None:
        """Refuses devices that the image has no drivers for."""
        build = data.of(release)
        return undriven(cell, disk=build.disks, nic=build.nics, console=build.consoles)

    def media(self, release: Release, cell: Cell, image: Artefact, workspace: Workspace) -> Media:
        """Kernel, initramfs and disk of `image`, with the kernel command line for the cell's console."""
        build = data.of(release)
        keys = identity.ensure(workspace, _NAME)
        hvm = cell.shape.hypervisor == "xen-hvm"
        uefi = cell.shape.firmware == "uefi"
        root = build.disks[cell.shape.disk]
        if hvm:  # the first disk is the one that it boots from
            root = f"{root.removesuffix('a')}b"
        append = [
            f"console={build.consoles[cell.shape.console]}",
            f"root={root}",
            build.append,
            release.kernels[cell.variant.kernel].append,
        ]
        return Media(
            disks=(Disk(image.path / DISK),),
            # A bzImage is what a boot sector can start, and UEFI firmware.
            kernel=image.path / (image_files.BZIMAGE if hvm or uefi else image_files.KERNEL),
            initrd=image.path / image_files.INITRD,
            append=" ".join(word for word in append if word),
            login=Login(user="root", password=None, key=keys.client_key, host_key=keys.host_public),
        )
