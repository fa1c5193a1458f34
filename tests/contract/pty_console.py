"""A `Console` with a real shell of this host behind it: a login on a pseudo-terminal, a kernel that interrupts."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import select
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from dfbuild.console.protocol import ConsoleClosed
from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import GuestCrashed
from dfbuild.model import CrashReport, Verdict

# What a getty, login and a shell do, as far as it can be seen from outside.
GETTY = """
trap '' INT QUIT
while :; do
    printf '\\r\\nreference login: '
    IFS= read -r user || exit
    [ -n "$user" ] || continue
    if [ "$user" != root ]; then
        printf 'Password:'; IFS= read -r password || exit
        printf '\\r\\nLogin incorrect\\r\\n'; continue
    fi
    printf 'Last login: Tue Nov 24 03:22:01 on ttyS0\\r\\nWelcome to # the machine\\r\\n'
    (trap - INT QUIT; cd "$HOME" && PS1='# ' exec $SHELL_UNDER_TEST)
    stty sane
done
"""

MESSAGES = (
    b"[   12.345678] eth0: link becomes ready\r\n",
    b"[  100.000001] usb 1-1: new high-speed USB device number 2 using xhci_hcd\r\n",
)
NOISE = (
    *MESSAGES,
    b"panic: not really # $ > login: \r\n",
    b"\x1b[0m\x07\b\b",
    b"x",
    b"[    1.0] 12:AAAA\r\n",
)


def noise(rng: random.Random, lines: int, of: Sequence[bytes] = NOISE) -> bytes:
    """What a kernel may print at once: up to `lines` messages."""
    return b"".join(rng.choice(of) for _ in range(rng.randint(1, lines)))


class PtyConsole:
    """Runs `shell` behind a login on a terminal of its own, in `home`.

    `disturb` weaves kernel messages into what it prints.
    """

    def __init__(self, home: Path, shell: Sequence[str]) -> None:
        self._rng: random.Random | None = None
        self._every = 40
        self._messages: Sequence[bytes] = NOISE
        self._foreign: Sequence[bytes] = ()
        self._changed = threading.Condition()
        self._printed = bytearray()
        self._closed = False
        self._stop = Cancel()
        self._crash: CrashReport | None = None
        self._master, slave = pty.openpty()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TERM": "vt100",
            "SHELL_UNDER_TEST": " ".join(shell),
        }
        # Whoever runs the tests may ignore interrupts (nohup, a job in the background); init(8) does not.
        self._process = subprocess.Popen(
            ["env", "--default-signal=INT,QUIT", "setsid", "-c", "-w", "sh", "-c", GETTY],
            stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=home,
        )  # fmt: skip
        os.close(slave)
        self._reader = threading.Thread(target=self._read_all, daemon=True)
        self._reader.start()

    def _read_all(self) -> None:
        # What is left in the background keeps the terminal open when the login is gone.
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        poll.register(self._stop.fileno(), select.POLLIN)
        with contextlib.suppress(OSError):
            while self._stop.fileno() not in dict(poll.poll()):
                self.print(self._disturbed(os.read(self._master, 4096)))
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _disturbed(self, data: bytes) -> bytes:
        if self._rng is None:
            return data
        out = bytearray()
        at = 0
        while at < len(data):
            size = self._rng.randint(1, 2 * self._every)
            out += data[at : at + size]
            at += size
            out += noise(self._rng, 200 if self._rng.random() < 0.02 else 2, self._messages)
            if self._foreign and self._rng.random() < 0.01:
                out += self._rng.choice(self._foreign)
        return bytes(out)

    # ── what the test does to it ─────────────────────────────────────────────────────────────────────────────

    def disturb(
        self, seed: int, *, every: int = 40, messages: Sequence[bytes] = NOISE, foreign: Sequence[bytes] = ()
    ) -> None:
        """From now on the kernel prints about one of `messages` per `every` bytes, at any byte, and now and then
        200 of them; `foreign` are other bytes that are thrown in, more rarely."""
        self._every, self._messages, self._foreign = every, messages, foreign
        self._rng = random.Random(seed)

    def print(self, data: bytes) -> None:
        with self._changed:
            self._printed += data
            self._changed.notify_all()

    def panic(self) -> CrashReport:
        """The kernel is dead: nothing is said any more."""
        report = CrashReport(title="panic: test", signature="panic", verdict=Verdict.PANIC, offset=self.size)
        with self._changed:
            self._crash = report
            self._changed.notify_all()
        return report

    def kill(self) -> None:
        """Hang up: the terminal goes, and all that runs on it."""
        self._stop.set()
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        self._reader.join(10)
        os.close(self._master)

    # ── Console ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def size(self) -> int:
        return len(self._printed)

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def crash(self) -> CrashReport | None:
        return self._crash

    def read(self, offset: int, limit: int = 65536) -> bytes:
        with self._changed:
            return bytes(self._printed[offset : offset + limit])

    def wait(self, offset: int, deadline: Deadline) -> int:
        with self._changed:
            deadline.wait(
                self._changed,
                lambda: len(self._printed) > offset or self._closed or self._crash is not None,
                "the console",
            )
            if self._crash is not None:
                raise GuestCrashed(self._crash)
            if len(self._printed) <= offset:
                raise ConsoleClosed("the console is closed")
            return len(self._printed)

    def send(self, data: bytes, deadline: Deadline) -> None:
        if self._closed:
            raise ConsoleClosed("the console is closed")
        view = memoryview(data)
        while view:
            view = view[os.write(self._master, view) :]
