"""One cell's guest run: boot, run the suites, stop, and say how it ended."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dfbuild.build.recipe import Artefact, Recipe
from dfbuild.deadline import Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, GuestCrashed, GuestEnded, GuestError, InfraError
from dfbuild.guest import create
from dfbuild.guest.protocol import Guest, GuestSpec, State
from dfbuild.matrix import xen
from dfbuild.matrix.defect import defect
from dfbuild.matrix.events import CellBegan, CellEnded, CellStage, CheckBegan, CheckEnded
from dfbuild.matrix.job import Job
from dfbuild.model import Cell, CheckResult, CrashReport, Outcome, StageReached, Verdict
from dfbuild.releases.schema import SshShell
from dfbuild.results.directory import cell_directory
from dfbuild.results.records import Attempt
from dfbuild.results.verdict import cell_title, cell_verdict, hang_title
from dfbuild.runtime import runtime_directory
from dfbuild.session import HeldSession, boot, boot_seconds, failure, hung, patience
from dfbuild.shell import unspoken
from dfbuild.suites.run import CheckEvent, EndEvent, Event, ResultEvent, run_suites

_START_SECONDS = 900.0
"""Until a guest is powered on, which on a Xen host made for it comes after that one's own boot."""
_SUITES_SECONDS = 1800.0
_SETTLE_SECONDS = 10.0
_MARGIN_SECONDS = 300.0

_DEFECT = "defect.txt"


@dataclass(slots=True)
class _Ending:
    """How an attempt ended; filled as it goes."""

    verdict: Verdict = Verdict.INFRA
    title: str = ""
    accel: str = ""
    command: tuple[str, ...] = ()
    crash: CrashReport | None = None
    checks: list[CheckResult] = field(default_factory=list)
    hung: str = ""
    """What the suites saw of a guest that hangs."""
    late: bool = False
    """Whether there was no time for all of the suites."""


def run_cell(
    job: Job,
    cell: Cell,
    image: Artefact,
    host: Recipe | None,
    steps: tuple[str, ...],
    booted: Callable[[], None],
    *,
    last: bool = True,
) -> Verdict:
    """Run `cell` once on its finished image, and record everything.

    `host` is the recipe of its Xen host, if it has one. `booted` is called once its boot is over, however that
    ended. Unless this is the `last` time, it is going to be run again if only the infrastructure failed. Raises
    `Cancelled`.
    """
    attempt = job.results.begin_cell(job.run, cell.id, steps)
    job.listener(CellBegan(cell.id, attempt.number))
    start = time.monotonic()
    ending = _Try(job, cell, image, host, attempt).run(booted)
    seconds = time.monotonic() - start
    job.results.end_cell(
        attempt,
        ending.verdict,
        title=ending.title,
        seconds=seconds,
        accel=ending.accel,
        command=ending.command,
        crash=ending.crash,
    )
    again = ending.verdict is Verdict.INFRA and not last
    job.listener(CellEnded(cell.id, ending.verdict, ending.title, seconds, again))
    return ending.verdict


