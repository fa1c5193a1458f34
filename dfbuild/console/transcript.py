"""The transcript on disk: `console.log` byte for byte, and `console.times`, when each byte came.

The index is a row of 24-byte little-endian records (offset, monotonic ns, wall ns). The first one is power-on;
each later one says that the bytes from `offset` on came at that time. Chunks that come within a millisecond share
a record, so a UART that hands over byte by byte costs 24 KB of index a second at most.
"""

from __future__ import annotations

import bisect
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from dfbuild.console.text import printable

__all__ = ["Recorder", "Stamp", "Times", "excerpt", "printable", "read", "times_path"]

_RECORD = struct.Struct("<Qqq")
_APART_NS = 1_000_000


def times_path(log: Path) -> Path:
    """Where the index of the transcript `log` lies."""
    return log.with_suffix(".times")


class Recorder:
    """Writes a transcript. Its methods raise `OSError` as the file system does (a full disk above all)."""

    def __init__(self, log: Path, power_on: float) -> None:
        """Start a new transcript in `log`; `power_on` is in the clock of `time.monotonic()`."""
        self.path = log
        self.size = 0
        self._last_ns = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._log = os.open(log, flags, 0o644)
        self._times = os.open(times_path(log), flags, 0o644)
        mono, wall = time.monotonic_ns(), time.time_ns()
        start = int(power_on * 1e9)
        _write(self._times, _RECORD.pack(0, start, wall - (mono - start)))

    def append(self, chunk: bytes, when: float) -> None:
        """Add what came at `when`, in the clock of `time.monotonic()`."""
        came = int(when * 1e9)
        if came - self._last_ns >= _APART_NS:
            wall = time.time_ns() - (time.monotonic_ns() - came)
            _write(self._times, _RECORD.pack(self.size, came, wall))
            self._last_ns = came
        _write(self._log, chunk)
        self.size += len(chunk)

    def close(self) -> None:
        os.close(self._log)
        os.close(self._times)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read(log: Path, offset: int, limit: int) -> bytes:
    """Up to `limit` bytes of the transcript from `offset`."""
    with log.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(max(0, limit)) or b""


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a byte came: seconds after power-on, and seconds since the epoch."""

    seconds: float
    wall: float


class Times:
    """The index of a transcript, read once."""

    def __init__(self, log: Path) -> None:
        path = times_path(log)
        raw = path.read_bytes() if path.exists() else b""
        # A record that a killed writer left half written is not one.
        whole = len(raw) - len(raw) % _RECORD.size
        self._records = list(_RECORD.iter_unpack(raw[:whole]))
        self._offsets = [record[0] for record in self._records]

    def at(self, offset: int) -> Stamp:
        """When the byte at `offset` came; power-on for a transcript without an index."""
        if not self._records:
            return Stamp(0.0, 0.0)
        _, mono, wall = self._records[max(0, bisect.bisect_right(self._offsets, offset) - 1)]
        return Stamp((mono - self._records[0][1]) / 1e9, wall / 1e9)


def excerpt(log: Path, offset: int, *, before: int = 0, after: int = 80, limit: int = 16384) -> str:
    """Safe text of the line at `offset`, `before` lines ahead of it and `after` behind, at most `limit` bytes."""
    with log.open("rb") as file:
        back = min(offset, limit // 2)
        file.seek(offset - back)
        ahead = file.read(back)
        lines = file.read(limit - back).splitlines(keepends=True)[: after + 1]
    # The piece that a cut at `limit` leaves of a first line is not a line.
    whole = ahead if back == offset else ahead.partition(b"\n")[2]
    kept = whole.splitlines(keepends=True)[-before:] if before else []
    return printable(b"".join(kept + lines)).rstrip("\n")
