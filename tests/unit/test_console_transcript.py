"""Transcripts come back as they were written, with the time of every byte."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.console import transcript
from dfbuild.console.transcript import Recorder, Stamp, Times, excerpt, read


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "console.log"


def record(log: Path, *chunks: bytes) -> None:
    recorder = Recorder(log, time.monotonic())
    for chunk in chunks:
        recorder.append(chunk, time.monotonic())
    recorder.close()


@given(chunks=st.lists(st.binary(min_size=1, max_size=50), max_size=20))
def test_bytes_are_kept_as_they_came(tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]) -> None:
    log = tmp_path_factory.mktemp("transcript") / "console.log"
    record(log, *chunks)
    assert log.read_bytes() == b"".join(chunks)
    assert read(log, 3, 5) == b"".join(chunks)[3:8]


def test_every_byte_has_its_time(log: Path) -> None:
    power_on = time.monotonic()
    recorder = Recorder(log, power_on)
    recorder.append(b"one\n", power_on + 1.5)
    recorder.append(b"two\n", power_on + 2.25)
    recorder.close()
    times = Times(log)
    assert [times.at(offset).seconds for offset in (0, 3, 4, 7)] == pytest.approx([1.5, 1.5, 2.25, 2.25])
    assert times.at(5).wall == pytest.approx(time.time() + 2.25, abs=1.0)


def test_chunks_within_a_millisecond_share_a_record(log: Path) -> None:
    power_on = time.monotonic()
    recorder = Recorder(log, power_on)
    for byte, seconds in zip(b"abcde", (1.0, 1.0002, 1.0004, 1.002, 1.0021), strict=True):
        recorder.append(bytes([byte]), power_on + seconds)
    recorder.close()
    assert transcript.times_path(log).stat().st_size == 24 * 3
    assert [round(Times(log).at(offset).seconds, 4) for offset in range(5)] == [1.0, 1.0, 1.0, 1.002, 1.002]


def test_a_half_written_record_is_ignored(log: Path) -> None:
    record(log, b"something\n")
    index = transcript.times_path(log)
    index.write_bytes(index.read_bytes() + b"\x01\x02")
    assert Times(log).at(0).seconds == Times(log).at(9).seconds


def test_a_transcript_without_index_is_still_shown(log: Path) -> None:
    log.write_bytes(b"a\r\nb")
    assert excerpt(log, 0) == "a\nb" and Times(log).at(1) == Stamp(0.0, 0.0)


def test_excerpt_around_a_line(log: Path) -> None:
    record(log, b"".join(b"line %d\r\n" % n for n in range(100)))
    offset = log.read_bytes().index(b"line 50")
    assert excerpt(log, offset, before=2, after=1) == "line 48\nline 49\nline 50\nline 51"
    assert excerpt(log, offset, after=0) == "line 50"
    assert excerpt(log, 0, before=5, after=0) == "line 0"


def test_an_excerpt_is_bounded(log: Path) -> None:
    record(log, b"y" * 100_000)
    assert len(excerpt(log, 50_000, before=3, limit=1000)) <= 1000
