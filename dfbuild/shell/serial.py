"""A shell on a guest's console. `frames.py` has the grammar, `agent.py` what runs in the guest."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from dfbuild.console.protocol import Console, ConsoleClosed
from dfbuild.deadline import Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, GuestCrashed, UsageError
from dfbuild.model import Login
from dfbuild.releases.schema import Shell as ShellData
from dfbuild.shell import agent
from dfbuild.shell.coding import checksum_of, command_bytes, decode, encode, pieces
from dfbuild.shell.copy import Incoming, arriving, get_script, on_host, put_script
from dfbuild.shell.enter import enter
from dfbuild.shell.errors import CopyFailed, ShellLost
from dfbuild.shell.frames import Ear, assembled, heard, request, selection, wanting
from dfbuild.shell.protocol import Answer

LARGEST_PUT = 1 << 20
"""Bytes. An emulated UART takes 10 to 50 KB/s; larger files go over SSH or on a disk."""

_INTERRUPT, _QUIT = b"\x03", b"\x1c"
_QUIET = 2.0
"""Seconds of silence in the middle of an answer after which it is asked for again."""
_PATIENCE = 3.0
"""Seconds without any answer after which a request is made again; doubled each time."""
_GRACE, _RESYNC = 4.0, 10.0
"""Seconds that an interrupted command has to end, and one that was sent SIGQUIT, too."""
_MOST_AGAIN = 50
"""Times that hurt lines are asked for again before the console counts as lost."""
_MOST_STARTS = 3
_OVERHEAD = 80
"""Bytes of a request beside its payload, at most."""


class SerialShell:
    """A `Shell` over a console. `open` logs in; `close` logs out, so that the next one finds a login prompt."""

    via = "serial"

    def __init__(self, console: Console, shell: ShellData, login: Login) -> None:
        self._console = console
        self._shell = shell
        self._login = login
        self._nonce = secrets.token_hex(4)
        self._seq = 0
        self._payload = shell.serial.line - _OVERHEAD
        self._stale = False
        self._lost: ShellLost | None = None

    @classmethod
    def open(cls, console: Console, shell: ShellData, login: Login, deadline: Deadline) -> SerialShell:
        """Log in on `console`, whatever is on it: a login prompt, a shell, or what another one left behind."""
        serial = cls(console, shell, login)
        with serial._losing():
            serial._log_in(deadline)
        return serial

    # ── Shell ────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, command: str, deadline: Deadline, *, stdin: bytes = b"") -> Answer:
        script = command_bytes(command)
        with self._losing():
            self._synchronise(deadline)
            self._stale = True
            try:
                status, text = self._perform(script, stdin, deadline)
            except (DeadlineExceeded, Cancelled):
                self._interrupt()
                raise
            self._stale = False
            try:
                return Answer(command, status, decode(text, self._shell.serial.coding))
            except ValueError as error:
                raise ShellLost(f"{self._shell.serial.encode!r} printed what is not base64 or uuencode") from error

    def put(self, source: Path, target: str, deadline: Deadline) -> None:
        """Copy a file of at most `LARGEST_PUT` bytes."""
        with on_host(source):
            data, mode = source.read_bytes(), source.stat().st_mode
        if len(data) > LARGEST_PUT:
            raise UsageError(
                f"{source} is too large for the console: {len(data)} bytes, and {LARGEST_PUT} fit",
                hint="use SSH, or a disk of its own",
            )
        serial = self._shell.serial
        script = put_script(serial.decode, target, mode, self._shell.checksum_command, secrets.token_hex(4))
        answer = self.run(script, deadline, stdin=encode(data, serial.coding))
        if answer.status != 0:
            raise CopyFailed(f"cannot copy {source} to {target}: {answer.text}")
        if answer.output.split()[:1] != [checksum_of(data, self._shell.checksum).encode()]:
            raise CopyFailed(f"{target} arrived damaged: its checksum is {answer.text}")

    def get(self, source: str, target: Path, deadline: Deadline) -> None:
        answer = self.run(get_script(source, self._shell.checksum_command), deadline)
        data = bytearray()
        incoming = Incoming(data.extend)
        incoming.feed(answer.output)
        header = incoming.header
        if answer.status != 0 or header is None:
            raise CopyFailed(f"cannot copy {source}: {incoming.text}")
        if header.checksum != checksum_of(bytes(data), self._shell.checksum):
            raise CopyFailed(f"{source} arrived damaged, or changed meanwhile")
        with arriving(target) as part:
            part.write_bytes(data)
            part.chmod(header.mode)

    def close(self) -> None:
        """Log out, if that can be done at once."""
        if self._lost is None:
            self._lost = ShellLost("the shell was closed")
            with contextlib.suppress(ConsoleClosed, DeadlineExceeded):
                self._console.send(b"\n" + agent.QUIT, Deadline.after(1.0))

    # ── one command ──────────────────────────────────────────────────────────────────────────────────────────

    def _perform(self, script: bytes, stdin: bytes, deadline: Deadline) -> tuple[int, bytes]:
        """Exit status and encoded output."""
        for piece in pieces(stdin, self._payload) if stdin else ():
            self._store(b"i", piece, deadline)
        *parts, last = pieces(script, self._payload)
        for piece in parts:
            self._store(b"c", piece, deadline)
        ear = self._ask(b"r", last, deadline)
        for _ in range(_MOST_AGAIN):
            reply = ear.reply
            if not reply.has_output:
                return reply.status or 0, b""
            text = assembled(reply, self._shell.checksum)
            if text is not None:
                return reply.status or 0, text
            wanted = selection(wanting(reply), self._payload)
            reply.total = None
            self._listen(ear, b"g", wanted, deadline)
        raise ShellLost("the console hurts every answer")

    def _store(self, verb: bytes, piece: bytes, deadline: Deadline) -> None:
        if self._ask(verb, piece, deadline).reply.status != 0:
            raise ShellLost(f"the guest cannot write to {self._shell.serial.directory}")

    def _ask(self, verb: bytes, payload: bytes, deadline: Deadline) -> Ear:
        """Make a request with a number of its own, and listen for what the guest answers."""
        self._seq += 1
        ear = Ear(self._nonce.encode(), self._seq)
        self._listen(ear, verb, payload, deadline)
        return ear

    def _listen(self, ear: Ear, verb: bytes, payload: bytes, deadline: Deadline) -> None:
        """Make a request, again if need be, until it is answered or the rest of its answer does not come."""
        line = request(verb, ear.seq, payload)
        offset = self._console.size
        self._console.send(line, deadline)
        patience, hurt = _PATIENCE, 0
        quiet = deadline.sooner(patience)
        while not ear.reply.ended:
            deadline.check(f"the guest's answer to {verb.decode()}")
            again = False
            try:
                self._console.wait(offset, quiet)
                data = self._console.read(offset)
                offset += len(data)
                if words := heard(data):
                    ear.listen(words)
                    again = ear.reply.hurt
                    quiet = deadline.sooner(_QUIET if ear.in_the_middle else patience)
                else:
                    quiet.check()
            except DeadlineExceeded:
                deadline.check(f"the guest's answer to {verb.decode()}")
                if ear.reply.status is not None:
                    return
                if ear.reply.begun and not ear.in_the_middle:
                    quiet = deadline
                else:
                    again = True
                    patience *= 2
            if again:
                hurt += ear.reply.hurt
                if hurt > _MOST_AGAIN:
                    raise ShellLost(f"the guest's terminal does not take lines of {len(line)} bytes")
                ear.reply.hurt = False
                # Ends what may have arrived of the line before.
                self._console.send(b"\n" + line, deadline)
                ear.asked_again()
                quiet = deadline.sooner(patience)

    # ── when a command does not end ──────────────────────────────────────────────────────────────────────────

    def _interrupt(self) -> None:
        with contextlib.suppress(ConsoleClosed, GuestCrashed, DeadlineExceeded):
            self._console.send(_INTERRUPT, Deadline.after(1.0))

    def _synchronise(self, deadline: Deadline) -> None:
        """After a command that did not end: find the agent again, if it takes SIGQUIT to free it."""
        if not self._stale:
            return
        for key, seconds in ((b"", _GRACE), (_QUIT, _RESYNC)):
            self._console.send(key + b"\n", deadline)
            try:
                self._ask(b"p", b"", deadline.sooner(seconds))
            except DeadlineExceeded:
                deadline.check("the shell to be free again")
            else:
                self._stale = False
                return
        raise ShellLost("a command neither ends nor can be interrupted")

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        """What is lost stays lost, and says so."""
        if self._lost is not None:
            raise ShellLost(self._lost.message)
        try:
            yield
        except ConsoleClosed as error:
            self._lost = ShellLost("the guest's console is gone")
            raise self._lost from error
        except ShellLost as error:
            self._lost = error
            raise

    # ── logging in ───────────────────────────────────────────────────────────────────────────────────────────

    def _log_in(self, deadline: Deadline) -> None:
        for _ in range(_MOST_STARTS):
            self._nonce = secrets.token_hex(4)
            text = agent.agent(self._shell, self._nonce)
            try:
                enter(self._console, self._shell.serial, self._login, text, deadline)
                self._ask(b"p", b"", deadline.sooner(_RESYNC))
            except DeadlineExceeded:
                deadline.check("a shell on the console")
            else:
                return
        raise ShellLost("the guest's shell does not take our commands", hint="see the end of its console")
