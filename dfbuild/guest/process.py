"""A hypervisor's process inside its sandbox: started so that it dies with dfbuild, ended for certain."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import struct
import subprocess
import weakref
from collections.abc import Sequence
from pathlib import Path

from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, InfraError
from dfbuild.guest.spawner import SPAWNER
from dfbuild.process import kill_group

_LOG_LIMIT = 64 << 10
_KILL_SECONDS = 10.0


class HypervisorGone(InfraError):
    """A connection to the hypervisor is gone: it has ended or is about to."""


class EarlyDeath(InfraError):
    """The hypervisor ended before the guest ran. `status` and `stderr` are its own."""

    def __init__(self, argv: Sequence[str], status: int, stderr: str) -> None:
        super().__init__(
            f"the hypervisor ended with status {status} before the guest ran: "
            f"{stderr.strip() or 'it said nothing'}\n  command: {shlex.join(argv)}"
        )
        self.status, self.stderr = status, stderr


class HypervisorProcess:
    """`argv` (bubblewrap and the hypervisor) as a running process; its output goes to `log`."""

    def __init__(self, argv: Sequence[str], log: Path, *, inherits: Sequence[int] = ()) -> None:
        """Start it; it gets the descriptors `inherits` under the same numbers."""
        self.argv = list(argv)
        self._log = log
        with log.open("wb") as sink:
            self._outer = SPAWNER.spawn(
                self.argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, pass_fds=tuple(inherits)
            )
        self._outer_fd = self._pidfd(self._outer.pid)
        self._inner_fd: int | None = None
        self.pid = self._outer.pid
        """The hypervisor's own process once it has connected; bubblewrap's until then."""

    def accept(self, listener: socket.socket, deadline: Deadline) -> socket.socket:
        """The hypervisor's connection to `listener`; raises `EarlyDeath` as soon as it is clear that none comes."""
        ready = deadline.select(listener.fileno(), self._outer_fd, what="the hypervisor's connection")
        if listener.fileno() not in ready:
            raise self.early_death()
        connection, _ = listener.accept()
        if self._inner_fd is None:
            # The kernel translates the peer's PID from the sandbox's PID namespace into ours: unix(7), SO_PEERCRED.
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            self.pid = struct.unpack("3i", credentials)[0]
            with contextlib.suppress(ProcessLookupError):
                self._inner_fd = self._pidfd(self.pid)
        return connection

    @property
    def alive(self) -> bool:
        return self._outer.poll() is None

    def wait(self, deadline: Deadline) -> int:
        """The status it ended with by itself, negative for a signal; raises as `Deadline.check` does."""
        if self.alive:
            deadline.select(self._outer_fd, what="the hypervisor's end")
        status = self._outer.wait()
        # bwrap(1) reports a child that a signal killed as a shell does.
        return 128 - status if 128 < status <= 128 + signal.SIGRTMAX else status

    def terminate(self) -> None:
        """SIGTERM to the hypervisor itself: bubblewrap would die of it and take QEMU down unasked."""
        self._signal(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL everything and reap it; returns the status. Raises `InfraError` if the kernel does not let go."""
        limit = Deadline.after(_KILL_SECONDS, what=f"the end of killed process {self.pid}")
        try:
            if self._inner_fd is None:
                return kill_group(self._outer) if self.alive else self.wait(limit)
            self._signal(signal.SIGKILL)
            limit.select(self._inner_fd)
            return self.wait(limit)
        except DeadlineExceeded as error:
            raise InfraError(f"process {self.pid} does not end, though it was killed") from error

    def stderr(self) -> str:
        """What it complained of, at most the last 64 KiB."""
        with self._log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - _LOG_LIMIT))
            return log.read().decode(errors="replace")

    def early_death(self, more: str = "") -> EarlyDeath:
        """The error for an end that came too soon, with what it said and `more`; kills what is left."""
        return EarlyDeath(self.argv, self.kill(), self.stderr() + more)

    def _pidfd(self, pid: int) -> int:
        """A descriptor that lives as long as this object: another thread may be waiting on it at the end."""
        fd = os.pidfd_open(pid)
        weakref.finalize(self, os.close, fd)
        return fd

    def _signal(self, number: signal.Signals) -> None:
        if self._inner_fd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._inner_fd, number)