class _Try:
    """One attempt at a cell."""

    def __init__(self, job: Job, cell: Cell, image: Artefact, host: Recipe | None, attempt: Attempt) -> None:
        self._job = job
        self._cell = cell
        self._image = image
        self._host = host
        self._attempt = attempt
        self._directory = cell_directory(job.workspace, job.run, cell.id, attempt.number)
        self._boot_limit = _START_SECONDS + boot_seconds(cell.shape, job.release)
        self._suites_limit = _SUITES_SECONDS * patience(cell.shape, job.release)
        self._ending = _Ending()

    def run(self, booted: Callable[[], None]) -> _Ending:
        """Make it, with every typed error turned into its verdict. `booted` is called once the boot is over."""
        ending = self._ending
        # Outer deadlines are longer than all inner ones together: the inner ones fire first, and the logs survive.
        seconds = self._boot_limit + self._suites_limit + _MARGIN_SECONDS
        deadline = Deadline.after(seconds, what=self._cell.id, cancel=self._job.cancel)
        try:
            with self._guest() as guest:
                ending.command = tuple(guest.command())
                self._boot_and_test(guest, booted, deadline)
        except GuestCrashed as error:
            ending.verdict, ending.title, ending.crash = error.verdict, error.message, error.report
        except GuestError as error:
            ending.verdict, ending.title = error.verdict, error.message
        except Cancelled:
            raise
        except (InfraError, DeadlineExceeded, OSError) as error:
            ending.verdict, ending.title = Verdict.INFRA, str(error).partition("\n")[0]
        except Exception as error:  # noqa: BLE001 - one cell's misfortune is not the others'
            ending.verdict, ending.title = Verdict.INFRA, defect(error, self._directory / _DEFECT)
        finally:
            booted()
        return ending

    @contextlib.contextmanager
    def _guest(self) -> Iterator[Guest]:
        """The cell's guest, not started yet; in the end its logs are kept, and all else of it is gone."""
        job, cell = self._job, self._cell
        runtime = runtime_directory("g")
        try:
            media = xen.media(job.target, job.release, cell, self._image, job.workspace, self._host, job.xen_host)
            guest = create(GuestSpec(self._attempt.cell, cell.shape, media, runtime), job.accel)
            try:
                yield guest
            finally:
                _keep_logs(guest, self._directory)
        finally:
            shutil.rmtree(runtime, ignore_errors=True)

    def _boot_and_test(self, guest: Guest, booted: Callable[[], None], deadline: Deadline) -> None:
        """Boot `guest`, run its suites, and say how that went. Raises what kept it from an end."""
        job, cell, ending = self._job, self._cell, self._ending
        limit = deadline.sooner(self._boot_limit)
        # Leaving the session ends the guest, interrupted or not.
        with boot(guest, job.release, cell, self._directory, limit, self._stage) as session:
            booted()
            ending.accel = guest.accel
            via, note = way(job.via, job.release.shell.ssh, answers=session.manifest.ssh is not None)
            limit = deadline.sooner(self._suites_limit, what=f"the suites of {cell.id}")
            try:
                self._suites(session, via, limit)
            except (InfraError, DeadlineExceeded):
                # A kernel that panics can break them; then that is what there is to say.
                ending.crash = session.final_crash(deadline.sooner(_SETTLE_SECONDS))
                if ending.crash is None:
                    raise
            else:
                ending.crash = session.final_crash(deadline.sooner(_SETTLE_SECONDS))
            _require_up(guest, ending.crash, deadline)
            if ending.hung and ending.crash is None:
                raise hung(ending.hung, session.diagnose, self._directory, deadline)
        if ending.crash is not None:
            ending.verdict, ending.title = ending.crash.verdict, ending.crash.title
        else:
            ending.verdict = cell_verdict(cell.suites, ending.checks, check=job.check, late=ending.late)
            ending.title = cell_title(cell.suites, ending.checks, check=job.check, late=ending.late) or note

    def _stage(self, reached: StageReached) -> None:
        self._job.results.record_stage(self._attempt, reached)
        self._job.listener(CellStage(self._cell.id, reached.stage, reached.seconds))

    def _suites(self, session: HeldSession, via: str, deadline: Deadline) -> None:
        """Run the cell's suites in their own process and record each check as it comes."""
        if not self._cell.suites:
            return
        run_suites(
            session.manifest_path,
            self._cell.suites,
            via,
            deadline,
            self._event,
            self._directory / "suites.log",
            check=self._job.check or None,
        )

    def _event(self, what: Event) -> None:
        job, cell, ending = self._job, self._cell, self._ending
        match what:
            case CheckEvent(check):
                job.listener(CheckBegan(cell.id, check))
            case ResultEvent(result):
                job.results.record_check(self._attempt, result)
                ending.checks.append(result)
                job.listener(CheckEnded(cell.id, result))
            case EndEvent(late=True):
                ending.late = True
            case EndEvent(gone, True):
                last = next((c.check for c in reversed(ending.checks) if c.outcome is Outcome.FAIL), "the suites")
                ending.hung = hang_title(last, gone)


def _require_up(guest: Guest, crash: CrashReport | None, deadline: Deadline) -> None:
    """Raise what the end of a guest that should be up says: of the hypervisor, or of a guest that did not crash."""
    if guest.state is not State.ENDED:
        return
    how = guest.wait(deadline)
    if failed := failure(how, "while the suites ran"):
        raise failed
    if crash is None:
        cause = f" ({how.cause})" if how.cause else ""
        raise GuestEnded(f"the guest ended{cause} while the suites ran")


def way(asked: str, data: SshShell | None, *, answers: bool) -> tuple[str, str]:
    """How suites get into a guest that `answers` SSH as `data` says, and if not as `asked`, why."""
    if asked != "ssh" or data is None:
        return asked, ""
    if not answers:
        return "serial", "over the serial console: the guest has no SSH server"
    if missing := unspoken(data):
        return "serial", f"over the serial console: this host's SSH library does not speak {', '.join(missing)}"
    return asked, ""


def _keep_logs(guest: Guest, directory: Path) -> None:
    """Put what the hypervisor wrote beside the transcript, as far as it wrote anything."""
    with contextlib.suppress(OSError):  # the verdict stands without them
        for log in guest.logs():
            if log.exists() and log.stat().st_size > 0:
                directory.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(log, directory / log.name)
