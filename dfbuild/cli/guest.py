"""`dfbuild guest`: guests that are kept up, to look around in and to run suites against by hand."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from pathlib import Path

from dfbuild.build.store import BUILD_SECONDS, ArtefactStore, build_all
from dfbuild.cli import xenhost
from dfbuild.cli.choice import Chosen, choose, live_target, one
from dfbuild.cli.progress import say
from dfbuild.console.text import Printable
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, InfraError, UsageError
from dfbuild.matrix import xen
from dfbuild.model import Cell, Media
from dfbuild.releases import Release
from dfbuild.releases.schema import SshShell
from dfbuild.session import attach, boot_seconds, keep
from dfbuild.session.attached import AttachedSession
from dfbuild.session.protocol import Manifest
from dfbuild.shell import open_shell, openssh
from dfbuild.shell.protocol import Shell, StreamingShell
from dfbuild.workspace import Workspace, atomic_write

_UP_SECONDS = 900.0
"""What is needed beside the boot: a Xen host made for the guest boots before it."""
_EXAMINE_SECONDS = 60.0
_DOWN_SECONDS = 15.0
_COMMAND_SECONDS = 3600.0
_ENTER_SECONDS = 120.0
"""Until there is a shell: an emulated CPU that is busy takes its time for a login."""
_FOREVER = 1e9
_PIECE = 1 << 20


def up(arguments: argparse.Namespace) -> int:
    """Build what the one chosen cell needs, boot it, and leave it running."""
    workspace = Workspace.locate(arguments.work)
    chosen = choose(arguments, workspace)
    cell = one(chosen)
    name = arguments.name or cell.shape.name
    keep.require_free(workspace, name)
    xenhost.require(chosen.xen_host, [cell], Deadline.after(_EXAMINE_SECONDS))
    release, media = _media(arguments, chosen, cell, Deadline.after(BUILD_SECONDS, what=cell.id))
    up_seconds = _UP_SECONDS + boot_seconds(cell.shape, release)
    manifest = keep.up(workspace, name, release, cell, media, Deadline.after(up_seconds, what=cell.id), say)
    if arguments.json:
        json.dump(
            {"name": name, "cell": cell.id, "ssh": manifest.ssh, "transcript": str(manifest.transcript)}, sys.stdout
        )
        print()
        return 0
    print(f"{name} is up: {cell.id}")
    where = f"--work {shlex.quote(str(workspace.root))} " if arguments.work else ""
    via = "" if manifest.ssh else "--via serial "
    print(f"  dfbuild guest exec {where}{via}{shlex.quote(name)} COMMAND")
    if manifest.ssh and release.shell.ssh and manifest.login.key:
        print(f"  ssh -F {shlex.quote(str(_ssh_config(manifest, release.shell.ssh)))} {shlex.quote(name)}")
    # pytest knows the usual work directory only; elsewhere the guest is named by its file.
    known = str(manifest.transcript.with_name("guest.json")) if arguments.work else name
    print(f"  pytest --pyargs dfbuild.suites --dfbuild-guest {shlex.quote(known)}")
    print(f"  dfbuild guest down {where}{shlex.quote(name)}")
    return 0


def _ssh_config(manifest: Manifest, data: SshShell) -> Path:
    """A file with which OpenSSH's client gets into the guest, and recognises it."""
    place = manifest.transcript.parent
    atomic_write(place / "known_hosts", openssh.known_host(manifest))
    atomic_write(place / "ssh_config", openssh.config(manifest, data, place / "known_hosts"))
    return place / "ssh_config"


def _media(arguments: argparse.Namespace, chosen: Chosen, cell: Cell, deadline: Deadline) -> tuple[Release, Media]:
    """What the guest boots, built as far as it is not there, and the release as it boots then."""
    store, release, target = ArtefactStore(chosen.workspace), chosen.matrix.release, chosen.target
    if arguments.live:
        lively = live_target(target, release)
        _require_drive(cell)
        return lively.live_media(release, build_all(lively.live(release, cell.variant), store, deadline, say))
    image, *_ = [build_all(recipe, store, deadline, say) for recipe in chosen.plan.needs(cell)]
    host = chosen.plan.hosts.get(cell.id)
    return release, xen.media(target, release, cell, image, chosen.workspace, host, chosen.xen_host)


