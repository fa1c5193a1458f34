"""What nobody counted on: told as a defect of dfbuild's, in the place where it happened, and the run goes on."""

from __future__ import annotations

import traceback
from pathlib import Path


def defect(error: Exception, log: Path) -> str:
    """A line that tells of `error`; its traceback is appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write("".join(traceback.format_exception(error)))
    return f"a defect of dfbuild: {type(error).__name__}: {error}; its traceback is in {log}".replace("\n", " ")
