"""Libraries without the date of the day: ar(5) archives that are the same from the same objects."""

from __future__ import annotations

import re
from pathlib import Path

from dfbuild.errors import BuildFailed

_COMPONENT = "archives"
_ARCHIVE = b"!<arch>\n"
_HEADER = 60
_DATE, _OWNERS, _MODE, _SIZE = slice(16, 28), slice(28, 40), slice(40, 48), slice(48, 58)
_NUMBER = re.compile(rb"[0-9]+ *")


def undated(archive: bytes, epoch: int) -> bytes:
    """An ar(5) archive whose members are all of one date, nobody's in particular, and readable.

    The binutils of the day have no way to make one. Raises `BuildFailed` for what is no archive.
    """
    if not archive.startswith(_ARCHIVE):
        raise BuildFailed("not an archive", component=_COMPONENT)
    made = bytearray(archive)
    at = len(_ARCHIVE)
    while at < len(made):
        header = made[at : at + _HEADER]
        if len(header) < _HEADER or not header.endswith(b"`\n") or not _NUMBER.fullmatch(header[_SIZE]):
            raise BuildFailed("an archive is damaged", component=_COMPONENT)
        size = int(header[_SIZE])
        if bytes(header[_DATE]).strip():
            header[_DATE] = b"%-12d" % epoch
            header[_OWNERS] = b"%-6d%-6d" % (0, 0)
            header[_MODE] = b"%-8o" % 0o100644
            made[at : at + _HEADER] = header
        at += _HEADER + size + size % 2
    return bytes(made)


def undate(root: Path, epoch: int) -> int:
    """Make every archive below `root` that is installed as a library undated. Returns how many there are."""
    paths = [path for path in root.rglob("*.a") if path.is_file() and not path.is_symlink()]
    for path in paths:
        content = path.read_bytes()
        if content.startswith(_ARCHIVE):
            path.write_bytes(undated(content, epoch))
    return len(paths)
