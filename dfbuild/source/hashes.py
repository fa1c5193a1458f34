"""Hashes of files that are only read again when they have changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import re
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dfbuild.errors import UsageError
from dfbuild.workspace import atomic_write

_NO_SOURCE = re.compile(r"\.git|\.hg|\.svn|CVS|\..*\.sw[a-p]|\.#.*|#.*#|.+~")


def no_source(name: str) -> bool:
    """Whether a file of that name is none of the tree's: version control keeps it there, or an editor."""
    return _NO_SOURCE.fullmatch(name) is not None


class Hashes:
    """Content hashes of the files below `root`, remembered in the file `memory` by place, size and time stamps.

    A file whose inode, size, modification and change times are as they were has the content that it had. Safe
    from several threads; what another process remembers meanwhile is at worst found out again.
    """

    def __init__(self, root: Path, memory: Path, *, still: bool = False, linked: bool = False) -> None:
        """With `still` every part is looked at once: the files are taken to stay as they are. With `linked` nobody
        writes to them, but makes hard links to them, which is a change by its time only."""
        self._root = root
        self._memory = memory
        self._linked = linked
        self._seen: dict[str, list[tuple[str, str, str]]] | None = {} if still else None
        self._lock = threading.Lock()
        self._learned = False
        self._known: dict[str, list[Any]] = {}
        with contextlib.suppress(OSError, ValueError):
            remembered = json.loads(memory.read_text())
            self._known = remembered if isinstance(remembered, dict) else {}

    def of(self, part: str) -> str:
        """SHA-256 over the file or directory `part`: names, contents, link targets and executable bits.

        Owners, times and version control's own directories do not count. Raises `FileNotFoundError`.
        """
        total = hashlib.sha256()
        for name, kind, content in self.entries(part):
            total.update(f"{name}\0{kind}\0{content}\0".encode(errors="surrogateescape"))
        return total.hexdigest()

    def entries(self, part: str) -> list[tuple[str, str, str]]:
        """Everything in `part`, sorted: its name, what it is (`directory`, `link`, `file`, `program`), and content.

        The content is SHA-256 of a file, the target of a link, nothing of a directory. Raises `FileNotFoundError`,
        and `UsageError` for a link that leads to what is not hashed with it.
        """
        with self._lock:
            if self._seen is not None and part in self._seen:
                return self._seen[part]
            found = self._entries(part)
            if self._learned:
                atomic_write(self._memory, json.dumps(self._known))
                self._learned = False
            if self._seen is not None:
                self._seen[part] = found
        return found

    def stamps(self, parts: Iterable[str]) -> str:
        """SHA-256 over the files in `parts`, none of which is read: names, inodes, sizes and times of modification.

        Who only makes a hard link to a file, or changes its mode, does not change that.
        """
        total = hashlib.sha256()
        for part in sorted(set(parts)):
            for _, name, status in sorted(_walk(f"{self._root}/{part}", part), key=lambda found: found[1]):
                if not stat.S_ISDIR(status.st_mode):
                    total.update(f"{name}\0{_stamp(status)[:-1]}\0".encode(errors="surrogateescape"))
        return total.hexdigest()

    def afresh(self) -> Hashes:
        """The same, for whom nothing has been looked at yet."""
        return Hashes(self._root, self._memory, linked=self._linked)

    def still(self) -> Hashes:
        """The same, for whom every part may be looked at once."""
        return Hashes(self._root, self._memory, still=True, linked=self._linked)

    def taken_over(self, other: Hashes) -> None:
        """Remember what `other` does, to whose files those here are hard links of the same names."""
        self._known = dict(other._known)
        atomic_write(self._memory, json.dumps(self._known))

    def _entries(self, part: str) -> list[tuple[str, str, str]]:
        found: list[tuple[str, str, str]] = []
        for path, name, status in _walk(f"{self._root}/{part}", part):
            if stat.S_ISDIR(status.st_mode):
                found.append((name, "directory", ""))
            elif stat.S_ISLNK(status.st_mode):
                found.append((name, "link", self._link(name, str(Path(path).readlink()), part)))
            elif stat.S_ISREG(status.st_mode):
                kind = "program" if status.st_mode & stat.S_IXUSR else "file"
                found.append((name, kind, self._content(path, name, status)))
        return sorted(found)

    def _link(self, name: str, target: str, part: str) -> str:
        """The target of the link `name`, which has to lie in the tree, and not in place of the whole `part`."""
        leads_to = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if name == part or leads_to.startswith(("/", "..")):
            raise UsageError(
                f"{self._root}/{name} is a symbolic link to {target}: what it leads to is no part of the tree",
                hint="put the files in its place",
            )
        return target

    def _content(self, path: str, name: str, status: os.stat_result) -> str:
        seen = _stamp(status)[: -1 if self._linked else None]
        known = self._known.get(name)
        if isinstance(known, list) and known[:-1] == seen:
            return str(known[-1])
        with Path(path).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        self._known[name] = [*seen, content]
        self._learned = True
        return content


def _walk(path: str, name: str) -> Iterator[tuple[str, str, os.stat_result]]:
    """Everything in the tree's part `name`, which lies at `path`: its place, its name, what it is. In no order."""
    # Paths as plain text: a tree has tens of thousands.
    stack = [(path, name)]
    while stack:
        path, name = stack.pop()
        status = os.lstat(path)
        yield path, name, status
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(path) as entries:
                stack += [(e.path, f"{name}/{e.name}") for e in entries if not no_source(e.name)]


def _stamp(status: os.stat_result) -> list[int]:
    """What is another one once the file has other content; the time of the last change of any kind comes last."""
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
