"""Commands in dom0, over a serial port or another stream.

A line is a command; its answer is a line with its status and the length of its output, then the output.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading

from dfbuild.deadline import Deadline
from dfbuild.errors import InfraError
from dfbuild.guest.process import HypervisorGone

_HEAD = re.compile(rb"(\d+) (\d+)\n")
_READY = b"ready\n"
_ERROR_LIMIT = 2000
_ANSWER_LIMIT = 1 << 20


class Agent:
    """dom0's agent behind a connected socket, which is taken over. Any thread may call; commands run in turn."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lock = threading.Lock()
        self._pending = b""
        self._asked = self._answered = 0

    def await_ready(self, deadline: Deadline) -> None:
        """Wait for the agent's first word, after which dom0 is up. Raises `HypervisorGone`, and `InfraError` for
        another word than that."""
        with deadline.holding(self._lock, "others who ask dom0"):
            while not self._pending.startswith(_READY):
                if not _READY.startswith(self._pending[: len(_READY)]):
                    raise InfraError(
                        f"before dom0's agent the shell there says {self._pending[:80]!r}",
                        hint="its user's shell has to begin without a word",
                    )
                self._receive(deadline, "dom0 to come up")
            self._pending = self._pending.removeprefix(_READY)

    def run(self, command: str, deadline: Deadline) -> str:
        """Run a shell command of one line in dom0 and return what it printed.

        Raises `InfraError` with that for a status other than 0, `HypervisorGone`, and as `Deadline.check` does;
        the answer that comes too late is then dropped.
        """
        if "\n" in command:
            raise InfraError(f"dom0's agent takes one line: {command!r}")
        with deadline.holding(self._lock, "others who ask dom0"):
            what = f"dom0: {command.rpartition(' && ')[2]}"
            deadline.check(what)
            try:
                self._socket.sendall(command.encode() + b"\n")
            except OSError as error:
                raise HypervisorGone(f"{what}: the Xen host hung up") from error
            self._asked += 1
            while True:
                status, output = self._answer(deadline, what)
                if self._answered == self._asked:
                    break
        text = output.decode(errors="replace")
        if status != 0:
            raise InfraError(f"{what}: status {status}: {text.strip()[-_ERROR_LIMIT:]}")
        return text

    def hang_up(self) -> None:
        """Tell dom0 that nothing more comes; whoever waits for an answer is told so too."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.hang_up()
        self._socket.close()

    def _answer(self, deadline: Deadline, what: str) -> tuple[int, bytes]:
        """The next answer whole; what has come of one stays until the rest is there."""
        while True:
            head = _HEAD.match(self._pending)
            if head is not None:
                size = int(head[2])
                if size > _ANSWER_LIMIT:
                    raise InfraError(f"{what}: an answer of {size} bytes")
                if len(self._pending) >= head.end() + size:
                    output = self._pending[head.end() : head.end() + size]
                    self._pending = self._pending[head.end() + size :]
                    self._answered += 1
                    return int(head[1]), output
            elif b"\n" in self._pending:
                raise InfraError(f"{what}: dom0's agent answered {self._pending[:80]!r}")
            self._receive(deadline, what)

    def _receive(self, deadline: Deadline, what: str) -> None:
        deadline.select(self._socket.fileno(), what=what)
        try:
            received = self._socket.recv(65536)
        except ConnectionResetError:
            received = b""
        if not received:
            raise HypervisorGone(f"{what}: the Xen host hung up")
        self._pending += received
