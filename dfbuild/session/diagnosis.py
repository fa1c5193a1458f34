"""What the virtual CPUs of a hung guest are doing: asked while it still can be, and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, GuestHung, InfraError
from dfbuild.guest.protocol import Exit

DIAGNOSIS = "diagnosis.txt"
_SECONDS = 15.0
_HINT_LIMIT = 600


def failure(how: Exit, when: str) -> InfraError | None:
    """The error for a guest whose end `how` was the hypervisor's own failure; None if it was not."""
    if how.rung != "guest" or how.status == 0:
        return None
    return InfraError(f"the hypervisor ended with status {how.status} {when}", hint=how.stderr.strip()[-500:])


def hung(why: str, diagnose: Callable[[Deadline], str], directory: Path, deadline: Deadline) -> GuestHung:
    """The error for a guest that hangs; what `diagnose` says goes into its hint and into `diagnosis.txt`."""
    try:
        diagnosis = diagnose(deadline.sooner(_SECONDS, what="the diagnosis of a hung guest"))
    except (InfraError, DeadlineExceeded) as error:
        diagnosis = f"no diagnosis: {error.message}"
    file = directory / DIAGNOSIS
    file.write_text(f"{why}\n\n{diagnosis}\n", encoding="utf-8")
    return GuestHung(why, hint=f"what its CPUs were doing is in {file}:\n{diagnosis.strip()[:_HINT_LIMIT]}")
