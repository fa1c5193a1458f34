"""`dfbuild image`: media to install from, and disks that were installed from what others made."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from dfbuild import releases
from dfbuild.build import bases, dragonfly
from dfbuild.build.recipe import LIVE
from dfbuild.build.store import BUILD_SECONDS, ArtefactStore, build_all
from dfbuild.cli.choice import choose, live_target, one
from dfbuild.cli.output import require_place
from dfbuild.cli.progress import say
from dfbuild.deadline import Deadline
from dfbuild.errors import InfraError, UsageError
from dfbuild.image import disk
from dfbuild.image import iso as iso_image
from dfbuild.matrix.follow import follow
from dfbuild.source import detect
from dfbuild.workspace import Workspace, require_name

_SUM = re.compile(r"[0-9A-Fa-f]{64}")
_HEADER, _INSTALLED = "sys/sys/param.h", "usr/include/sys/param.h"
"""What says of which release a tree is, and where a system has it."""


def iso(arguments: argparse.Namespace) -> int:
    """Build what the one chosen cell needs and make the CD; its place goes to standard output."""
    workspace = Workspace.locate(arguments.work)
    output = Path(arguments.output) if arguments.output else None
    if output is not None:
        require_place(output)
    chosen = choose(arguments, workspace)
    cell = one(chosen)
    release = chosen.matrix.release
    target = live_target(chosen.target, release)
    started = time.monotonic()
    recipe = target.live(release, cell.variant)
    made = build_all(recipe, ArtefactStore(workspace), Deadline.after(BUILD_SECONDS, what=recipe.id), say)
    path = made.path / LIVE
    if output is not None:
        path = _copy(path, output)
    if arguments.json:
        seconds = round(time.monotonic() - started, 3)
        json.dump({"cell": cell.id, "path": str(path), "seconds": seconds, **made.facts}, sys.stdout, indent=2)
        print()
    else:
        print(path)
    return 0


def take(arguments: argparse.Namespace) -> int:
    """Check the sum, make a base image of the file, and let its name stand for it."""
    workspace = Workspace.locate(arguments.work)
    medium = Path(arguments.medium).absolute()
    name = require_name(arguments.name or medium.stem, "a base image")
    digest = _checked(medium, arguments.sha256)
    dragonfly.require_medium(medium)
    deadline = Deadline.after(BUILD_SECONDS, what=f"base image {name}")
    release = releases.load(arguments.release or _release(medium, workspace, deadline))
    if release.target != dragonfly.__name__.rpartition(".")[2]:
        raise UsageError(
            f"{release.title} is not taken in from elsewhere", hint="--release names a DragonFly release"
        )
    started = time.monotonic()
    recipe = dragonfly.taken_in(release, medium, digest, workspace, follow)
    made = build_all(recipe, ArtefactStore(workspace), deadline, say)
    before = [base for base in bases.known(workspace) if base.name == name and base.key != made.key]
    bases.save(workspace, bases.Base(name, release.name, digest, made.key, bool(made.facts["ssh"])))
    if arguments.json:
        seconds = round(time.monotonic() - started, 3)
        report = {"name": name, "release": release.name, "path": str(made.path), "seconds": seconds}
        json.dump({**report, "facts": made.facts}, sys.stdout, indent=2)
        print()
    else:
        instead = "".join(
            f", and no longer the one of {base.release} with SHA-256 {base.medium}" for base in before
        )
        print(f"{name} is a base image of {release.title}{instead}: {made.path}")
        work = f" --work {shlex.quote(arguments.work)}" if arguments.work else ""
        print(f"  dfbuild guest up CONFIG --src TREE --cell ID --base {shlex.quote(name)}{work}")
    return 0


def listing(arguments: argparse.Namespace) -> int:
    """The base images."""
    found = bases.known(Workspace.existing(arguments.work))
    if arguments.json:
        json.dump([asdict(base) for base in found], sys.stdout, indent=2)
        print()
        return 0
    width = max((len(base.name) for base in found), default=0)
    for base in found:
        print(f"{base.name:<{width}}  {base.release:<6}  {base.medium}")
    if not found:
        print("no base image", file=sys.stderr)
    return 0


def remove(arguments: argparse.Namespace) -> int:
    """Forget a base image; its disk is as any artefact from then on."""
    bases.forget(Workspace.existing(arguments.work), arguments.name)
    print(f"{arguments.name} is no base image any more; its disk goes with what `dfbuild clean` removes")
    return 0


def _checked(medium: Path, wanted: str) -> str:
    """The SHA-256 of `medium`, if it is the `wanted` one; raises `UsageError`."""
    if not _SUM.fullmatch(wanted):
        raise UsageError(f"{wanted!r} is no SHA-256", hint="64 hexadecimal digits, as sha256sum(1) prints them")
    if not medium.is_file():
        raise UsageError(f"there is no file {medium}")
    found = disk.digest(medium)
    if found != wanted.lower():
        raise UsageError(
            f"{medium} is not the file that was meant: its SHA-256 is {found}, not {wanted.lower()}",
            hint="fetch it again, and look where the sum comes from",
        )
    return found


def _release(medium: Path, workspace: Workspace, deadline: Deadline) -> str:
    """The release that a CD says it is of, by a header that it has of the tree. Raises `UsageError`."""
    workspace.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.cache, prefix="medium-") as made:
        place = Path(made)
        header = place / _HEADER
        header.parent.mkdir(parents=True)
        if medium.suffix.lower() == ".iso" and iso_image.extract(medium, _INSTALLED, header, deadline):
            return detect(place)
    raise UsageError(f"{medium.name} does not say which release it is of", hint="say it with --release")


def _copy(source: Path, target: Path) -> Path:
    """A copy of one's own at `target`, there whole or not at all. Raises `InfraError`."""
    fd, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(fd)
    try:
        shutil.copyfile(source, temporary)
        Path(temporary).chmod(0o644)
        Path(temporary).rename(target)
    except OSError as error:
        raise InfraError(f"cannot write {target}: {error.strerror}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return target
