"""What the world kit's install(1), chown(8) and mtree(8) would have set as root, as one log for the image.

In: lines `mode=4555 uname=root gname=wheel flags=schg /usr/obj/root/bin/su`, in the order in which things happened,
and what was installed. Out: lines that `image.manifest.parse_log` reads, one for every file that is there, sorted.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dfbuild.errors import BuildFailed
from dfbuild.image.manifest import escape

_COMPONENT = "installation log"
_LINKS = 40
"""How many symbolic links a path may go through, as for the host's kernel."""


@dataclass(frozen=True, slots=True)
class Tree:
    """What is in a directory: `types` as mtree(5) has them, and `links` with their targets, by relative path."""

    types: Mapping[str, str]
    links: Mapping[str, str]


def survey(root: Path) -> Tree:
    """What is below `root`, itself included as `.`."""
    types, links = {".": "dir"}, {}
    for directory, names, files in os.walk(root):
        for name in [*names, *files]:
            path = Path(directory, name)
            relative = path.relative_to(root).as_posix()
            if path.is_symlink():
                types[relative] = "link"
                links[relative] = str(path.readlink())
            else:
                types[relative] = "dir" if path.is_dir() else "file"
    return Tree(types, links)


def settled(tree: Tree, objects: str) -> None:
    """Raise `BuildFailed` for links to below `objects`, which the guest does not have."""
    astray = [f"{path} to {to}" for path, to in sorted(tree.links.items()) if to.startswith(f"{objects}/")]
    if astray:
        raise BuildFailed(
            f"{len(astray)} links lead into the object tree, the first is {astray[0]}", component=_COMPONENT
        )


def parse(text: str, destination: str) -> list[tuple[str, dict[str, str]]]:
    """Path below `destination` and words of every line. Raises `BuildFailed` for a line that makes no sense."""
    found = []
    for line in text.splitlines():
        words, slash, rest = line.partition("/")
        path = posixpath.normpath(slash + rest)
        pairs = [word.partition("=") for word in words.split()]
        if not slash or not pairs or not all(sign and value for _, sign, value in pairs):
            raise BuildFailed(f"an installation wrote {line!r}", component=_COMPONENT)
        if path != destination and not path.startswith(f"{destination}/"):
            raise BuildFailed(f"an installation reached {path}, outside of {destination}", component=_COMPONENT)
        found.append((path[len(destination) + 1 :] or ".", {key: value for key, _, value in pairs}))
    return found


def resolve(path: str, links: Mapping[str, str]) -> str:
    """Where `path` lies once the symbolic links on the way to it are followed; the last part stays as it is."""
    done: list[str] = []
    rest = [part for part in path.split("/") if part not in ("", ".")]
    followed = 0
    while rest:
        part = rest.pop(0)
        if part == "..":
            done = done[:-1]
            continue
        here = "/".join([*done, part])
        if here not in links or not rest:
            done.append(part)
            continue
        followed += 1
        if followed > _LINKS:
            raise BuildFailed(f"{path} goes in a circle", component=_COMPONENT)
        target = links[here]
        if target.startswith("/"):
            done = []
        rest = [*(step for step in target.split("/") if step not in ("", ".")), *rest]
    return "/".join(done) or "."


def merge(entries: Iterable[tuple[str, Mapping[str, str]]], tree: Tree) -> dict[str, dict[str, str]]:
    """By the path of everything that is there, what was said of it. A later word wins over an earlier one."""
    merged: dict[str, dict[str, str]] = {}
    for path, words in entries:
        where = resolve(path, tree.links)
        if where in tree.types:
            merged.setdefault(where, {"type": tree.types[where]}).update(words)
    return merged


def log(merged: Mapping[str, Mapping[str, str]]) -> str:
    """`merged` as the image reads it."""
    lines = []
    for path in sorted(merged):
        name = "." if path == "." else f"./{escape(path)}"
        lines.append(" ".join([name, *(f"{key}={value}" for key, value in merged[path].items())]))
    return "".join(f"{line}\n" for line in lines)


# ── archives ─────────────────────────────────────────────────────────────────────────────────────────────────────

_ARCHIVE = b"!<arch>\n"
_HEADER = 60
_DATE, _OWNERS, _MODE, _SIZE = slice(16, 28), slice(28, 40), slice(40, 48), slice(48, 58)


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
        if len(header) < _HEADER or not header.endswith(b"`\n"):
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
