"""Boot a guest and judge it: up, crashed, hung, or ended."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dfbuild.console.monitor import Monitor
from dfbuild.console.reader import ConsoleReader
from dfbuild.console.stages import BootTracker
from dfbuild.console.transcript import excerpt
from dfbuild.deadline import Deadline
from dfbuild.errors import BootFailed, DeadlineExceeded, DfbuildError, GuestCrashed
from dfbuild.guest.protocol import Guest, GuestSpec
from dfbuild.model import Cell, Shape, StageReached
from dfbuild.releases import Release
from dfbuild.session.diagnosis import diagnose, explained, failure, hung
from dfbuild.session.held import CONSOLE_LOG, HeldSession, end
from dfbuild.session.protocol import Manifest

_REAP_SECONDS = 2.0


def boot_seconds(shape: Shape, release: Release) -> float:
    """What a boot may take by the limits of its stages, emulated: an outer deadline has to be longer."""
    console = release.console
    seconds = sum(stage.deadline for stage in console.stages) + console.silence
    return seconds * patience(shape, release) * console.slower("tcg")


def boot(
    guest: Guest,
    release: Release,
    cell: Cell,
    directory: Path,
    deadline: Deadline,
    on_stage: Callable[[StageReached], None] | None = None,
) -> HeldSession:
    """Power on, follow the boot through the release's stages, and return the session of a guest that is up.

    A guest that goes on from where it was saved is up at once.

    The transcript and its index go to `directory`. `on_stage` is called in this thread for each stage as it is
    reached. On any error the guest is ended first:

    - `GuestCrashed`: the console showed a crash, made known with its excerpt within a second of the first sign.
    - `GuestHung`: a stage's deadline or the silence limit passed; what the CPUs did is in `diagnosis.txt`.
    - `BootFailed`: the guest ended by itself before the last stage.
    - `InfraError`: the hypervisor failed, or the transcript can't be written.
    - `DeadlineExceeded`, `Cancelled`: `deadline`'s own.
    """
    directory.mkdir(parents=True, exist_ok=True)
    monitor = Monitor(release.console.crashes)
    stages = () if guest.saved else release.console.stages
    stream = guest.start(deadline)
    # What a Xen host takes to come up is not the guest's time.
    power_on = time.monotonic()
    console = None
    try:
        factor = patience(cell.shape, release) * release.console.slower(guest.accel)
        tracker = BootTracker(stages, silence=release.console.silence, power_on=power_on, factor=factor)
        console = ConsoleReader(stream, directory / CONSOLE_LOG, monitor, power_on=power_on, tracker=tracker)
        console.start()
        _follow(guest, console, tracker, release, directory, deadline, on_stage or (lambda _: None))
        return HeldSession(guest, console, _manifest(guest, cell, release, console, deadline), tracker.reached)
    except BaseException:
        end(guest, console)
        raise


def _follow(
    guest: Guest,
    console: ConsoleReader,
    tracker: BootTracker,
    release: Release,
    directory: Path,
    deadline: Deadline,
    on_stage: Callable[[StageReached], None],
) -> None:
    """Return once the last stage is reached; raise what went wrong. What stages want typed is, as they come."""
    told, typed = 0, [stage.type for stage in release.console.stages]
    while told < len(tracker.stages):
        with console.changed:
            _wait(console, tracker, told, deadline)
            reached = tracker.reached
            overdue = None if console.suspicious else tracker.expired(time.monotonic())
        for stage, text in zip(reached[told:], typed[told:], strict=False):
            on_stage(stage)
            if text and not console.closed:
                console.send(text.encode(), deadline)
        told = len(reached)
        with console.changed:  # A crash is made known together with the end that it led to.
            crash, broken, closed = console.crash, console.failure, console.closed
        if crash is not None:
            raise GuestCrashed(explained(crash, guest, console, release, deadline))
        if broken is not None:
            raise broken
        if told == len(tracker.stages):
            return
        if closed:
            raise _ended(guest, console, tracker)
        if overdue is not None:
            raise hung(f"{overdue}{_reached(tracker)}", partial(diagnose, guest), directory, deadline)


def _wait(console: ConsoleReader, tracker: BootTracker, told: int, deadline: Deadline) -> None:
    """Wait, with `console.changed` held, until there is something to judge."""

    def something() -> bool:
        return len(tracker.reached) > told or console.closed or console.crash is not None

    # A crash that was seen is made known soon, and is worth more than a deadline that passes meanwhile.
    patience = 1.0 if console.suspicious else max(0.0, tracker.due() - time.monotonic())
    deadline.check(f"boot stage {tracker.awaited!r}")
    try:
        deadline.sooner(min(patience, 1e9)).wait(console.changed, something, f"boot stage {tracker.awaited!r}")
    except DeadlineExceeded:
        deadline.check(f"boot stage {tracker.awaited!r}")


def _ended(guest: Guest, console: ConsoleReader, tracker: BootTracker) -> DfbuildError:
    """The console's end before the last stage: the guest's own doing, or the hypervisor's failure."""
    # A hypervisor that died is gone in a moment: ended by us, it would look like a guest that did.
    with contextlib.suppress(DfbuildError):
        guest.wait(Deadline.after(_REAP_SECONDS, what="the guest's end"))
    how = end(guest, console)
    failed = failure(how, f"before boot stage {tracker.awaited!r}") if how is not None else None
    if failed is not None:
        return failed
    cause = f" ({how.cause})" if how is not None and how.cause else ""
    last = excerpt(console.path, console.size, before=3).strip()
    return BootFailed(
        f"the guest ended{cause} before boot stage {tracker.awaited!r}{_reached(tracker)}",
        hint=f"its last lines were: {last}" if last else "it never printed anything",
    )


def _reached(tracker: BootTracker) -> str:
    stages = ", ".join(f"{stage.stage} at {stage.seconds:.1f} s" for stage in tracker.reached)
    return f" (reached: {stages})" if stages else " (reached: nothing)"


def _has_ssh(spec: GuestSpec, release: Release) -> bool:
    return spec.ssh_port is not None and release.shell.ssh is not None and bool(spec.media.login.host_key)


def patience(shape: Shape, release: Release) -> float:
    """How many times longer a guest of `shape` takes on this host than its release's times are written for, its
    accelerator apart."""
    return _overcommit(shape) * (release.console.xen_factor if shape.on_xen else 1.0)


def _overcommit(shape: Shape) -> float:
    # Squared: each vCPU runs so much less, and the others spin meanwhile for its answer to their IPIs.
    return max(1.0, shape.cpus / len(os.sched_getaffinity(0))) ** 2


def _manifest(guest: Guest, cell: Cell, release: Release, console: ConsoleReader, deadline: Deadline) -> Manifest:
    spec = guest.spec
    return Manifest(
        name=spec.name,
        cell=cell,
        release=release,
        owner=os.getpid(),
        control=spec.directory / "control",
        transcript=console.path.absolute(),
        login=spec.media.login,
        ssh=guest.ssh_address(deadline) if _has_ssh(spec, release) else None,
        wire=guest.wire_ends() if spec.wire else None,
        accel=guest.accel,
        overcommit=_overcommit(spec.shape),
        patience=patience(spec.shape, release),
        command=tuple(guest.command()),
    )
