"""What a build stumbled over, out of what compiler, assembler, linker and make(1) printed. Pure."""

from __future__ import annotations

import re

_LENGTH = 200

_SOURCES = re.compile(r"(?<![\w.+/-])/usr/src/(?=\S)")
"""Where a tree lies in a build's sandbox, before the name of one of its files."""
_NO_ERROR = re.compile(
    r": (?:warning|note): "
    r"|^\$ "  # a command line
)
_ERROR = re.compile(
    r"\berror: "  # gcc 3.4 and later, clang
    r"|: Error: "  # as(1)
    r"|: (?:undefined reference to|multiple definition of) "
    r"|^[^\s:]+\.\w+:\d+: \S"  # gcc 2.95 calls nothing an error
    r"|don't know how to make|No rule to make target"
)


def shown(text: str) -> str:
    """`text` of a log for people on this host: files by their names in the tree, and of a long line its ends."""
    return "\n".join(_shortened(line) for line in _SOURCES.sub("", text).split("\n"))


def _shortened(line: str) -> str:
    half = _LENGTH // 2 - 1
    return line if len(line) <= _LENGTH else f"{line[:half]} … {line[-half + 1 :]}"


def complaint(text: str) -> str:
    """The first line of `text` that is an error; empty if none looks like one."""
    for line in text.splitlines():
        if _ERROR.search(line) and not _NO_ERROR.search(line):
            return line.strip()[:_LENGTH]
    return ""
