"""The files of a UFS1 image as they lie on the disk: read, compared with a manifest, and given their BSD flags.

Layout, little-endian as on i386: sys/vfs/ufs/{dinode,dir}.h of DragonFly 1.2.
"""

from __future__ import annotations

import functools
import mmap
import operator
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dfbuild.errors import BuildFailed
from dfbuild.image import ufs
from dfbuild.image.manifest import Entry, Kind

FLAGS = {
    "nodump": 0x1, "uchg": 0x2, "uappnd": 0x4, "opaque": 0x8, "uunlnk": 0x10,
    "uxlink": 0x100, "xlink": 0x100, "arch": 0x10000, "schg": 0x20000, "sappnd": 0x40000, "sunlnk": 0x100000,
    "sxlink": 0x1000000,
}  # fmt: skip
"""File flags by the names of chflags(1): sys/sys/stat.h."""

_ROOT = 2
_SIZE = 128
_HEAD = struct.Struct("<HH4xQi4xi4xi4x15I")
_FLAGS_AT = 100
_TAIL = struct.Struct("<I8xII")
_DIRENT = struct.Struct("<IHBB")
_DIRECT = 12
_KINDS = {
    stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.LINK,
    stat.S_IFCHR: Kind.CHARACTER, stat.S_IFBLK: Kind.BLOCK,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Inode:
    """A file. `times` are of access, change of content, and change of the inode, in seconds."""

    number: int
    mode: int
    links: int
    size: int
    times: tuple[int, int, int]
    addresses: tuple[int, ...]
    flags: int
    uid: int
    gid: int

    @property
    def kind(self) -> Kind | None:
        return _KINDS.get(stat.S_IFMT(self.mode))


class Inodes:
    """The file system that begins at byte `offset` of `file`. Raises ValueError if there is none."""

    def __init__(self, file: Path, offset: int = 0) -> None:
        with file.open("r+b") as image:
            self._map = mmap.mmap(image.fileno(), 0)
        self._offset = offset
        self.superblock = ufs.parse(self._bytes(ufs.SUPERBLOCK, 2048))

    def __enter__(self) -> Inodes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._map.close()

    def __getitem__(self, number: int) -> Inode:
        data = self._bytes(self._place(number), _SIZE)
        mode, links, size, access, content, change, *addresses = _HEAD.unpack_from(data)
        flags, uid, gid = _TAIL.unpack_from(data, _FLAGS_AT)
        return Inode(number, mode, links, size, (access, content, change), tuple(addresses), flags, uid, gid)

    def walk(self) -> dict[str, Inode]:
        """Every file by its path, `.` for the root; a file with several names is there several times."""
        found = {".": self[_ROOT]}
        directories = [("", found["."])]
        while directories:
            prefix, directory = directories.pop()
            for name, number in self.names(directory):
                inode = found[prefix + name] = self[number]
                if inode.kind is Kind.DIRECTORY:
                    directories.append((f"{prefix}{name}/", inode))
        return found

    def names(self, directory: Inode) -> Iterator[tuple[str, int]]:
        """What is in a directory, without itself and its parent."""
        data, at = self.content(directory), 0
        while at < len(data):
            number, length, _, size = _DIRENT.unpack_from(data, at)
            name = data[at + _DIRENT.size : at + _DIRENT.size + size].decode(errors="surrogateescape")
            if number and name not in (".", ".."):
                yield name, number
            if length < _DIRENT.size:
                raise ValueError(f"inode {directory.number}: a directory entry of {length} bytes")
            at += length

    def content(self, inode: Inode) -> bytes:
        """What is in a file; a link's target."""
        if inode.kind is Kind.LINK and inode.size < self.superblock.symlink_length:
            return struct.pack("<15I", *inode.addresses)[: inode.size]
        block, found = self.superblock.block, bytearray()
        for address in self._addresses(inode):
            if len(found) >= inode.size:
                break
            found += self._bytes(address * self.superblock.fragment, block) if address else bytes(block)
        return bytes(found[: inode.size])

    def set_flags(self, number: int, flags: int) -> None:
        """Give a file its BSD flags."""
        struct.pack_into("<I", self._map, self._offset + self._place(number) + _FLAGS_AT, flags)

    def _place(self, number: int) -> int:
        group, index = divmod(number, self.superblock.group_inodes)
        if not 0 <= group < self.superblock.groups:
            raise ValueError(f"there is no inode {number}")
        table = self.superblock.group(group) + self.superblock.inodes_at
        return table * self.superblock.fragment + index * _SIZE

    def _bytes(self, at: int, count: int) -> bytes:
        return self._map[self._offset + at : self._offset + at + count]

    def _addresses(self, inode: Inode) -> Iterator[int]:
        yield from inode.addresses[:_DIRECT]
        for depth, address in enumerate(inode.addresses[_DIRECT:], 1):
            yield from self._indirect(address, depth)

    def _indirect(self, address: int, depth: int) -> Iterator[int]:
        if address == 0:
            yield from (0 for _ in range((self.superblock.block // 4) ** depth))
            return
        data = self._bytes(address * self.superblock.fragment, self.superblock.block)
        for (entry,) in struct.iter_unpack("<I", data):
            if depth == 1:
                yield entry
            else:
                yield from self._indirect(entry, depth - 1)


def finish(image: Path, entries: Mapping[str, Entry]) -> None:
    """Set the flags that `entries` ask for, which makefs leaves out, and hold the image against them.

    Raises `BuildFailed` for a file that is missing, that nobody asked for, or that differs from what was asked for.
    """
    with Inodes(image) as inodes:
        found = inodes.walk()
        problems = [f"{name} is missing" for name in entries.keys() - found.keys()]
        problems += [f"{name} was not asked for" for name in found.keys() - entries.keys()]
        for name in entries.keys() & found.keys():
            problems += [f"{name}: {difference}" for difference in _differences(entries[name], found[name], inodes)]
            if entries[name].flags:
                inodes.set_flags(found[name].number, flags_of(entries[name].flags))
    if problems:
        raise BuildFailed(
            f"the file system is not what its manifest says: {min(problems)}",
            component="file system",
            tail="\n".join(sorted(problems)[:20]),
        )


def flags_of(names: str) -> int:
    """The number of BSD flags with commas between them; raises `BuildFailed` for an unknown one."""
    unknown = [name for name in names.split(",") if name not in FLAGS]
    if unknown:
        raise BuildFailed(f"unknown file flag {unknown[0]!r}", component="file system")
    return functools.reduce(operator.or_, (FLAGS[name] for name in names.split(",")))


def _differences(entry: Entry, inode: Inode, inodes: Inodes) -> Iterator[str]:
    if inode.kind is not entry.kind:
        yield f"is {inode.kind}, not {entry.kind}"
    elif (inode.uid, inode.gid) != (entry.uid, entry.gid):
        yield f"belongs to {inode.uid}:{inode.gid}, not {entry.uid}:{entry.gid}"
    elif entry.kind is not Kind.LINK and stat.S_IMODE(inode.mode) != entry.mode:
        yield f"has mode {stat.S_IMODE(inode.mode):o}, not {entry.mode:o}"
    elif entry.kind in (Kind.CHARACTER, Kind.BLOCK) and inode.addresses[0] != entry.device:
        yield f"is device {inode.addresses[0]:#x}, not {entry.device:#x}"
    elif entry.kind is Kind.LINK and inodes.content(inode).decode(errors="surrogateescape") != entry.link:
        yield f"leads to {inodes.content(inode)!r}, not {entry.link!r}"
