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

_NUMBER = re.compile(rb"\d{1,9}")


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
            number, newline, _ = self._held[at + len(self._mark) :].partition(b"\n")
            if newline and _NUMBER.fullmatch(number):
                self.status = int(number)
                out, self._held = self._held[:at], b""
                return out
            if not newline:
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
        number, newline, rest = self._held[at + len(self._mark) :].partition(b"\n")
        if not newline:
            self._held = self._held[at:]
            return False
        if not _NUMBER.fullmatch(number):
            raise ShellLost("the guest's shell does not say which process it is")
        self.pid, self._held = int(number), rest
        return True
