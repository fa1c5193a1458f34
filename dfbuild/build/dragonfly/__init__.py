"""DragonFly BSD on i386, built from its own source tree on a Linux host.

In: a source tree, the release's data (`data.py` reads its `[build]` table) and the host. Out: recipes
host kit ▸ toolchains ▸ kernel, world ▸ programs ▸ image. Everything is built in a sandbox by the tree's own
makefiles, at fixed places (`layout.py`), from the parts that a recipe names and no other (`within.py`).
"""

from __future__ import annotations

from dfbuild.build.dragonfly import image, kernel, programs, world
from dfbuild.build.recipe import Artefact, Recipe
from dfbuild.image import identity
from dfbuild.model import Cell, Disk, Login, Media, Refusal
from dfbuild.releases import Release
from dfbuild.source import Tree
from dfbuild.workspace import Workspace

_IDENTITY = "dragonfly"


class Target:
    """Implements `build.recipe.Target` for one source tree."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def image(self, release: Release, cell: Cell, workspace: Workspace) -> Recipe:
        """The recipe of the disk of `cell`. Shapes share it, and variants share the kernels and worlds in it."""
        variant = cell.variant
        protection = release.stack_protectors[variant.stack_protector].of_world
        userland = world.recipe(release, self.tree, variant.toolchain, protection)
        parts = (
            userland,
            kernel.recipe(release, self.tree, variant),
            programs.recipe(release, self.tree, variant.toolchain, protection, userland),
        )
        name = variant.id.removeprefix(f"{release.name}/")
        return image.recipe(release, name, parts, self._identity(workspace))

    def refuse(self, release: Release, cell: Cell) -> Refusal | None:
        """None: what cannot be is in the release's data."""
        return None

    def media(self, release: Release, cell: Cell, image_made: Artefact, workspace: Workspace) -> Media:
        """The disk, which boots by itself, and root's key to it."""
        keys = self._identity(workspace)
        return Media(
            disks=(Disk(image_made.path / image.DISK),),
            login=Login(user="root", password=None, key=keys.client_key, host_key=keys.host_public),
        )

    @staticmethod
    def _identity(workspace: Workspace) -> identity.Identity:
        return identity.ensure(workspace, _IDENTITY, identity.Kind.RSA)
