"""Guest bytes as text that is safe to show: what a guest prints is hostile until escaped."""

from __future__ import annotations

import codecs
import functools
import re

_LINE_END = re.compile(rb"(?<!\r)\r*\n")


@functools.lru_cache(maxsize=4096)
def _escape(character: str) -> str:
    if character.isprintable() or character in "\n\t":
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable(data: bytes) -> str:
    r"""`data` as text in which nothing controls a terminal.

    Line ends (any number of CRs before a LF, as serial consoles send them) become `\n`; newlines and tabs stay.
    Everything else that is not printable in Unicode's sense (C0 and C1 controls, escapes, bidirectional and
    zero-width marks, other separators) and every byte that is not UTF-8 becomes a backslash escape.
    """
    text = _LINE_END.sub(b"\n", data).decode("utf-8", errors="backslashreplace")
    return text if text.isprintable() else "".join(map(_escape, text))


class Printable:
    """`printable` for a stream that comes in pieces, wherever they were cut."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> str:
        """What can be said of it by now: all but a line end or a character that may go on."""
        data = self._held + piece
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        decoder.decode(data)
        self._held = decoder.getstate()[0] or data[len(data.rstrip(b"\r")) :]
        return printable(data[: len(data) - len(self._held)])

    def end(self) -> str:
        """The rest."""
        held, self._held = self._held, b""
        return printable(held)
