"""What of the work directory can go, and how it goes: artefacts, object trees, copies of trees, logs.

All of it is made again when it is needed. What cannot be made again stays: runs and their results, keys, base
images, and the caches that bound themselves. A directory's time stamp says when it was used last
(`workspace.mark_used`).
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfbuild.build import bases
from dfbuild.build.store import MANIFEST
from dfbuild.model import StepKind
from dfbuild.source import memory_beside
from dfbuild.workspace import Workspace, remove

_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that can go: its `places`, the `bytes` they take on the disk (of hard links their share), and when
    it was `used` last, in seconds of the epoch."""

    kind: str
    name: str
    places: tuple[Path, ...]
    bytes: int
    used: float


@dataclass(frozen=True, slots=True)
class Cleaning:
    """`gone` is what went, or would go; `left` what stays of what could go."""

    gone: tuple[Item, ...]
    left: tuple[Item, ...]


def condemned(items: Iterable[Item], now: float, unused: float | None, below: int | None) -> list[Item]:
    """What has to go: what was not used for `unused` days, and of the rest the least recently used until no more
    than `below` bytes are left. None of either asks for nothing."""
    going: list[Item] = []
    oldest = sorted(items, key=lambda item: item.used)
    left = sum(item.bytes for item in oldest)
    for item in oldest:
        old = unused is not None and item.used <= now - unused * _DAY
        if not old and (below is None or left <= below):
            break
        going.append(item)
        left -= item.bytes
    return going


def clean(workspace: Workspace, unused: float | None, below: int | None, *, really: bool = True) -> Cleaning:
    """Remove what is `condemned`, or only say what that is. Raises `UsageError` rather than remove anything while a
    dfbuild is at work there."""
    grave = workspace.root / ".removed"
    with workspace.alone() if really else workspace.in_use():
        items = list(removable(workspace))
        going = condemned(items, time.time(), unused, below)
        if really:
            # Out of the way in a moment, so that nobody waits for what takes long, or finds half of it.
            _bury([place for item in going for place in item.places] + list(_stale(workspace)), grave)
    if really:
        remove(grave)
    gone = {item.places for item in going}
    return Cleaning(tuple(going), tuple(item for item in items if item.places not in gone))


def removable(workspace: Workspace) -> Iterator[Item]:
    """Everything that can go. What base images stand for cannot: their media may not be at hand any more. Raises
    `UsageError` for one of which it is not known what that is."""
    kept = {base.key for base in bases.whole(workspace)}
    logs = {(path.parent.name, path.name): path for path in _directories(workspace.logs, depth=2)}
    for path in _directories(workspace.artefacts, depth=2):
        kind, key = path.parent.name, path.name
        log = logs.pop((kind, key), None)
        if not (kind == StepKind.IMAGE and key in kept):
            yield from _item(kind, _named(path), path, *((log,) if log is not None else ()))
    for (kind, _), log in logs.items():
        yield from _item("log", f"{kind} {log.name}", log)
    for path in _directories(workspace.objects):
        yield from _item("objects", path.name, path)
    for path in _directories(workspace.sources):
        memory = memory_beside(path)
        yield from _item("sources", path.name, path, *((memory,) if memory.exists() else ()))


def _directories(parent: Path, depth: int = 1) -> list[Path]:
    """Those `depth` below `parent`, in order, without what is being made, which has a dot before its name."""
    found = [parent]
    for _ in range(depth):
        found = [path for above in found for path in sorted(above.glob("[!.]*")) if path.is_dir()]
    return found


def _named(artefact: Path) -> str:
    try:
        manifest: Any = json.loads((artefact / MANIFEST).read_text(encoding="utf-8"))
        return str(manifest["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return artefact.name


def _item(kind: str, name: str, *places: Path) -> Iterator[Item]:
    """It, unless it has gone meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        used = places[0].stat().st_mtime
        yield Item(kind, name, places, sum(_size(place) for place in places), used)


def _size(top: Path) -> int:
    total = 0 if top.is_dir() else top.stat().st_blocks * 512
    for directory, _, files in os.walk(top):
        for name in (".", *files):
            try:
                status = os.lstat(f"{directory}/{name}")
            except FileNotFoundError:  # builds go on beside a dry run
                continue
            links = 1 if name == "." else status.st_nlink
            total += status.st_blocks * 512 // links
    return total


def _stale(workspace: Workspace) -> Iterator[Path]:
    """What was being made when somebody was killed."""
    yield from workspace.sources.glob(".*")
    yield from (workspace.artefacts / ".building").glob("*")


def _bury(places: Sequence[Path], grave: Path) -> None:
    grave.mkdir(exist_ok=True)  # what an interrupted cleaning left may be in it
    new = Path(tempfile.mkdtemp(dir=grave))
    for number, place in enumerate(places):
        place.rename(new / f"{number}")
