"""The `newc` cpio archive that Linux unpacks as its initramfs.

Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_MAGIC = b"070701"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in an archive: a directory, a symbolic link (`data` is its target) or a regular file, by `mode`."""

    name: str
    mode: int
    data: bytes = b""

    @classmethod
    def directory(cls, name: str) -> Entry:
        return cls(name, stat.S_IFDIR | 0o755)

    @classmethod
    def file(cls, name: str, data: bytes, permissions: int = 0o644) -> Entry:
        return cls(name, stat.S_IFREG | permissions, data)

    @classmethod
    def symlink(cls, name: str, target: str) -> Entry:
        return cls(name, stat.S_IFLNK | 0o777, target.encode())


def archive(entries: Iterable[Entry], *, epoch: int = 0) -> bytes:
    """The archive of `entries` in their order, all owned by root and dated `epoch`."""
    parts = [_record(number, entry, epoch) for number, entry in enumerate(entries, 1)]
    parts.append(_record(0, Entry("TRAILER!!!", 0), 0))
    return b"".join(parts)


def _record(inode: int, entry: Entry, epoch: int) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, epoch, len(entry.data), 0, 0, 0, 0, len(name), 0)
    header = _MAGIC + b"".join(b"%08X" % field for field in fields) + name
    return _padded(header) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
