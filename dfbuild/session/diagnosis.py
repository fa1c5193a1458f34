"""What the virtual CPUs of a guest that hung or crashed are doing: asked while it still can be, and kept."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dfbuild.console.reader import ConsoleReader
from dfbuild.console.transcript import excerpt
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, GuestHung, HostFull, InfraError
from dfbuild.guest.protocol import Exit, Guest
from dfbuild.model import CrashReport
from dfbuild.releases import Release
from dfbuild.session.debugger import trace
from dfbuild.session.symbols import annotate

DIAGNOSIS = "diagnosis.txt"
_SECONDS = 15.0
_HINT_LIMIT = 1200
# Of a diagnosis: a CPU, the function that it is in, and who called that, which tells more of one that waits.
_WHERE = re.compile(r"^(cpu \d+) .*:\n  at [0-9a-f]+ (\S+\+0x.*)(?:\n  from [0-9a-f]+ (\S+\+0x.*))?$", re.MULTILINE)


def failure(how: Exit, when: str) -> InfraError | None:
    """The error for a guest whose end `how` was the hypervisor's own failure; None if it was not."""
    if how.rung != "guest" or how.status == 0:
        return None
    return InfraError(f"the hypervisor ended with status {how.status} {when}", hint=how.stderr.strip()[-500:])


def diagnose(guest: Guest, deadline: Deadline) -> str:
    """What `guest` says of its CPUs, with its kernel's functions. Raises `InfraError` and as `deadline` does."""
    return _named(guest.diagnose(deadline), guest)


def explained(
    crash: CrashReport, guest: Guest, console: ConsoleReader, release: Release, deadline: Deadline
) -> CrashReport:
    """`crash`, with where it happened, its excerpt with the kernel's functions.

    A kernel in its debugger has that print its trace. Of another one what its CPUs do goes into `diagnosis.txt`.
    """
    debugger = release.console.debugger
    traced = debugger is not None and trace(console, debugger, deadline)
    text = excerpt(console.path, crash.offset) if traced else crash.excerpt
    crash = located(replace(crash, excerpt=_named(text, guest)), release)
    if not traced:
        with contextlib.suppress(InfraError, DeadlineExceeded):
            diagnosis = diagnose(guest, deadline.sooner(_SECONDS, what="the diagnosis of a crash"))
            _keep(crash.title, diagnosis, console.path.parent)
    return crash


def located(crash: CrashReport, release: Release) -> CrashReport:
    """`crash` with where it happened in its title, as far as `release` knows how its excerpt says so. Pure."""
    pattern = next((known.where for known in release.console.crashes if known.name == crash.signature), "")
    found = re.search(pattern, crash.excerpt, re.MULTILINE) if pattern else None
    where = " ".join(filter(None, found.groups())) if found is not None else ""
    return replace(crash, title=f"{crash.title} at {where}") if where else crash


def _named(text: str, guest: Guest) -> str:
    """`text` with what its addresses stand for, where that is known."""
    symbols = guest.spec.media.symbols
    if symbols is None:
        return text
    try:
        return annotate(text, symbols)
    except InfraError as error:
        return f"{text}\n{error.message}"


def hung(why: str, diagnose: Callable[[Deadline], str], directory: Path, deadline: Deadline) -> GuestHung:
    """The error for a guest that hangs, with the functions that its CPUs are in. All of what `diagnose` says goes
    into its hint and into `diagnosis.txt`. Raises `HostFull` where the guest stands still because of that."""
    try:
        diagnosis = diagnose(deadline.sooner(_SECONDS, what="the diagnosis of a hung guest"))
    except HostFull:
        raise
    except (InfraError, DeadlineExceeded) as error:
        diagnosis = f"no diagnosis: {error.message}"
    file = _keep(why, diagnosis, directory)
    what, *rest = why.split("; ", 1)
    places = (f"{cpu} at {at}{from_ and f', from {from_}'}" for cpu, at, from_ in _WHERE.findall(diagnosis))
    why = "; ".join([what, *places, *rest])
    return GuestHung(why, hint=f"what its CPUs were doing is in {file}:\n{diagnosis.strip()[:_HINT_LIMIT]}")


def _keep(why: str, diagnosis: str, directory: Path) -> Path:
    file = directory / DIAGNOSIS
    file.write_text(f"{why}\n\n{diagnosis}\n", encoding="utf-8")
    return file
