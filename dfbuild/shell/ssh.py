"""A shell over SSH. Each command has a channel of its own; `exchange.py` says what goes over it."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dfbuild.console.protocol import Console
from dfbuild.deadline import Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, DfbuildError, InfraError
from dfbuild.model import Login
from dfbuild.releases.schema import Shell as ShellData
from dfbuild.releases.schema import SshShell as SshData
from dfbuild.shell.coding import command_bytes, digest, shortened
from dfbuild.shell.connect import connect, interruptible
from dfbuild.shell.copy import Incoming, arriving, get_script, on_host, put_script
from dfbuild.shell.errors import CopyFailed, LoginRefused, ShellLost
from dfbuild.shell.exchange import Marks, channel_command, preface, reaper
from dfbuild.shell.protocol import Answer
from dfbuild.shell.watch import Watch

if TYPE_CHECKING:
    from paramiko import Channel, Transport

_CHUNK = 256 << 10
LARGEST_OUTPUT = 64 << 20
"""Bytes that a command may print: what it says is held in memory, and is not ours."""
_AT_ONCE = 8 << 10
"""Bytes that every server's window takes: written without a thread of their own."""
_SLICE = 0.5
_AFTERMATH = 0.5
"""Seconds that the console may take to say why the connection broke."""
_GOODBYE = 2.0
"""Seconds beyond the deadline that it may take to end a command that did not end."""
_ANEW = 120.0
"""Seconds that it may take to connect again."""
_WORD = 60.0
"""Seconds that a server may take to say that a command has ended, on a host that emulates an emulated one."""


