"""How a command runs over an SSH channel: what the channel executes, what is written first, what comes back. Pure.

The channel's command line is the same for every command, so that no limit of a server (dropbear: 9,000 bytes) and
no quoting of a login shell (csh) matters: the command itself goes ahead of standard input, as one escaped line. Its
end is told by a mark behind the output, and not by the channel's end: a process left in the background may hold the
channel for ever.
"""

from __future__ import annotations

import re

from dfbuild.errors import UsageError
from dfbuild.shell.coding import escape
from dfbuild.shell.errors import ShellLost

LONGEST = 64 << 10
"""Bytes of an escaped command: the kernel ends one argument at 128 KiB (Linux) or all of them at 256 KiB (BSD)."""

_DIGITS = 9
_NUMBER = re.compile(rb"(\d{1,%d})\n" % _DIGITS)


def channel_command(path: str) -> str:
    """What every channel executes. Valid for sh and csh alike."""
    return (
        f"exec sh -c 'PATH={path};export PATH;exec 2>&1;IFS= read -r n;IFS= read -r c;"
        'echo "$n $$";sh -c " `printf "$c"`";echo "$n $?"\''
    )


def preface(nonce: str, script: bytes) -> bytes:
    """What goes ahead of standard input; raises `UsageError` for a command that is too long."""
    escaped = escape(script)
    if len(escaped) > LONGEST:
        raise UsageError(
            f"a command of {len(script)} bytes is too long", hint="put it into the guest as a file and run that"
        )
    return nonce.encode() + b"\n" + escaped + b"\n"


def reaper(pid: int, processes: str) -> str:
    """A shell command that ends all that process `pid` has started, in the background: SIGINT, a second later
    SIGKILL, then `pid` itself. `processes` prints every process and its parent."""
    find = (
        f"awk -v r={pid} '{{p[$1]=$2}}"
        "END{for(i in p){j=i;n=0;while(j in p&&j!=r&&n++<1000)j=p[j];if(j==r&&i!=r)print i}}'"
    )
    return (
        f"k() {{ kill -s $1 `{processes}|{find}`; }}; "
        f"{{ k INT; sleep 1; k KILL; kill -s KILL {pid}; }} </dev/null >/dev/null 2>&1 &"
    )


class Marks:
    """Takes a channel's output apart: the line with the process id, the command's own bytes, the mark and status.

    Bytes come in pieces of any size; `feed` returns those that surely are output. It raises `ShellLost` for a shell
    that says something else.
    """

    def __init__(self, nonce: str) -> None:
        self.nonce = nonce
        self._mark = nonce.encode() + b" "
        self._held = b""
        self.pid: int | None = None
        self.status: int | None = None

    def feed(self, data: bytes) -> bytes:
        if self.status is not None:
            return b""
        self._held += data
        if self.pid is None and not self._begin():
            return b""
        # The mark is the last thing of the stream, so its first byte is sought near the end only.
        at = self._held.find(self._mark)
        while at >= 0:
            number = self._number(at)
            if number is not None:
                self.status = number
                out, self._held = self._held[:at], b""
                return out
            if self._may_go_on(at):
                out, self._held = self._held[:at], self._held[at:]
                return out
            at = self._held.find(self._mark, at + 1)
        # What may be the mark's beginning waits; nothing else does, for somebody may be watching.
        keep = next((n for n in range(len(self._mark) - 1, 0, -1) if self._held.endswith(self._mark[:n])), 0)
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        return out

    def _begin(self) -> bool:
        """Drop what a login shell's own files may have printed before the first mark."""
        at = self._held.find(self._mark)
        if at < 0:
            self._held = self._held[-len(self._mark) :]
            return False
        self.pid = self._number(at)
        if self.pid is not None:
            self._held = self._held[at:].partition(b"\n")[2]
            return True
        if not self._may_go_on(at):
            raise ShellLost("the guest's shell does not say which process it is")
        self._held = self._held[at:]
        return False

    def _number(self, at: int) -> int | None:
        """The number of the mark at `at`, if that is one, and whole."""
        found = _NUMBER.match(self._held, at + len(self._mark))
        return int(found[1]) if found else None

    def _may_go_on(self, at: int) -> bool:
        """Whether what is behind `at` may be the beginning of a mark."""
        rest = self._held[at + len(self._mark) : at + len(self._mark) + _DIGITS + 1]
        return len(rest) <= _DIGITS and (not rest or rest.isdigit())
