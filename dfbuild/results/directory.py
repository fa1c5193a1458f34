"""Where a cell's files lie: a directory name that is readable, safe on every file system and never shared."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from dfbuild.workspace import Workspace

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


def slug(text: str) -> str:
    """`text` as a file name: readable, at most 80 bytes, different for different texts.

    >>> slug("reference/gcc-12+ssp/smp @ ht2")
    'reference_gcc-12+ssp_smp_ht2.542335d942'
    """
    # The digest is of the text as given: what the readable part loses (case, slashes, length) still tells apart.
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    readable = _UNSAFE.sub("_", text).strip("._-+")[:69].rstrip("._-+")
    return f"{readable or 'cell'}.{digest}"


def cell_directory(workspace: Workspace, run: str, cell_id: str, attempt: int = 1) -> Path:
    """The directory of one attempt at a cell: `console.log`, its `.times`, logs. Later attempts have their own."""
    name = slug(cell_id)
    return workspace.run(run) / (name if attempt <= 1 else f"{name}.attempt{attempt}")