class SshShell:
    """A `StreamingShell` over SSH. With the guest's console, a crash there ends every wait at once."""

    via = "ssh"

    def __init__(
        self,
        dial: Callable[[Deadline], Transport],
        shell: ShellData,
        deadline: Deadline,
        console: Console | None = None,
    ) -> None:
        """`dial` connects and logs in, here and after each command that was interrupted."""
        self._dial = dial
        self._shell = shell
        self._ssh = shell.ssh or SshData()
        self._lost: ShellLost | None = None
        self._ending: list[Channel] = []
        self._torn = False
        self._orphans: list[int] = []
        self._watch = Watch(console)
        try:
            with self._watch.over(deadline) as watched:
                self._transport = dial(watched)
        except BaseException:
            self._watch.close()
            raise

    @classmethod
    def open(
        cls,
        address: tuple[str, int],
        login: Login,
        shell: ShellData,
        deadline: Deadline,
        *,
        console: Console | None = None,
    ) -> SshShell:
        """Connect and log in as soon as the guest answers. Raises as `connect` does, and `GuestCrashed`."""
        return cls(partial(connect, address, login, shell.ssh or SshData()), shell, deadline, console)

    @property
    def algorithms(self) -> tuple[str, str]:
        """Cipher and MAC of what we send."""
        return self._transport.local_cipher, self._transport.local_mac or ""

    # ── Shell ────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, command: str, deadline: Deadline, *, stdin: bytes = b"") -> Answer:
        return Answer(command, *self._answer(command, deadline, [stdin] if stdin else []))

    def stream(self, command: str, deadline: Deadline, sink: Callable[[bytes], object]) -> int:
        def guarded(data: bytes) -> None:
            try:
                sink(data)
            except OSError as error:  # Not the connection's.
                raise _SinkError(error) from error

        try:
            return self._execute(command, deadline, [], guarded)
        except _SinkError as failed:
            raise failed.error from None

    def put(self, source: Path, target: str, deadline: Deadline) -> None:
        expected = digest(self._shell.checksum)

        def content() -> Iterator[bytes]:
            with source.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    expected.update(chunk)
                    yield chunk

        with on_host(source):
            mode = source.stat().st_mode
        script = put_script("cat", target, mode, self._shell.checksum_command, secrets.token_hex(4))
        status, said = self._answer(script, deadline, content())
        text = said.decode(errors="replace").strip()
        if status != 0:
            raise CopyFailed(f"cannot copy {source} to {target}: {text}")
        if text.split()[:1] != [expected.text()]:
            raise CopyFailed(f"{target} arrived damaged: its checksum is {text!r}, and not {expected.text()}")

    def get(self, source: str, target: Path, deadline: Deadline) -> None:
        seen = digest(self._shell.checksum)
        script = get_script(source, self._shell.checksum_command)
        with arriving(target) as part:
            with part.open("wb") as file:

                def keep(data: bytes) -> None:
                    seen.update(data)
                    with on_host(target):
                        file.write(data)

                incoming = Incoming(keep)
                status = self._execute(script, deadline, [], incoming.feed)
            header = incoming.header
            if status != 0 or header is None:
                raise CopyFailed(f"cannot copy {source}: {incoming.text}")
            if header.checksum != seen.text():
                raise CopyFailed(f"{source} arrived damaged, or changed meanwhile")
            part.chmod(header.mode)

    def close(self) -> None:
        if self._lost is None:
            self._lost = ShellLost("the shell was closed")
        self._watch.close()
        self._transport.close()

    # ── one command ──────────────────────────────────────────────────────────────────────────────────────────

    def _answer(self, command: str, deadline: Deadline, stdin: Iterable[bytes]) -> tuple[int, bytes]:
        """Run `command`; its status and its output, which may be only so large."""
        output = bytearray()

        def keep(data: bytes) -> None:
            if len(output) > LARGEST_OUTPUT:
                raise ShellLost(f"a command printed more than {LARGEST_OUTPUT >> 20} MiB: {command[:80]!r}")
            output.extend(data)

        status = self._execute(command, deadline, stdin, keep)
        return status, bytes(output)

    def _execute(
        self, command: str, deadline: Deadline, stdin: Iterable[bytes], sink: Callable[[bytes], object]
    ) -> int:
        """Run `command`, give its output to `sink`, and return its status."""
        marks = Marks(secrets.token_hex(8))
        head = preface(marks.nonce, command_bytes(command))
        what = f"{shortened(command)} over SSH"
        with self._losing(deadline), self._watch.over(deadline) as watched:
            channel = self._start(watched)
            writer = Writer(channel, head, stdin)
            try:
                self._read(channel, marks, sink, watched, what)
            except (DeadlineExceeded, Cancelled, KeyboardInterrupt, SystemExit, _SinkError):
                if not self._watch.gone:
                    self._orphan(channel, marks)
                raise
            finally:
                if channel.closed:  # The server's last word has come.
                    self._ending.clear()
                # Closing says goodbye to the guest, and a dead one's socket may take no word more.
                with interruptible(self._transport, Deadline.after(_GOODBYE)):
                    channel.close()
                    writer.join()
            if writer.error is not None:
                raise writer.error
        if marks.status is None:
            raise ShellLost("the command ended without a status: its session was killed")
        return marks.status

    def _start(self, deadline: Deadline) -> Channel:
        deadline.check("an SSH channel")
        if self._torn:
            self._renew(deadline)
        self._settle(deadline)
        with interruptible(self._transport, deadline):
            channel = self._transport.open_session(timeout=max(0.001, deadline.remaining()))
            channel.exec_command(channel_command(self._shell.path))
        self._ending.append(channel)
        return channel

    def _renew(self, deadline: Deadline) -> None:
        """Another connection, for what comes behind an interrupted command.

        Nobody can tell when that one's end comes, and what a dropbear does with it is told at `_settle`.
        """
        self._transport.close()
        self._ending.clear()
        try:
            self._transport = self._dial(deadline.sooner(_ANEW))
        except DeadlineExceeded as error:
            deadline.check("an SSH connection")
            raise EOFError(f"it was left behind an interrupted command, and none came in {_ANEW:.0f} s") from error
        except LoginRefused as error:
            raise ShellLost(f"the SSH connection was lost: {error.message}") from error
        self._torn = False
        while self._orphans:
            self._reap(self._orphans[0], deadline)
            del self._orphans[0]

    def _settle(self, deadline: Deadline) -> None:
        """Wait for the server's word that the commands before this one have ended.

        dropbear before 2024.84 closes a channel that is open and without a command at the moment when it learns of
        the end of another one, and dies of it (github.com/mkj/dropbear/issues/321).
        """
        while self._ending:
            channel = self._ending.pop()
            # The library raises this event when we close, too; only the one behind that tells of the server.
            channel.status_event.clear()
            word = deadline.sooner(_WORD)
            while channel.exit_status == -1 and self._transport.is_active() and not word.expired:
                if channel.status_event.wait(min(_SLICE, word.remaining())):
                    break
            deadline.check("an SSH channel")

    def _read(
        self,
        channel: Channel,
        marks: Marks,
        sink: Callable[[bytes], object],
        deadline: Deadline,
        what: str,
        *,
        begun: bool = False,
    ) -> None:
        """Until the mark of the command called `what`, or only until it has `begun`, or the channel's end."""
        while marks.status is None and not (begun and marks.pid is not None):
            ended = channel.eof_received or channel.closed
            if channel.recv_ready():
                if output := marks.feed(channel.recv(_CHUNK)):
                    sink(output)
            elif ended:
                # A dying connection ends its channels first.
                self._transport.join(_AFTERMATH)
                if not self._transport.is_alive():
                    raise EOFError("it was closed in the middle of a command")
                return
            else:
                deadline.select(channel.fileno(), what=what)
            deadline.check(what)

    def _orphan(self, channel: Channel, marks: Marks) -> None:
        """End what an interrupted command started: now if that goes quickly, else over the next connection."""
        import paramiko

        deadline = Deadline.after(_GOODBYE)
        self._ending.clear()  # Its end will not come before.
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError, DeadlineExceeded, ShellLost):
            self._read(channel, marks, lambda _: None, deadline, "the command that was interrupted", begun=True)
            if marks.pid is not None:
                self._orphans.append(marks.pid)
                self._reap(marks.pid, deadline)
                self._orphans.remove(marks.pid)

    def _reap(self, pid: int, deadline: Deadline) -> None:
        """Have the guest end in the background what process `pid` started, and that."""
        marks = Marks(secrets.token_hex(8))
        channel = self._start(deadline)
        with contextlib.closing(channel):
            Writer(channel, preface(marks.nonce, command_bytes(reaper(pid, self._ssh.processes))), [])
            self._read(channel, marks, lambda _: None, deadline, "the interrupted command to be ended")
        if marks.status is None:
            raise EOFError("the reaper ended without a status")

    @contextlib.contextmanager
    def _losing(self, deadline: Deadline) -> Iterator[None]:
        """Errors of the library to ours. What is lost stays lost, and says so."""
        if self._lost is not None:
            self._watch.explain()
            raise ShellLost(self._lost.message)
        try:
            yield
        except (DeadlineExceeded, Cancelled):
            self._torn = True
            raise
        except (DfbuildError, _SinkError):
            raise
        except Exception as error:
            # A broken server makes the library fail in ways of which it has no errors, here and in its thread.
            if deadline.expired:  # We broke it off, then, or are about to, and may connect again.
                self._torn = True
                deadline.check("the guest's SSH server")
            if self._transport.is_alive():
                raise ShellLost(f"the guest's SSH server refuses a command: {error}") from error
            self._lost = ShellLost(f"the SSH connection broke: {error!r}")
            self._watch.explain(_AFTERMATH)
            raise self._lost from error


