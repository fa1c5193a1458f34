"""From whatever is on a console to an agent at work there."""

from __future__ import annotations

from dfbuild.console.protocol import Console
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded
from dfbuild.model import Login
from dfbuild.releases.schema import SerialShell as SerialData
from dfbuild.shell.agent import LOADER, QUIT, TAKEN, loader_pieces
from dfbuild.shell.errors import LoginRefused
from dfbuild.shell.frames import heard
from dfbuild.shell.login import Prompts, Seen

_ENTER = b"\r"
_INTERRUPT = b"\x03"
_FREE = (_INTERRUPT + _ENTER, b"\x1c" + _ENTER, b"\x1a" + _ENTER + b"kill -9 %1" + _ENTER)
"""What frees a console of what runs on it, one by one: SIGINT, SIGQUIT, and then a stop that leaves only the
login shell awake. A login prompt takes them for nothing worse than a wrong name."""
_PATIENCE = 3.0
"""Seconds without a prompt after which more is done to get one."""
_MOST_LOGINS = 3
_OVERHEAD = 10


def enter(console: Console, data: SerialData, login: Login, agent: bytes, deadline: Deadline) -> None:
    """Log in if need be, and start the agent. Raises `LoginRefused`, and `DeadlineExceeded` also when an attempt
    was in vain though `deadline` has not passed; another one may do."""
    _start_loader(console, data, login, deadline)
    *lines, end = loader_pieces(agent, data.line - _OVERHEAD)
    try:
        for line in lines:
            _load(console, line, deadline.sooner(_PATIENCE, what="the shell's start"))
    except DeadlineExceeded:
        console.send(_INTERRUPT, deadline)
        raise
    console.send(end, deadline)


def _start_loader(console: Console, data: SerialData, login: Login, deadline: Deadline) -> None:
    """To a prompt, and the loader's line behind it, until that says that it is ready."""
    prompts = Prompts.of(data)
    offset = console.size
    console.send(_ENTER, deadline)
    quiet = deadline.sooner(_PATIENCE)
    text, logins, loading, pokes = b"", 0, False, 0
    while True:
        deadline.check("a login on the console")
        seen: Seen | None
        try:
            console.wait(offset, quiet)
            printed = console.read(offset)
            offset += len(printed)
            text = (text + printed)[-16384:]
            seen = prompts.last(text)
            # The loader is on its way: only it, or silence, is news.
            if seen is None or (loading and seen is not Seen.READY):
                quiet.check()
                continue
        except DeadlineExceeded:
            deadline.check("a login on the console")
            seen = None
        if seen is Seen.READY:
            return
        logins += seen is Seen.LOGIN and prompts.asks(text)
        if logins > _MOST_LOGINS:
            raise LoginRefused(f"the guest does not let {login.user!r} in on its console")
        console.send(_reaction(seen, login) or _FREE[pokes % len(_FREE)], deadline)
        loading = seen is Seen.PROMPT
        pokes += seen is None
        text, quiet = b"", deadline.sooner(_PATIENCE)


def _reaction(seen: Seen | None, login: Login) -> bytes:
    """What to type; nothing where only force helps."""
    match seen:
        case Seen.LOGIN:
            return login.user.encode() + _ENTER
        case Seen.PASSWORD if login.password is not None:
            return login.password.encode() + _ENTER
        case Seen.PROMPT:
            return LOADER.encode()
        case Seen.AGENT:
            return QUIT
        case _:
            return b""


def _load(console: Console, line: bytes, deadline: Deadline) -> None:
    """Type a line of the agent's text, and wait until the loader has taken it."""
    offset = console.size
    console.send(line, deadline)
    while True:
        console.wait(offset, deadline)
        printed = console.read(offset)
        offset += len(printed)
        if TAKEN in heard(printed):
            return
        deadline.check()
