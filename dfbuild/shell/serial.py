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
from dfbuild.shell.copy import Incoming, get_script, put_script
from dfbuild.shell.errors import CopyFailed, LoginRefused, ShellLost
from dfbuild.shell.frames import Ear, assembled, heard, request, selection, wanting
from dfbuild.shell.login import Prompts, Seen
from dfbuild.shell.protocol import Answer

LARGEST_PUT = 4 << 20
"""Bytes. A console takes some 100 KB/s; larger files go over SSH or on a disk."""

_ENTER = b"\r"
_INTERRUPT, _QUIT, _SUSPEND = b"\x03", b"\x1c", b"\x1a"
_FREE = (_INTERRUPT + _ENTER, _QUIT + _ENTER, _SUSPEND + _ENTER + b"kill -9 %1" + _ENTER)
"""What frees a console of what runs on it, one after the other: the last one leaves the login shell as the only one
awake. A login prompt takes them for nothing worse than a wrong name."""
_QUIET = 1.0
"""Seconds of silence in the middle of an answer after which it is asked for again."""
_PATIENCE = 3.0
"""Seconds without any answer after which a request is made again; doubled each time."""
_GRACE, _RESYNC = 4.0, 10.0
"""Seconds that an interrupted command has to end, and one that was sent SIGQUIT, too."""
_MOST_AGAIN = 50
"""Times that hurt lines are asked for again before the console counts as lost."""
_MOST_LOGINS = 3
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
        data = source.read_bytes()
        if len(data) > LARGEST_PUT:
            raise UsageError(
                f"{source} is too large for the console: {len(data)} bytes, and {LARGEST_PUT} fit",
                hint="use SSH, or a disk of its own",
            )
        serial = self._shell.serial
        script = put_script(
            serial.decode, target, source.stat().st_mode, self._shell.checksum_command, secrets.token_hex(4)
        )
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
        target.write_bytes(data)
        target.chmod(header.mode)

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
        for _ in range(_MOST_LOGINS):
            self._nonce = secrets.token_hex(4)
            self._start_loader(deadline)
            if self._start_agent(deadline):
                return
        raise ShellLost("the guest's shell does not take our commands", hint="see the end of its console")

    def _start_loader(self, deadline: Deadline) -> None:
        """From whatever is there to a prompt, and the loader's first line behind it."""
        prompts = Prompts.of(self._shell.serial)
        offset = self._console.size
        self._console.send(_ENTER, deadline)
        quiet = deadline.sooner(_PATIENCE)
        text, logins, loading, pokes = b"", 0, False, 0
        while True:
            deadline.check("a login on the console")
            try:
                self._console.wait(offset, quiet)
                data = self._console.read(offset)
                offset += len(data)
                text = (text + data)[-16384:]
                seen = prompts.last(text)
                # The loader is on its way: only it, or silence, is news.
                if seen is None or (loading and seen is not Seen.READY):
                    quiet.check()
                    continue
            except DeadlineExceeded:
                deadline.check("a login on the console")
                seen, loading = None, False
            if seen is Seen.READY:
                return
            logins += seen is Seen.LOGIN
            if logins > _MOST_LOGINS:
                raise LoginRefused(f"the guest does not let {self._login.user!r} in on its console")
            self._console.send(self._reaction(seen) or _FREE[pokes % len(_FREE)], deadline)
            loading = seen is Seen.PROMPT
            pokes += seen is None
            text, quiet = b"", deadline.sooner(_PATIENCE)

    def _reaction(self, seen: Seen | None) -> bytes:
        """What to type; nothing where only force helps."""
        match seen:
            case Seen.LOGIN:
                return self._login.user.encode() + _ENTER
            case Seen.PASSWORD if self._login.password is not None:
                return self._login.password.encode() + _ENTER
            case Seen.PROMPT:
                return agent.LOADER.encode()
            case Seen.AGENT:
                return agent.QUIT
            case _:
                return b""

    def _start_agent(self, deadline: Deadline) -> bool:
        """Give the loader the agent's text; whether the agent answers then."""
        *lines, end = agent.loader_pieces(agent.agent(self._shell, self._nonce), self._payload)
        try:
            for line in lines:
                self._load(line, deadline.sooner(_PATIENCE))
            self._console.send(end, deadline)
            self._ask(b"p", b"", deadline.sooner(_RESYNC))
        except DeadlineExceeded:
            deadline.check("the shell's start")
            self._console.send(_INTERRUPT, deadline)
            return False
        return True

    def _load(self, line: bytes, deadline: Deadline) -> None:
        offset = self._console.size
        self._console.send(line, deadline)
        while True:
            self._console.wait(offset, deadline)
            data = self._console.read(offset)
            offset += len(data)
            if agent.TAKEN in heard(data):
                return
            deadline.check("the shell's start")
