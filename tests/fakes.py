"""Stand-ins for tests that need no virtual machine."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import weakref
from pathlib import Path

from dfbuild.deadline import Deadline
from dfbuild.errors import InfraError
from dfbuild.guest.protocol import Exit, GuestSpec, State, WireEnds
from dfbuild.model import Login, Media, Shape
from dfbuild.runtime import runtime_directory


class FakeGuest:
    """A `Guest` over a socketpair: the test prints on its console, and reads what was typed.

    `script` is printed as soon as it is powered on. `calls` are the names of the methods that were used.
    """

    def __init__(self, script: bytes = b"", *, name: str = "fake", accel: str = "kvm") -> None:
        directory = runtime_directory("t")
        weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        self.spec = GuestSpec(
            name=name, shape=Shape("up"), media=Media(login=Login(host_key="ssh-ed25519 AAAA")), directory=directory
        )
        self.accel = accel
        self.pid = 4242
        self.script = script
        self.calls: list[str] = []
        self.exit = Exit(0, "quit")
        self.diagnosis = "CPU 0: halted at 0xffffffff81000000"
        self._state = State.NEW
        self._ended = threading.Event()
        self._outside, self.wire = socket.socketpair()

    @property
    def state(self) -> State:
        return self._state

    # ── the guest's side ─────────────────────────────────────────────────────────────────────────────────────

    def print(self, data: bytes) -> None:
        """Print on the console, as fast as it is read."""
        self.wire.sendall(data)

    def typed(self, size: int) -> bytes:
        """Exactly `size` bytes that were typed."""
        got = b""
        while len(got) < size and (more := self.wire.recv(size - len(got))):
            got += more
        return got

    def end(self, status: int = 0, stderr: str = "") -> None:
        """End by itself."""
        self._finish(Exit(status, "guest", stderr))

    def _finish(self, how: Exit) -> None:
        if self._state is not State.ENDED:
            self._state = State.ENDED
            self.exit = how
            with contextlib.suppress(OSError):
                self.wire.shutdown(socket.SHUT_RDWR)
            self.wire.close()
            self._ended.set()

    # ── Guest ────────────────────────────────────────────────────────────────────────────────────────────────

    def command(self) -> list[str]:
        return ["fake-hypervisor", self.spec.name]

    def logs(self) -> tuple[Path, ...]:
        return ()

    def start(self, deadline: Deadline) -> socket.socket:
        self._require(State.NEW)
        self._state = State.RUNNING
        if self.script:
            threading.Thread(target=self._print_script, daemon=True).start()
        return self._outside

    def _print_script(self) -> None:
        with contextlib.suppress(OSError):
            self.print(self.script)

    def ssh_address(self, deadline: Deadline) -> tuple[str, int]:
        return ("127.0.0.1", 2222)

    def wire_ends(self) -> WireEnds:
        return WireEnds(self.spec.directory / "wire.guest", self.spec.directory / "wire.peer")

    def pause(self, deadline: Deadline) -> None:
        self._require(State.RUNNING)
        self.calls.append("pause")
        self._state = State.PAUSED

    def resume(self, deadline: Deadline) -> None:
        self._require(State.PAUSED)
        self.calls.append("resume")
        self._state = State.RUNNING

    def reset(self, deadline: Deadline) -> None:
        self.calls.append("reset")

    @property
    def saved(self) -> bool:
        return False

    def save(self, deadline: Deadline) -> None:
        self._require(State.RUNNING)
        self.calls.append("save")

    def power_button(self, deadline: Deadline) -> None:
        self.calls.append("power_button")

    def diagnose(self, deadline: Deadline) -> str:
        self.calls.append("diagnose")
        return self.diagnosis

    def wait(self, deadline: Deadline) -> Exit:
        if not self._ended.wait(deadline.remaining()):
            deadline.check("the guest's end")
        return self.exit

    def stop(self, deadline: Deadline) -> Exit:
        self.calls.append("stop")
        self._finish(Exit(0, "quit"))
        return self.exit

    def _require(self, state: State) -> None:
        if self._state is not state:
            raise InfraError(f"the guest is {self._state}, not {state}")
