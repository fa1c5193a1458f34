"""Object trees that outlive a build, so that after a change only what depends on it is built again.

An object tree lies below `<work directory>/objects/<key>/`, with the sources that it was built from beside it:

    lock        flock(2), taken by the one who builds
    source/     a copy of the tree's parts, the release's edits made in it
    source.json what is in it, by content
    obj/        what make(1) left
    open        there while a build runs; still there when one was cut off: what is older than it is whole

make(1) goes by time stamps, which say nothing across checkouts and exports. In the copy a file is as old as its
content: only what differs is written again. What was cut off may have left half a file that looks finished, so then
what was written since `open` is made again, but for objects that show to be whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dfbuild.build.dragonfly import edits, elf
from dfbuild.build.dragonfly.data import Edit
from dfbuild.errors import BuildFailed, BuildKilled, HostFull, InfraError
from dfbuild.source import Tree
from dfbuild.workspace import Workspace, atomic_write, remove

_BYTES = "latin-1"
_CLOCK_SECONDS = 60.0
"""How far a clock may be wrong."""
_MARK = "open"
_SETTLED = b"settled\n"
_UNSURE = b"of a tree that changed meanwhile\n"
"""In `open`: what the copy holds may not be what `source.json` says."""
_SOURCES = {".c", ".h", ".S", ".s"}
_DIRECTIVE = re.compile(r"^[ \t]*#(?:.*\\\n)*.*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Changes:
    """What `sync` has done. `directives` says whether what depends on what may be different now, `untold` whether
    something changed that objects depend on without make(1) knowing: a makefile, a configuration, or a header that
    came or went, so that another one of its name counts."""

    names: tuple[str, ...]
    directives: bool
    untold: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """An object tree that is ours for now. `old` says whether a build has been in it, and `cut` whether that was
    cut off before it was settled: what it made is gone, and what it knew of dependencies may be wrong."""

    path: Path
    old: bool
    cut: bool = False

    def settle(self) -> None:
        """Say that the copy is what `source.json` says, and that all there is by now is whole: a stage has come to
        its end, and the next compiles. Cut off in that, the next build needs only make what is not there."""
        (self.path / _MARK).write_bytes(_SETTLED)

    @property
    def source(self) -> Path:
        return self.path / "source"

    @property
    def objects(self) -> Path:
        return self.path / "obj"


@contextlib.contextmanager
def place(workspace: Workspace, key: str, otherwise: Path, say: Callable[[str], None]) -> Iterator[Place]:
    """The object tree `key`, for the time of the block; if somebody else builds in it, a new one at `otherwise`.

    A `BuildFailed` leaves it as it is: make(1) has come to its own end. Where something cuts the block off, a
    signal too, the next one goes on with what was there before. After a tree that changed meanwhile it begins anew.
    """
    path = workspace.objects / key
    path.mkdir(parents=True, exist_ok=True)
    fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("somebody else is building there: starting from the beginning")
            yield _fresh(otherwise)
            return
        mark = path / _MARK
        found = _found(path, mark, say)
        mark.write_bytes(b"")
        try:
            yield found
        except (BuildKilled, HostFull):
            raise
        except BuildFailed:
            mark.unlink()
            raise
        except InfraError:
            mark.write_bytes(_UNSURE)
            raise
        mark.unlink()
    finally:
        os.close(fd)


def _found(path: Path, mark: Path, say: Callable[[str], None]) -> Place:
    """What is to be used of what is at `path`."""
    if not (path / "obj").is_dir() or _later(path / "source.json") or _later(mark):
        return _fresh(path)
    if not mark.exists():
        return Place(path, old=True)
    state, since = mark.read_bytes(), mark.stat().st_mtime_ns
    if state == _UNSURE:
        return _fresh(path)
    settled = state == _SETTLED
    said = "gone on with, but for what is not whole" if settled else "what it made is made again"
    say(f"the last build here was cut off: {said}")
    for directory, _, names in os.walk(path / "obj"):
        for name in names:
            file = Path(directory, name)
            if file.lstat().st_mtime_ns >= since and not (settled and file.suffix == ".o" and elf.whole(file)):
                file.unlink()
    if settled:
        return Place(path, old=True)
    memory = path / "source.json"
    if memory.is_file():
        present: dict[str, list[str]] = json.loads(memory.read_text())
        for name, what in present.items():
            copy = path / "source" / name
            if what[0] != "directory" and (not os.path.lexists(copy) or copy.lstat().st_mtime_ns >= since):
                what[1] = ""
        atomic_write(memory, json.dumps(present))
    return Place(path, old=True, cut=True)


def _later(file: Path) -> bool:
    """Whether `file` is of a time that has yet to come: what was made with it would look newer than any change."""
    return file.is_file() and file.stat().st_mtime > time.time() + _CLOCK_SECONDS


def _fresh(path: Path) -> Place:
    for name in ("source", "obj"):
        remove(path / name)
        (path / name).mkdir(parents=True)
    (path / "source.json").unlink(missing_ok=True)
    return Place(path, old=False)


def sync(
    here: Place, tree: Tree, names: Sequence[str], changes: Sequence[Edit], added: Mapping[str, Path] | None = None
) -> Changes:
    """Make `here.source` what `names` of `tree` are, with `changes` made; returns which files changed, in order.

    `added` are files of ours that the tree lacks, by their names in it.
    """
    added = added or {}
    wanted = _wanted(tree, names, changes)
    for name, file in added.items():
        wanted[name] = ["file", hashlib.sha256(file.read_bytes()).hexdigest()]
    memory = here.path / "source.json"
    try:
        present: dict[str, list[str]] = json.loads(memory.read_text())
    except FileNotFoundError:
        present = {}
    gone = [name for name in present if wanted.get(name) != present[name]]
    new = [name for name in wanted if present.get(name) != wanted[name]]
    if not gone and not new:
        return Changes((), directives=False)
    # If this is cut off, what was being written counts as not there.
    atomic_write(memory, json.dumps({name: what for name, what in present.items() if name not in gone}))
    before = {name: _directives(here.source / name) for name in gone}
    for name in sorted(gone, reverse=True):
        remove(here.source / name)
    by_file: dict[str, list[Edit]] = {}
    for change in changes:
        by_file.setdefault(change.file, []).append(change)
    later = int(time.time()) + 1
    for name in new:
        _copy(added.get(name, tree.path / name), here.source / name, wanted[name][0], by_file.get(name, ()))
        if here.old and wanted[name][0] != "directory":
            # make(1) sees whole seconds: newer than what a build has left that ended in this one.
            os.utime(here.source / name, (later, later), follow_symlinks=False)
    atomic_write(memory, json.dumps(wanted))
    done = {name for name in (*gone, *new) if wanted.get(name, present.get(name, [""]))[0] != "directory"}
    same = all(before.get(name) is not None and before[name] == _directives(here.source / name) for name in done)
    moved = {name for name in done if (name in wanted) is not (name in present)}
    untold = any(Path(name).suffix not in _SOURCES or (name in moved and name.endswith(".h")) for name in done)
    return Changes(tuple(sorted(done)), directives=not same, untold=untold)


def _directives(file: Path) -> list[str] | None:
    """What a source file tells the preprocessor, all that decides what it includes; None of another file."""
    if file.suffix not in _SOURCES or file.is_symlink() or not file.is_file():
        return None
    return _DIRECTIVE.findall(file.read_text(encoding=_BYTES))


def _wanted(tree: Tree, names: Sequence[str], changes: Sequence[Edit]) -> dict[str, list[str]]:
    """Name ▸ what it is and its content; of an edited file with the edits."""
    found: dict[str, list[str]] = {}
    for part in sorted(set(names)):
        for parent in reversed(Path(part).parents[:-1]):
            found.setdefault(parent.as_posix(), ["directory", ""])
        for name, kind, content in tree.hashes.entries(part):
            found[name] = [kind, content]
    for change in changes:
        if change.file in found:
            words = [change.find, change.put, str(change.regex)]
            kind, content = found[change.file]
            found[change.file] = [kind, hashlib.sha256("\0".join([content, *words]).encode()).hexdigest()]
    return found


def _copy(source: Path, target: Path, kind: str, changes: Sequence[Edit]) -> None:
    if kind == "directory":
        target.mkdir(exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        target.unlink(missing_ok=True)
        target.symlink_to(source.readlink())
        return
    if changes:
        text = source.read_text(encoding=_BYTES)
        for change in changes:
            text = edits.apply(text, change)
        target.write_text(text, encoding=_BYTES)
    else:
        shutil.copyfile(source, target)
    target.chmod(0o755 if kind == "program" else 0o644)


def key(words: Mapping[str, object]) -> str:
    """The name of the object tree for what `words` say: everything that decides how, but not what is built."""
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()[:20]
