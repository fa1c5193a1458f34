"""DragonFly BSD, built from its own source tree on a Linux host.

In: a source tree, the release's data (`data.py` reads its `[build]` table) and the host. Out: recipes
host kit ▸ toolchains ▸ kernel, world ▸ programs ▸ image. Everything is built in a sandbox by the tree's own
makefiles, at fixed places (`layout.py`), from the parts that a recipe names and no other (`within.py`).
"""

from __future__ import annotations

from dfbuild.build.dragonfly import data, efi, image, kernel, native, programs, world
from dfbuild.build.recipe import Artefact, Machine, Recipe
from dfbuild.image import identity
from dfbuild.model import Cell, Disk, Login, Media, Refusal, Variant
from dfbuild.releases import Release
from dfbuild.source import Tree
from dfbuild.workspace import Workspace

_IDENTITY = "dragonfly"
_CONSOLE = Login(user="root", password=None)
"""On the console root needs nothing else."""


class Target:
    """Implements `build.recipe.Target`: kernels are of `tree`, userlands of `plain`, which mostly are one tree.

    With a `machine` kernels are built in guests.
    """

    def __init__(self, tree: Tree, plain: Tree, machine: Machine | None = None) -> None:
        self._tree = tree.still()
        self._plain = self._tree if plain is tree else plain.still()
        self._machine = machine
        self._images: dict[tuple[Variant, str, str], Recipe] = {}
        self._worlds: dict[str, Recipe] = {}

    def image(self, release: Release, cell: Cell, workspace: Workspace) -> Recipe:
        """The recipe of the disk of `cell`. Shapes with one disk model and firmware share it, variants kernels and
        worlds."""
        which = (cell.variant, cell.shape.disk, cell.shape.firmware)
        if which not in self._images:
            self._images[which] = self._image(release, *which, workspace)
        return self._images[which]

    def _image(self, release: Release, variant: Variant, disk: str, firmware: str, workspace: Workspace) -> Recipe:
        tree = self._tree
        protection = release.stack_protectors[variant.stack_protector].of_world
        keys = _keys(workspace)
        name = variant.id.removeprefix(f"{release.name}/")
        build = data.of(release)
        compiler = build.userland(variant.toolchain)
        which = world.label(compiler, protection)
        if which not in self._worlds:
            self._worlds[which] = world.recipe(release, self._plain, compiler, protection)
        userland = self._worlds[which]
        parts = [userland, kernel.recipe(release, tree, variant)]
        if self._machine is not None:
            # The guest that builds has the cross-built kernel; the one that is tested has it below its own.
            kit = (*parts, native.sources(release, tree))
            builder = image.recipe(release, f"{name} to build in", kit, keys, root=native.ROOT)
            parts.append(
                native.recipe(release, variant, builder, parts[-1], _login(keys), self._machine),
            )
        if firmware == "uefi":
            parts.append(efi.recipe(release, self._plain, compiler, userland))
        parts.append(programs.recipe(release, self._plain, compiler, protection, userland))
        if build.tests:
            parts.append(native.tests(tree, build.tests))
        tunables = release.kernels[variant.kernel].tunables
        return image.recipe(release, name, parts, keys, disk_model=disk, firmware=firmware, tunables=tunables)

    def buildworld(self, release: Release, variant: Variant, workspace: Workspace, machine: Machine) -> Recipe:
        """`make buildworld` in a guest of `variant` that `machine` boots; see `native.buildworld`."""
        keys = _keys(workspace)
        protection = release.stack_protectors[variant.stack_protector].of_world
        parts = (
            world.recipe(release, self._plain, variant.toolchain, protection),
            kernel.recipe(release, self._tree, variant),
            native.whole_sources(self._plain),
        )
        builder = image.recipe(release, "to build a world in", parts, keys, root=native.WORLD_ROOT)
        return native.buildworld(release, variant, builder, _login(keys), machine)

    def refuse(self, release: Release, cell: Cell) -> Refusal | None:
        """Refuses to build in a guest by a compiler of this host; what else cannot be is in the release's data."""
        compiler = data.of(release).compilers.get(cell.variant.toolchain)
        if self._machine is None or compiler is None or compiler.host is None:
            return None
        return Refusal(cell, f"--build native: {compiler.host} is this host's compiler, and no guest has it")

    def media(self, release: Release, cell: Cell, image_made: Artefact, workspace: Workspace) -> Media:
        """The disk, which boots by itself, and root's key to it, unless it turned out to have no SSH server."""
        login = _login(_keys(workspace)) if image_made.facts.get("ssh", True) else _CONSOLE
        return Media(disks=(Disk(image_made.path / image.DISK),), login=login)


def _keys(workspace: Workspace) -> identity.Identity:
    return identity.ensure(workspace, _IDENTITY, identity.Kind.RSA)


def _login(keys: identity.Identity) -> Login:
    return Login(user="root", password=None, key=keys.client_key, host_key=keys.host_public)
