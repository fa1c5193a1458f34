"""Bytes as text that survives a terminal and any POSIX shell, and the checksums that guests know. All pure."""

from __future__ import annotations

import binascii
import hashlib
import zlib
from collections.abc import Callable, Iterator
from typing import Literal, Protocol

from dfbuild.errors import UsageError

Checksum = Literal["cksum", "crc32", "md5", "sha256"]
Coding = Literal["base64", "uuencode"]

# What printf(1) prints as itself, and no shell, terminal or field splitting takes for something else.
_NAMED = 60
"""Characters of a command that messages name."""
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./,:=+@{}()[]<>;&|?*#^~"
# Old ones (4.4BSD's) resolve escapes before they look for `%`, and take four digits for one that begins with 0.
_OCTAL = tuple(b"\\%03o" % b for b in range(256))
_SPECIAL = {0x0A: b"\\n", 0x25: b"%%"}
_TOKENS = tuple(bytes((b,)) if b in _PLAIN else _SPECIAL.get(b, _OCTAL[b]) for b in range(256))

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def escape(data: bytes) -> bytes:
    """`data` as a format of printf(1): one word of harmless ASCII, whatever the bytes are.

    Printfs that resolve escapes first end at a NUL.
    """
    return b"".join(_tokens(data))


def pieces(data: bytes, limit: int) -> Iterator[bytes]:
    """`escape(data)` in pieces of at most `limit` bytes, none of which cuts an escape in two."""
    held: list[bytes] = []
    size = 0
    for token in _tokens(data):
        if size + len(token) > limit:
            yield b"".join(held)
            held, size = [], 0
        held.append(token)
        size += len(token)
    yield b"".join(held)


def _tokens(data: bytes) -> Iterator[bytes]:
    """What each byte is printed by. A digit after an escape that begins with 0 is one more of these."""
    begun = False
    for byte in data:
        token = _OCTAL[byte] if begun and 0x30 <= byte <= 0x37 else _TOKENS[byte]
        begun = token.startswith(b"\\0")
        yield token


def command_bytes(command: str) -> bytes:
    """A shell command as it goes to the guest; raises `UsageError` for what no shell takes."""
    if "\0" in command:
        raise UsageError("a shell command cannot contain a NUL", hint="give binary data as standard input")
    return command.encode(errors="surrogateescape")


def shortened(command: str) -> str:
    """A command as messages name it: the beginning of its last line, before which stands what prepares for it."""
    line = command.strip().rpartition("\n")[2]
    return f"`{line}`" if len(line) <= _NAMED else f"`{line[:_NAMED]}…`"


# ── text lines of any bytes ──────────────────────────────────────────────────────────────────────────────────────


def encode(data: bytes, coding: Coding) -> bytes:
    """What the guest's decoding filter takes on its standard input to give back `data`."""
    if coding == "base64":
        chunks = (data[at : at + 57] for at in range(0, len(data), 57))
        return b"".join(binascii.b2a_base64(chunk) for chunk in chunks)
    chunks = (data[at : at + 45] for at in range(0, len(data), 45))
    lines = b"".join(binascii.b2a_uu(chunk, backtick=True) for chunk in chunks)
    return b"begin 644 -\n" + lines + b"`\nend\n"


def decode(text: bytes, coding: Coding) -> bytes:
    """What the guest's encoding filter was given, with the lines of `uuencode -m` or without; raises ValueError."""
    lines = text.splitlines()
    if coding == "base64":
        payload = [line for line in lines if not line.startswith((b"begin-base64 ", b"===="))]
        return binascii.a2b_base64(b"".join(payload), strict_mode=True) if payload else b""
    return b"".join(
        binascii.a2b_uu(line) for line in lines if line and line != b"end" and not line.startswith(b"begin ")
    )


# ── checksums ────────────────────────────────────────────────────────────────────────────────────────────────────


class Digest(Protocol):
    """A checksum that grows with the data."""

    def update(self, data: bytes, /) -> None: ...

    def text(self) -> str:
        """As the guest's program prints it."""
        ...


class _Crc32:
    """The reflected CRC of zlib and Ethernet, printed in hexadecimal."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def text(self) -> str:
        return f"{self._value:08x}"


class _Cksum:
    """The CRC of POSIX cksum(1): the same polynomial as zlib's with the bits the other way round, begun with 0, and
    the length appended. So zlib does the work on reversed bytes."""

    def __init__(self) -> None:
        self._value = 0xFFFFFFFF
        self._size = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data.translate(_REVERSED), self._value)
        self._size += len(data)

    def text(self) -> str:
        length = self._size.to_bytes((self._size.bit_length() + 7) // 8, "little")
        value = zlib.crc32(length.translate(_REVERSED), self._value)
        return str(int(f"{value:032b}"[::-1], 2))


class _Hash:
    def __init__(self, name: str) -> None:
        self._hash = hashlib.new(name, usedforsecurity=False)

    def update(self, data: bytes, /) -> None:
        self._hash.update(data)

    def text(self) -> str:
        return self._hash.hexdigest()


_DIGESTS: dict[Checksum, Callable[[], Digest]] = {
    "cksum": _Cksum,
    "crc32": _Crc32,
    "md5": lambda: _Hash("md5"),
    "sha256": lambda: _Hash("sha256"),
}


def digest(checksum: Checksum) -> Digest:
    """An empty checksum of that kind."""
    return _DIGESTS[checksum]()


def checksum_of(data: bytes, checksum: Checksum) -> str:
    """The checksum of `data` as the guest's program prints it: its first word."""
    whole = digest(checksum)
    whole.update(data)
    return whole.text()
