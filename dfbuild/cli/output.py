"""Files that a command line asks for."""

from __future__ import annotations

from pathlib import Path

from dfbuild.errors import UsageError


def require_place(file: Path) -> None:
    """Raise `UsageError` unless a file can be at `file`: in a directory that is there, and none itself."""
    if not file.parent.is_dir():
        raise UsageError(f"there is no directory {file.parent}", hint="make it, or name another file")
    if file.is_dir():
        raise UsageError(f"{file} is a directory", hint="name a file in it")
