"""The kernel's own debugger, in which a crash may have left a guest: asked for its trace."""

from __future__ import annotations

import contextlib

from dfbuild.console.protocol import ConsoleClosed
from dfbuild.console.reader import ConsoleReader
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded
from dfbuild.releases.schema import Debugger

_PROMPT_SECONDS = 1.0
"""How long after a crash its prompt is waited for."""
_TRACE_SECONDS = 5.0


def trace(console: ConsoleReader, debugger: Debugger, deadline: Deadline) -> bool:
    """Have the debugger print who called whom, behind what the console shows of the crash. Returns, once its prompt
    is there again, whether it did."""
    prompt = debugger.prompt.encode()
    with contextlib.suppress(ConsoleClosed, DeadlineExceeded):
        _await(console, prompt, 0, deadline.sooner(_PROMPT_SECONDS))
        since = console.size
        console.send(debugger.trace.encode(), deadline)
        _await(console, prompt, since + 1, deadline.sooner(_TRACE_SECONDS))
        return True
    return False


def _await(console: ConsoleReader, prompt: bytes, since: int, deadline: Deadline) -> None:
    """Return once the last that was printed, from `since` on, is `prompt`."""

    def prompted() -> bool:
        if console.closed:
            raise ConsoleClosed("the guest's console has ended")
        return console.read(max(since, console.size - len(prompt))) == prompt

    with console.changed:
        deadline.wait(console.changed, prompted, what="the prompt of the kernel's debugger")
