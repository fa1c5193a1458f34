"""DragonFly BSD, built from its own source tree on a Linux host.

In: a source tree, the release's data (`data.py` reads its `[build]` table) and the host. Out: recipes
host kit ▸ toolchains ▸ kernel, world ▸ programs ▸ image, and where its root is HAMMER2 ▸ image, filled by a guest
of the one before. Everything is built in a sandbox by the tree's own makefiles, at fixed places (`layout.py`), from
the parts that a recipe names and no other (`within.py`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dfbuild.build.bench import Boot, Machine, no_machine
from dfbuild.build.dragonfly import (
    data,
    hammer2,
    image,
    imported,
    kernel,
    live,
    loaders,
    native,
    nativeworld,
    part,
    programs,
    world,
)
from dfbuild.build.dragonfly.layout import SRC
from dfbuild.build.recipe import DISK, LIVE, Artefact, Recipe
from dfbuild.build.store import ArtefactStore
from dfbuild.build.targets import Built, undriven
from dfbuild.errors import UsageError
from dfbuild.image import disk, dragonfly, identity, iso
from dfbuild.model import Cell, Disk, Login, Media, Refusal, Shape, StepKind, Symbols, Variant
from dfbuild.releases import Release
from dfbuild.source import Tree
from dfbuild.workspace import Workspace

_IDENTITY = "dragonfly"
_CONSOLE = Login(user="root", password=None)
"""On the console root needs nothing else."""


class Target:
    """Implements `build.targets.Target`: kernels are of `tree`, userlands of `plain`, which mostly are one tree.

    `machine` boots guests to build in: kernels are built there, and worlds, as `built` says.
    """

    def __init__(self, tree: Tree, plain: Tree, machine: Machine = no_machine, built: Built = Built.CROSS) -> None:
        self._tree = tree.still()
        self._plain = self._tree if plain is tree else plain.still()
        self._machine = machine
        self._built = built
        self._images: dict[tuple[Variant, str, str, str, bool], Recipe] = {}
        self._worlds: dict[tuple[str, str], Recipe] = {}

    def image(self, release: Release, cell: Cell, workspace: Workspace) -> Recipe:
        """The recipe of the disk of `cell`. Shapes that start from the same hardware share it, variants kernels and
        worlds. Guests of Xen have a disk of their own where the release has a loader for them."""
        variant, shape = cell.variant, cell.shape
        which = (variant, shape.disk, shape.firmware, shape.root, self._has_loader(release, shape))
        if which not in self._images:
            make = self._filled if shape.root == "hammer2" else self._image
            self._images[which] = make(release, variant, shape, workspace)
        return self._images[which]

    def _image(self, release: Release, variant: Variant, shape: Shape, workspace: Workspace) -> Recipe:
        """The disk for `shape`, written here: whole, or but for a root that is not UFS."""
        tree = self._tree
        keys = _keys(workspace)
        name = self._called(release, variant, shape)
        build = data.of(release)
        crossed = (self._world(release, variant), kernel.recipe(release, tree, variant))
        parts = [*crossed]
        if self._built is Built.NATIVE_WORLD:
            parts.append(self._native_world(release, variant, keys))
        if self._built is not Built.CROSS:
            # The guest that builds has the cross-built kernel; the one that is tested has it below its own.
            kit = (*crossed, native.sources(release, tree))
            builder = image.recipe(release, f"{variant.label} to build in", kit, keys, root=native.ROOT)
            parts.append(
                native.recipe(release, variant, builder, crossed[-1], _login(keys), self._machine),
            )
        if shape.firmware == "uefi":
            parts.append(self._loaders(release, variant, data.efi(release), "EFI"))
        if self._has_loader(release, shape):
            parts.append(self._loaders(release, variant, data.loader(release), "loader"))
        parts.append(self._programs(release, variant))
        if build.tests:
            parts.append(native.tests(tree, build.tests))
        tunables = release.kernels[variant.kernel].tunables
        return image.recipe(
            release,
            name,
            parts,
            keys,
            disk_model=shape.disk,
            firmware=shape.firmware,
            tunables=tunables,
            hammer2=shape.root == "hammer2",
        )

    def _filled(self, release: Release, variant: Variant, shape: Shape, workspace: Workspace) -> Recipe:
        """The disk for `shape` with its root in HAMMER2: see `hammer2.recipe`."""
        keys = _keys(workspace)
        source = self.image(release, Cell(variant, release.own_shape), workspace)
        unfilled = self._image(release, variant, shape, workspace)
        files = dragonfly.files(image.settings(release, keys, shape.disk, hammer2=True))
        name = image.label(release, self._called(release, variant, shape), shape.disk, shape.firmware)
        return hammer2.recipe(
            release,
            f"{name} on HAMMER2",
            variant,
            source,
            unfilled,
            files["etc/fstab"],
            _login(keys),
            self._machine,
        )

    def _called(self, release: Release, variant: Variant, shape: Shape) -> str:
        return f"{variant.label} under Xen" if self._has_loader(release, shape) else variant.label

    def _world(self, release: Release, variant: Variant) -> Recipe:
        compiler = data.of(release).userland(variant.toolchain)
        protection = release.stack_protectors[variant.stack_protector].of_world
        which = (compiler, protection.model_dump_json())
        if which not in self._worlds:
            self._worlds[which] = world.recipe(release, self._plain, compiler, protection)
        return self._worlds[which]

    def _native_world(self, release: Release, variant: Variant, keys: identity.Identity) -> Recipe:
        """See `nativeworld.recipe`. Variants of one world share it: who builds has the first one's kernel."""
        first = replace(variant, kernel=next(iter(release.kernels)))
        crossed = self._world(release, variant)
        parts = (crossed, kernel.recipe(release, self._plain, first), nativeworld.sources(self._plain))
        builder = image.recipe(release, f"{crossed.name} to build a world in", parts, keys, root=nativeworld.ROOT)
        objects = None
        if data.of(release).image.hammer2 is not None:
            name = f"{crossed.name} for objects"
            objects = image.recipe(release, name, parts[:2], keys, root=nativeworld.OBJECTS, hammer2=True)
        protection = release.stack_protectors[variant.stack_protector].of_world
        return nativeworld.recipe(
            release, first, protection, builder, objects, crossed, _login(keys), self._machine
        )

    def _programs(self, release: Release, variant: Variant) -> Recipe:
        compiler = data.of(release).userland(variant.toolchain)
        protection = release.stack_protectors[variant.stack_protector].of_world
        return programs.recipe(release, self._plain, compiler, protection, self._world(release, variant))

    def _loaders(self, release: Release, variant: Variant, own: data.Loaders, what: str) -> Recipe:
        compiler = data.of(release).userland(variant.toolchain)
        return loaders.recipe(release, self._plain, compiler, self._world(release, variant), own, what)

    @staticmethod
    def _has_loader(release: Release, shape: Shape) -> bool:
        return shape.on_xen and data.of(release).loader is not None

    def live(self, release: Release, variant: Variant) -> Recipe:
        """The recipe of a CD with the live system of `variant`: see `live.recipe`. Raises `UsageError`."""
        loaders = {"CD loader": data.iso(release).loader, "CD EFI": data.cd_efi(release)}
        parts = (self._world(release, variant), kernel.recipe(release, self._tree, variant))
        over = [self._loaders(release, variant, own, what) for what, own in loaders.items()]
        over.append(live.skeleton(release, self._plain))
        name = variant.label
        return live.recipe(release, name, parts, over, release.kernels[variant.kernel].tunables)

    def programs(self, release: Release, variant: Variant) -> Recipe:
        """Implements `build.targets.ProgramsTarget`."""
        return programs.cd(release, self._programs(release, variant))

    def live_media(self, release: Release, made: Artefact) -> tuple[Release, Media]:
        """Implements `build.targets.LiveTarget`: root gets in on the console, and needs no password."""
        return live.followed(release), Media(cdroms=(made.path / LIVE,), login=_CONSOLE)

    def refuse(self, release: Release, cell: Cell) -> Refusal | None:
        """Refuses to build in a guest by a compiler of this host, and devices that have no name in the guest."""
        build = data.of(release)
        compiler = build.compilers.get(cell.variant.toolchain)
        if self._built is not Built.CROSS and compiler is not None and compiler.host is not None:
            return Refusal(
                cell, f"--build {self._built}: {compiler.host} is this host's compiler, and no guest has it"
            )
        nics = {} if release.wire is None else {"nic": release.wire.interface}
        return undriven(cell, disk=build.image.disks, **nics)

    def media(self, release: Release, cell: Cell, image_made: Artefact, workspace: Workspace) -> Media:
        """The disk, which boots by itself, and root's key to it, unless it turned out to have no SSH server."""
        login = _login(_keys(workspace)) if image_made.facts.get("ssh", True) else _CONSOLE
        symbols = self._symbols(release, cell, workspace)
        return Media(disks=(Disk(image_made.path / DISK),), login=login, symbols=symbols)

    def _symbols(self, release: Release, cell: Cell, workspace: Workspace) -> Symbols | None:
        """Of the kernel that `cell` boots: with debugging information, unless it was built in a guest."""
        steps = self.image(release, cell, workspace).walk()
        made = ArtefactStore(workspace).path([step for step in steps if step.kind is StepKind.KERNEL][-1])
        files = (made / kernel.DEBUG, made / part.ROOT / data.kernel(release).installed)
        return next((Symbols(file, str(SRC)) for file in files if file.is_file()), None)


def require_medium(medium: Path) -> None:
    """Raise `UsageError` unless the file is a disk (`.img`) or a CD (`.iso`), by its name and by its content."""
    match medium.suffix.lower():
        case ".img":
            disk.require_disk(medium)
        case ".iso":
            iso.require_cd(medium)
        case _:
            raise UsageError(f"{medium.name} is neither a CD nor a disk by its name", hint="call it .iso, or .img")


def taken_in(release: Release, medium: Path, digest: str, workspace: Workspace, boot: Boot) -> Recipe:
    """The recipe of a disk out of `medium`, whose SHA-256 is `digest`: a disk as it is, or a CD that installs
    itself in a guest that `boot` boots.

    Raises as `require_medium` does, and `UsageError` where the release has no such CD.
    """
    require_medium(medium)
    if medium.suffix.lower() == ".img":
        return imported.raw(release, medium, digest)
    return imported.recipe(release, medium, digest, _keys(workspace), boot)


def _keys(workspace: Workspace) -> identity.Identity:
    return identity.ensure(workspace, _IDENTITY, identity.Kind.RSA)


def _login(keys: identity.Identity) -> Login:
    return Login(user="root", password=None, key=keys.client_key, host_key=keys.host_public)