def _require_drive(cell: Cell) -> None:
    """Raise `UsageError` for a shape that a CD does not start on."""
    if cell.shape.on_xen:
        raise UsageError(f"shape {cell.shape.name} does not start from a CD", hint="choose one of QEMU's own")


def listing(arguments: argparse.Namespace) -> int:
    """The guests that are up."""
    workspace = Workspace.existing(arguments.work)
    manifests = list(keep.manifests(workspace))
    if arguments.json:
        json.dump(
            [{"name": m.name, "cell": m.cell.id, "ssh": m.ssh, "accel": m.accel} for m in manifests], sys.stdout
        )
        print()
        return 0
    width = max((len(manifest.name) for manifest in manifests), default=0)
    for manifest in manifests:
        print(f"{manifest.name:<{width}}  {manifest.cell.id}  {manifest.accel}")
    if not manifests:
        print("no guest is up", file=sys.stderr)
    return 0


def down(arguments: argparse.Namespace) -> int:
    """End a guest."""
    keep.down(Workspace.locate(arguments.work), arguments.name, Deadline.after(_DOWN_SECONDS))
    return 0


def execute(arguments: argparse.Namespace) -> int:
    """Run one command; dfbuild's status is the command's."""
    if not arguments.words:
        raise UsageError("no command", hint="dfbuild guest exec NAME COMMAND")
    manifest = keep.find(Workspace.locate(arguments.work), arguments.name)
    session = attach(manifest)
    deadline = Deadline.after(_COMMAND_SECONDS)
    shown = _Shown()
    try:
        with contextlib.closing(_entered(session, manifest, arguments.via, deadline)) as shell:
            command = " ".join(arguments.words)
            if isinstance(shell, StreamingShell) and not arguments.json:
                status = shell.stream(command, deadline, shown.more)
                shown.end()
                return status
            answer = shell.run(command, deadline)
    finally:
        session.close()
    if arguments.json:
        json.dump({"status": answer.status, "output": answer.text}, sys.stdout)
        print()
    else:
        shown.more(answer.output)
        shown.end()
    return answer.status


def _entered(session: AttachedSession, manifest: Manifest, via: str, deadline: Deadline) -> Shell:
    """A shell in the guest. Raises `InfraError` for one that lets nobody in."""
    try:
        return open_shell(session, manifest.release, via, deadline.sooner(_ENTER_SECONDS, what="a shell"))
    except DeadlineExceeded as error:
        deadline.check()
        raise InfraError(
            f"{manifest.name} does not answer: {error.message}",
            hint=f"what it prints: dfbuild guest console {manifest.name}",
        ) from error


class _Shown:
    """A command's output: a pipe gets every byte as it is, a terminal what cannot control it."""

    def __init__(self) -> None:
        self._text = Printable() if sys.stdout.isatty() else None

    def more(self, output: bytes) -> None:
        if self._text is None:
            sys.stdout.buffer.write(output)
        else:
            sys.stdout.write(self._text.feed(output))
        sys.stdout.flush()

    def end(self) -> None:
        if self._text is not None:
            sys.stdout.write(self._text.end())
            sys.stdout.flush()


def console(arguments: argparse.Namespace) -> int:
    """Print the transcript, made safe for a terminal; of a guest that has ended, too."""
    workspace = Workspace.locate(arguments.work)
    ended = keep.ended(workspace, arguments.name)
    text = Printable()
    if ended is not None:
        with ended.open("rb") as log:
            while piece := log.read(_PIECE):
                sys.stdout.write(text.feed(piece))
        sys.stdout.write(text.end())
        return 0
    manifest = keep.find(workspace, arguments.name)
    session = attach(manifest)
    offset = 0
    try:
        while True:
            data = session.console.read(offset)
            offset += len(data)
            sys.stdout.write(text.feed(data))
            sys.stdout.flush()
            if not data and not (arguments.follow and session.console.follow(offset, Deadline.after(_FOREVER))):
                sys.stdout.write(text.end())
                return 0
    finally:
        session.close()
