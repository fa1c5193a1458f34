"""Who owns what in an image: an mtree(5) manifest, for trees on a host where nobody is root.

In: a directory as it was installed, and what install(1) would have done to it as root: a *log* of mtree lines that
an unprivileged install wrote (`./bin/su type=file uname=root gname=wheel mode=4555 flags=schg`; what a later line
says of a path wins). Out: one `Entry` for every file, and the manifest that makefs(8) reads.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from dfbuild.errors import BuildFailed

_COMPONENT = "image manifest"
_PLAIN = re.compile(r"[^!-~]|[#*?\[\]\\=]")
_NAME = re.compile(r"\\([0-3][0-7]{2})")


class Kind(StrEnum):
    DIRECTORY = "dir"
    FILE = "file"
    LINK = "link"
    CHARACTER = "char"
    BLOCK = "block"


_MADE = {Kind.CHARACTER: 0o600, Kind.BLOCK: 0o600, Kind.DIRECTORY: 0o755, Kind.LINK: 0o755}
"""Modes of what only a log knows, if it says none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the image. `mode` is its permissions, `device` its number as the guest's kernel packs it."""

    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    flags: str = ""
    """BSD file flags by name, with commas: `schg`."""
    device: int = 0
    link: str = ""


@dataclass(frozen=True, slots=True)
class Names:
    """Numbers of users and groups, by name."""

    users: Mapping[str, int]
    groups: Mapping[str, int]

    @classmethod
    def parse(cls, passwd: str, group: str) -> Names:
        """From the text of passwd(5) or master.passwd(5), and of group(5)."""
        return cls(_third_field(passwd), _third_field(group))

    def user(self, name: str) -> int:
        return _number("user", name, self.users)

    def group(self, name: str) -> int:
        return _number("group", name, self.groups)