class _SinkError(Exception):
    """Who gets the output cannot take it."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class Writer:
    """Writes to a channel while somebody else reads from it; in a thread only if it is much.

    `error` is what the source raised. That the guest does not read all is no error.
    """

    def __init__(self, channel: Channel, head: bytes, rest: Iterable[bytes]) -> None:
        self._channel = channel
        self._chunks = itertools.chain([head], rest)
        self.error: InfraError | None = None
        self._thread: threading.Thread | None = None
        channel.settimeout(_SLICE)
        if len(head) <= _AT_ONCE and rest == []:
            self._run()
        else:
            self._thread = threading.Thread(target=self._run, name="ssh-write", daemon=True)
            self._thread.start()

    def join(self) -> None:
        """To be called when the channel is closed."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        import paramiko

        while True:
            try:
                chunk = next(self._chunks, None)
            except OSError as error:
                self.error = InfraError(f"cannot read what was to be sent: {error}")
                chunk = None
            try:
                if chunk is None:
                    self._channel.shutdown_write()
                    return
                self._send(chunk)
            except (OSError, EOFError, paramiko.SSHException):
                return  # Closed: the reader knows why.

    def _send(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            with contextlib.suppress(TimeoutError):
                view = view[self._channel.send(view) :]  # type: ignore[arg-type]  # any buffer will do
