"""Copying a file: the guest's side as shell commands (pure functions), and care for the host's side."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dfbuild.errors import InfraError

_MODE = re.compile(rb"[-bcdlps]([-r][-w][-xsS])([-r][-w][-xsS])([-r][-w][-xtT])")


def put_script(receive: str, target: str, mode: int, checksum_command: str, nonce: str) -> str:
    """Make `target` of what `receive` reads from standard input, and print its checksum.

    The file appears under its name only when it is whole.
    """
    whole = shlex.quote(target)
    part = shlex.quote(f"{target}.dfb-{nonce}")
    return (
        f"if [ -d {whole} ]; then echo {whole}: is a directory; exit 1; fi; "
        f"{receive} > {part} && chmod {mode & 0o7777:o} {part} && {checksum_command} < {part} && "
        f"mv -f {part} {whole} || {{ rm -f {part}; exit 1; }}"
    )


def get_script(source: str, checksum_command: str) -> str:
    """Print mode, checksum, and then the bytes of `source`: what `Header` reads."""
    name = shlex.quote(source)
    return (
        f"if [ ! -f {name} ]; then echo {name}: no such file; exit 1; fi; "
        f"ls -ldL {name} | sed 's/ .*//;q' && {checksum_command} < {name} && cat {name}"
    )


def mode_of(text: bytes) -> int | None:
    """The permission bits of what ls(1) prints: `-rwsr-xr-x` is 0o4755."""
    match = _MODE.match(text)
    if match is None:
        return None
    mode = 0
    for shift, special, letters in zip((6, 3, 0), (0o4000, 0o2000, 0o1000), match.groups(), strict=True):
        read, write, execute = tuple(letters.decode())
        mode |= ((read == "r") * 4 + (write == "w") * 2 + (execute in "xst")) << shift
        mode |= special if execute in "sStT" else 0
    return mode


@dataclass(frozen=True, slots=True)
class Header:
    """The first two lines of what `get_script` prints. `mode` is what the copy gets: the guest's root is not ours,
    so nothing that it says makes a program run as somebody else here."""

    mode: int
    checksum: str

    @classmethod
    def parse(cls, lines: bytes) -> Header | None:
        """From the two lines; None for anything else."""
        first, _, second = lines.partition(b"\n")
        mode, words = mode_of(first), second.split()
        return cls(mode & 0o777, words[0].decode(errors="replace")) if mode is not None and words else None


class Incoming:
    """Follows what `get_script` prints, in pieces of any size: the header, then bytes, given to `sink`."""

    _MOST = 64 << 10

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self._head = b""
        self.header: Header | None = None

    @property
    def text(self) -> str:
        """What came instead of a header."""
        return self._head.decode(errors="replace").strip()

    def feed(self, data: bytes) -> None:
        if self.header is not None:
            self._sink(data)
            return
        self._head += data
        if self._head.count(b"\n") >= 2:
            first, second, rest = self._head.split(b"\n", 2)
            self.header = Header.parse(first + b"\n" + second)
            if self.header is not None and rest:
                self._sink(rest)
        self._head = self._head[: self._MOST]


@contextlib.contextmanager
def on_host(path: Path) -> Iterator[None]:
    """Operating system errors inside become an `InfraError` about `path`."""
    try:
        yield
    except OSError as error:
        raise InfraError(f"cannot copy {path} on this machine: {error.strerror or error}") from error


@contextlib.contextmanager
def arriving(target: Path) -> Iterator[Path]:
    """Where to write what becomes `target` when the block ends well; nothing is left of it otherwise."""
    part = target.with_name(f".{target.name}.part")
    try:
        with on_host(target):
            yield part
            part.rename(target)
    finally:
        part.unlink(missing_ok=True)