def _third_field(text: str) -> dict[str, int]:
    lines = (line.split(":") for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {fields[0]: int(fields[2]) for fields in lines if len(fields) > 2 and re.fullmatch("[0-9]+", fields[2])}


def _number(what: str, name: str, known: Mapping[str, int]) -> int:
    if re.fullmatch("[0-9]+", name):
        return int(name)
    if name not in known:
        raise BuildFailed(f"the image has no {what} {name!r}", component=_COMPONENT)
    return known[name]


# ── the log of an installation ───────────────────────────────────────────────────────────────────────────────────


def parse_log(text: str, names: Names) -> dict[str, dict[str, str | int]]:
    """What each line says of its path: some of `uid`, `gid`, `mode`, `flags`, `device`, `type` and `link`.

    Paths are relative, without `./`; `.` is the root. Raises `BuildFailed` for a line that makes no sense.
    """
    found: dict[str, dict[str, str | int]] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        path, *words = line.split()
        entry = found.setdefault(_relative(unescape(path)), {})
        for word in words:
            key, sign, value = word.partition("=")
            match key:
                case "uname" | "uid" if sign:
                    entry["uid"] = names.user(unescape(value))
                case "gname" | "gid" if sign:
                    entry["gid"] = names.group(unescape(value))
                case "mode" if re.fullmatch("[0-7]{1,5}", value):
                    entry["mode"] = int(value, 8)
                case "flags" if sign:
                    entry["flags"] = "" if value in ("none", "0") else value
                case "device" if re.fullmatch("0x[0-9a-f]{1,8}|[0-9]{1,10}", value):
                    entry["device"] = int(value, 0)
                case "type" if value in list(Kind):
                    entry["type"] = value
                case "link" if sign:
                    entry["link"] = unescape(value)
                case "time" | "size" | "nlink" | "tags" if sign:
                    pass
                case _:
                    raise BuildFailed(f"an installation log says {word!r} of {path}", component=_COMPONENT)
    return found


def _relative(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BuildFailed(f"an installation log names {path!r}", component=_COMPONENT)
    return "/".join(parts) or "."


# ── entries ──────────────────────────────────────────────────────────────────────────────────────────────────────


def scan(tree: Path, log: Mapping[str, Mapping[str, str | int]]) -> dict[str, Entry]:
    """An entry for every file below `tree`, and for every device, directory and link that only the log knows.

    Where the log says nothing, a file belongs to root and wheel (0:0) and has the permissions it has on the host.
    What it says of one name of a file holds for all its names.
    """
    entries: dict[str, Entry] = {}
    files: dict[int, list[str]] = {}
    for path, name in sorted(_walk(tree), key=lambda one: one[1]):
        status = path.lstat()
        kind = _kind(path, status.st_mode)
        if kind is Kind.LINK:
            entries[name] = _told(Entry(kind, 0o755, link=str(path.readlink())), log.get(name, {}))
        else:
            entries[name] = Entry(kind, stat.S_IMODE(status.st_mode))
            files.setdefault(status.st_ino, []).append(name)
    for names in files.values():
        together = {key: value for name in names for key, value in log.get(name, {}).items()}
        for name in names:
            entries[name] = _told(entries[name], together)
    for name, told in log.items():
        made = Kind(str(told.get("type", Kind.FILE)))
        if name not in entries and made is not Kind.FILE:
            entries[name] = _told(Entry(made, _MADE[made], link=str(told.get("link", ""))), told)
    return entries


def below(directory: str, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The entries of what is in `directory`, which becomes the root. Pure."""
    start = f"{directory}/"
    inside = {name.removeprefix(start): entry for name, entry in entries.items() if name.startswith(start)}
    return {".": entries[directory], **inside}


def _walk(tree: Path) -> Iterator[tuple[Path, str]]:
    yield tree, "."
    for directory, names, files in os.walk(tree):
        for name in [*names, *files]:
            path = Path(directory, name)
            yield path, path.relative_to(tree).as_posix()


def _kind(path: Path, mode: int) -> Kind:
    for test, kind in ((stat.S_ISREG, Kind.FILE), (stat.S_ISDIR, Kind.DIRECTORY), (stat.S_ISLNK, Kind.LINK)):
        if test(mode):
            return kind
    raise BuildFailed(f"{path} is neither file, directory nor link", component=_COMPONENT)


def _told(entry: Entry, told: Mapping[str, str | int]) -> Entry:
    known = {key: value for key, value in told.items() if key in ("uid", "gid", "mode", "flags", "device")}
    return replace(entry, **known)  # type: ignore[arg-type]


# ── the manifest ─────────────────────────────────────────────────────────────────────────────────────────────────


def manifest(entries: Mapping[str, Entry], epoch: int) -> str:
    """What makefs reads: every entry with all that it needs, dated `epoch`, parents before what is in them."""
    lines = ["#mtree"]
    for name in sorted(entries, key=lambda one: [] if one == "." else one.split("/")):
        entry = entries[name]
        words = [f"type={entry.kind}", f"uid={entry.uid}", f"gid={entry.gid}", f"mode={entry.mode:04o}"]
        words.append(f"time={epoch}.0")
        if entry.flags:
            words.append(f"flags={entry.flags}")
        if entry.kind in (Kind.CHARACTER, Kind.BLOCK):
            words.append(f"device={entry.device:#x}")
        if entry.kind is Kind.LINK:
            words.append(f"link={escape(entry.link)}")
        path = "." if name == "." else f"./{escape(name)}"
        lines.append(" ".join([path, *words]))
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """A path as mtree(5) writes it: blanks and marks as `\\040` (vis(3), VIS_OCTAL)."""
    return _PLAIN.sub(lambda match: "".join(f"\\{byte:03o}" for byte in os.fsencode(match[0])), text)


def unescape(text: str) -> str:
    """What `escape` wrote."""
    raw = _NAME.sub(lambda match: chr(int(match[1], 8)), text)
    return os.fsdecode(bytes(ord(c) for c in raw)) if _NAME.search(text) else text
