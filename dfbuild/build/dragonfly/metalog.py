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
    """By the path of everything that is there, what was said of it. A later word wins over an earlier one; but what
    chflags(1) sets, whose lines say nothing else, a file has besides the flags that it had."""
    merged: dict[str, dict[str, str]] = {}
    for path, words in entries:
        where = resolve(path, tree.links)
        if where in tree.types:
            entry = merged.setdefault(where, {"type": tree.types[where]})
            had = entry.get("flags", "none")
            entry.update(words)
            if words.keys() == {"flags"} and "none" not in (had, words["flags"]):
                entry["flags"] = ",".join(dict.fromkeys([*had.split(","), *words["flags"].split(",")]))
    return merged


def log(merged: Mapping[str, Mapping[str, str]]) -> str:
    """`merged` as the image reads it."""
    lines = []
    for path in sorted(merged):
        name = "." if path == "." else f"./{escape(path)}"
        lines.append(" ".join([name, *(f"{key}={value}" for key, value in merged[path].items())]))
    return "".join(f"{line}\n" for line in lines)
