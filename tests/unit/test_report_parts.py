"""The small parts of reports: excerpts, plots, words."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.console.transcript import Times
from dfbuild.model import StageReached
from dfbuild.report.excerpt import AFTER, BEFORE, ConsoleLine, annotated, console_lines
from dfbuild.report.plots import span, strip, timeline
from dfbuild.report.text import duration, figure, flatten, plural, safe, safe_line


def log_of(tmp_path: Path, data: bytes, times: bool = False) -> Path:
    log = tmp_path / "console.log"
    log.write_bytes(data)
    if times:
        rows = [(0, 0, 0), *((offset, offset * 1_000_000, 0) for offset in range(0, len(data), 10))]
        (tmp_path / "console.times").write_bytes(b"".join(struct.pack("<Qqq", *row) for row in rows))
    return log


def lines(log: Path, begin: int, end: int) -> tuple[ConsoleLine, ...]:
    return console_lines(log, Times(log), begin, end)


NUMBERED = b"".join(b"line %06d\r\n" % number for number in range(2000))
EACH = len(b"line 000000\r\n")


def test_a_place_shows_lines_around_it_and_their_times(tmp_path: Path) -> None:
    log = log_of(tmp_path, NUMBERED, times=True)
    found = lines(log, 100 * EACH, 100 * EACH)
    assert [line.text for line in found] == [f"line {number:06d}" for number in range(100 - BEFORE, 100 + AFTER)]
    assert [line.inside for line in found] == [False] * BEFORE + [True] * AFTER
    assert found[BEFORE].seconds == pytest.approx(1.3, abs=0.01)


def test_a_wheel_that_turns_hides_nothing(tmp_path: Path) -> None:
    log = log_of(tmp_path, b"|\x08/\x08-\x08\\\x08" * 2000 + b"Start @ 0xffffffff80200000\r\n")
    assert [line.text for line in lines(log, 0, 0)] == ["Start @ 0xffffffff80200000"]


def test_without_an_index_no_time_is_made_up(tmp_path: Path) -> None:
    assert {line.seconds for line in lines(log_of(tmp_path, NUMBERED), 0, 0)} == {None}


def test_a_long_span_shows_its_beginning_and_its_end(tmp_path: Path) -> None:
    log = log_of(tmp_path, NUMBERED)
    shown = [line.text for line in lines(log, 10 * EACH, 200 * EACH) if line.inside]
    assert shown[0] == "line 000010" and shown[-1] == "line 000199" and any("left out" in text for text in shown)
    assert len(shown) < 2 * AFTER


def test_a_flood_is_not_read_whole(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    with log.open("wb") as file:
        file.write(b"first\n")
        file.truncate(1 << 40)  # sparse: reading it whole would not end
    found = lines(log, 0, 1 << 40)
    assert found[0].text == "first" and sum(len(line.text) for line in found) < 50_000


def test_a_crash_is_shown_with_what_its_addresses_stand_for() -> None:
    before, *inside = (
        ConsoleLine(1.0, "booting", inside=False), ConsoleLine(2.0, "panic: x"), ConsoleLine(2.0, ""),
        ConsoleLine(2.0, "f() at f+0x1 0x80000001 "), ConsoleLine(2.0, "of another moment"),
        ConsoleLine(2.0, "last"),
    )  # fmt: skip
    excerpt = ["panic: x", "", "f() at f+0x1 0x80000001 (kern/f.c:3) ", "db> trace"]
    shown = annotated((before, *inside), excerpt)
    assert [line.text for line in shown] == [
        "booting", "panic: x", "", "f() at f+0x1 0x80000001 (kern/f.c:3) ", "of another moment", "last",
    ]  # fmt: skip
    assert [line.seconds for line in shown] == [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]


def test_beyond_the_end_are_the_last_lines(tmp_path: Path) -> None:
    found = lines(log_of(tmp_path, NUMBERED), 2**62, 2**62)
    assert found[-1].text == "line 001999" and len(found) == BEFORE + AFTER
    assert lines(log_of(tmp_path, b""), 5, 9) == ()


@given(data=st.binary(max_size=400), begin=st.integers(0, 500), end=st.integers(0, 500))
def test_any_bytes_and_any_span_give_bounded_safe_lines(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, begin: int, end: int
) -> None:
    log = log_of(tmp_path_factory.mktemp("any"), data)
    for line in lines(log, begin, end):
        assert all(character.isprintable() or character == "\t" for character in line.text)


@given(st.text(st.characters(exclude_categories=()), max_size=200), st.integers(1, 100))
def test_safe_text_controls_nothing(text: str, limit: int) -> None:
    assert all(character.isprintable() or character in "\n\t" for character in safe(text, limit))
    line = safe_line(text, limit)
    assert line.isprintable() and len(line) <= limit


def test_safe_leaves_honest_text_alone() -> None:
    assert safe("assert 3 == 4\n  naïve → ×2") == "assert 3 == 4\n  naïve → ×2"
    assert "characters left out" in safe("x" * 100, 10)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=300))
def test_dots_stay_on_their_strip_and_ends_are_drawn(values: list[float]) -> None:
    drawn = strip(values, span(values))
    assert all(0 <= dot <= 100 for dot in (*drawn.dots, drawn.middle)) and len(drawn.dots) <= 60
    if max(values) - min(values) > 1e-3:
        assert drawn.dots[0] == 0 and drawn.dots[-1] == 100


@given(st.lists(st.floats(0, 1000), max_size=8), st.floats(0, 1000))
def test_a_timeline_stays_on_its_scale(seconds: list[float], more: float) -> None:
    stages = [StageReached(f"s{number}", at, 0) for number, at in enumerate(seconds)]
    longest = max([*seconds, more])
    for segment in timeline(stages, longest):
        assert segment.begin >= 0 and segment.width >= 0 and segment.begin + segment.width <= 100.02


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.00 s"),
        (0.42, "0.42 s"),
        (7.31, "7.3 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (4330, "1 h 12 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_words() -> None:
    assert [figure(value) for value in (0, 0.01234, 12.34, 1234.5, 2.5e9)] == [
        "0",
        "0.0123",
        "12.3",
        "1234",
        "2.5e+09",
    ]
    assert plural(1, "cell") == "1 cell" and plural(2, "cell") == "2 cells"
    facts = {"elf": {"guards": 3, "names": ["a", "b"]}, "ok": True, "none": None}
    assert flatten(facts) == [("elf.guards", "3"), ("elf.names", "a, b"), ("ok", "yes"), ("none", "–")]
