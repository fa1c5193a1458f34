"""Make the release's edits: on copies, which then lie over the tree's own files in the sandbox."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from dfbuild.build.dragonfly.data import Edit
from dfbuild.build.dragonfly.layout import SRC
from dfbuild.errors import BuildFailed
from dfbuild.sandbox import Mount

# The trees are older than UTF-8; this way any byte comes out as it went in.
_BYTES = "latin-1"


def within(edits: Iterable[Edit], parts: Sequence[str]) -> tuple[Edit, ...]:
    """Those of `edits` whose file is one of `parts` of the tree or below one."""
    return tuple(edit for edit in edits if any(PurePosixPath(edit.file).is_relative_to(part) for part in parts))


def words(edits: Iterable[Edit]) -> list[list[str | bool]]:
    """What a content key has to hold of `edits`: all but their reasons."""
    return [[edit.file, edit.find, edit.put, edit.regex] for edit in edits]


def apply(text: str, edit: Edit) -> str:
    """`text` with `edit` made, everywhere. Raises `BuildFailed` if what it looks for is not there."""
    if edit.regex:
        changed, count = re.subn(edit.find, edit.put, text, flags=re.MULTILINE)
    else:
        changed, count = text.replace(edit.find, edit.put), text.count(edit.find)
    if not count:
        raise BuildFailed(
            f"{edit.file} no longer has {edit.find!r}, which cannot be built here: {edit.reason}",
            component=edit.file,
            hint="if the tree has its own cure, take the edit out of the release's TOML",
        )
    return changed


def overlays(edits: Iterable[Edit], tree: Path, copies: Path) -> tuple[Mount, ...]:
    """Edit copies of the files of `tree` below `copies`; the mounts lay them over the files in the sandbox."""
    texts: dict[str, str] = {}
    for edit in edits:
        if edit.file not in texts:
            texts[edit.file] = (tree / edit.file).read_bytes().decode(_BYTES)
        texts[edit.file] = apply(texts[edit.file], edit)
    mounts = []
    for name, text in texts.items():
        copy = copies / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(text.encode(_BYTES))
        copy.chmod((tree / name).stat().st_mode & 0o777)
        mounts.append(Mount(SRC / name, copy))
    return tuple(mounts)
