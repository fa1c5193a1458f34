"""Frames on disk as everybody's tools read them: classic pcap, link type Ethernet, little-endian, microseconds.

The format: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-00.html.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from dfbuild.errors import InfraError

_HEADER = struct.Struct("<IHHiIII")
_RECORD = struct.Struct("<IIII")
_MAGIC = 0xA1B2C3D4
_ETHERNET = 1
_SNAP = 262144


class NotACapture(InfraError):
    """A file is not a pcap file of Ethernet frames, or breaks off."""


@dataclass(frozen=True, slots=True)
class Record:
    """A frame and when it passed, in seconds since the epoch."""

    time: float
    frame: bytes


class Capture:
    """Writes frames to `path` as they pass; for several threads. What was recorded survives a `kill -9`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = threading.Lock()
        # Unbuffered: a record is one write, so that the file is whole whenever the process ends.
        self._file = path.open("wb", buffering=0)
        self._file.write(_HEADER.pack(_MAGIC, 2, 4, 0, 0, _SNAP, _ETHERNET))

    def record(self, frame: bytes, now: float | None = None) -> None:
        """Write `frame`, which passed just now or at `now`. After `close` it does nothing."""
        seconds, micros = divmod(int((time.time() if now is None else now) * 1_000_000), 1_000_000)
        kept = frame[:_SNAP]
        with self._lock:
            if not self._file.closed:
                self._file.write(_RECORD.pack(seconds, micros, len(kept), len(frame)) + kept)

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_capture(path: Path) -> Iterator[Record]:
    """The records of a capture of ours; raises `NotACapture`."""
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or header[:4] != _MAGIC.to_bytes(4, "little"):
            raise NotACapture(f"{path} is not a little-endian pcap file")
        if _HEADER.unpack(header)[6] != _ETHERNET:
            raise NotACapture(f"{path} does not hold Ethernet frames")
        while head := file.read(_RECORD.size):
            if len(head) < _RECORD.size:
                raise NotACapture(f"{path} breaks off in a record's header")
            seconds, micros, length, _ = _RECORD.unpack(head)
            frame = file.read(length)
            if len(frame) < length:
                raise NotACapture(f"{path} breaks off in a frame")
            yield Record(seconds + micros / 1_000_000, frame)
