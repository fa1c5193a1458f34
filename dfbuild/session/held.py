"""The session of a guest that this process holds."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from dfbuild.console.reader import ConsoleReader
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, DfbuildError, InfraError
from dfbuild.guest.protocol import Exit, Guest
from dfbuild.model import CrashReport, StageReached
from dfbuild.session.diagnosis import diagnose, explained
from dfbuild.session.messages import dump_manifest
from dfbuild.session.protocol import Manifest
from dfbuild.session.serve import ControlServer
from dfbuild.workspace import atomic_write

MANIFEST = "guest.json"
CONSOLE_LOG = "console.log"
END_SECONDS = 30.0
"""How long the end of a guest may take where nobody says otherwise."""
_OTHERS = "others who use the guest"


class HeldSession:
    """A `Session` over a guest of this process, open to other processes by its control socket.

    A context manager: leaving it ends the guest. Any thread may use it; the guest sees one request at a time.
    """

    def __init__(
        self, guest: Guest, console: ConsoleReader, manifest: Manifest, stages: tuple[StageReached, ...]
    ) -> None:
        """Write the manifest next to the transcript and serve. Raises `InfraError`."""
        self._guest = guest
        self._console = console
        self._manifest = manifest
        self._stages = stages
        self._turn = threading.RLock()
        self._exit: Exit | None = None
        self._server = ControlServer(manifest.control, self, console)
        self._server.start()
        try:
            atomic_write(self.manifest_path, dump_manifest(manifest))
        except OSError as error:
            self._server.close()
            raise InfraError(f"cannot write {self.manifest_path}: {error.strerror}") from error

    @property
    def manifest_path(self) -> Path:
        """The file by which others attach, as long as the session is open."""
        return self._manifest.transcript.with_name(MANIFEST)

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def console(self) -> ConsoleReader:
        return self._console

    @property
    def stages(self) -> tuple[StageReached, ...]:
        return self._stages

    def pause(self, deadline: Deadline) -> None:
        with deadline.holding(self._turn, _OTHERS):
            self._guest.pause(deadline)

    def resume(self, deadline: Deadline) -> None:
        with deadline.holding(self._turn, _OTHERS):
            self._guest.resume(deadline)

    def reset(self, deadline: Deadline) -> None:
        """As with the button: the guest boots anew, and an earlier crash is forgotten."""
        with deadline.holding(self._turn, _OTHERS):
            self._guest.reset(deadline)
            self._console.rearm()

    def diagnose(self, deadline: Deadline) -> str:
        with deadline.holding(self._turn, _OTHERS):
            return diagnose(self._guest, deadline)

    def final_crash(self, deadline: Deadline) -> CrashReport | None:
        """The crash, if any, with where it was, and with all that was printed so far taken into account."""
        crash = self._console.settled(deadline)
        if crash is None:
            return None
        return explained(crash, self._guest, self._console, self._manifest.release, deadline)

    def stop(self, deadline: Deadline) -> Exit:
        with deadline.holding(self._turn, _OTHERS):
            if self._exit is None:
                self._exit = self._guest.stop(deadline)
            return self._exit

    def close(self) -> None:
        def stop() -> None:
            self.stop(Deadline.after(END_SECONDS, what="the guest's end"))

        try:
            try:
                stop()
            except DeadlineExceeded:
                self._server.close()  # with it goes every client that may hold the guest up
                stop()
        finally:
            self._console.close()
            self._server.close()
            self.manifest_path.unlink(missing_ok=True)

    def __enter__(self) -> HeldSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def end(guest: Guest, console: ConsoleReader | None) -> Exit | None:
    """End a guest that did not come up, and its console. Its own error must not hide the one that led here."""
    how = None
    try:
        with contextlib.suppress(DfbuildError, OSError):
            how = guest.stop(Deadline.after(END_SECONDS, what="the guest's end"))
    finally:
        if console is not None:
            console.close()
    return how
