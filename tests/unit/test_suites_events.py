"""What goes over the pipe from the suites' process."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.errors import InfraError
from dfbuild.model import Better, CheckResult, Expectation, Outcome, Sample
from dfbuild.suites.events import CheckEvent, EndEvent, Event, Reporter, ResultEvent, decode, encode

text = st.text(st.characters(exclude_categories=["Cs"]))
samples = st.builds(
    Sample,
    text,
    text,
    st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(tuple),
    st.sampled_from(Better),
)
results = st.builds(
    CheckResult,
    check=text,
    outcome=st.sampled_from(Outcome),
    expected=st.sampled_from(Expectation),
    reason=text,
    detail=text,
    duration=st.floats(0, 1e6),
    samples=st.lists(samples).map(tuple),
    console=st.tuples(st.integers(0), st.integers(0)),
    facts=st.dictionaries(text, text),
)
events = st.one_of(st.builds(CheckEvent, text), st.builds(ResultEvent, results), st.builds(EndEvent, text))


@given(events)
def test_an_event_survives_the_pipe(event: Event) -> None:
    line = encode(event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == event


def test_what_is_not_text_is_replaced() -> None:
    event = decode(encode(ResultEvent(CheckResult("a/b", Outcome.FAIL, detail="broken \udcff byte"))))
    assert event == ResultEvent(CheckResult("a/b", Outcome.FAIL, detail="broken ? byte"))


@pytest.mark.parametrize(
    "line",
    [b"", b"hello", b"[]", b"7", b'{"event": "dance"}', b'{"event": "start"}', b'{"event": "result"}', b"\xff"],
)
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(InfraError, match="no event"):
        decode(line)


def test_a_result_with_an_unknown_outcome_is_refused() -> None:
    line = encode(ResultEvent(CheckResult("a/b", Outcome.PASS))).replace(b'"pass"', b'"splendid"', 1)
    with pytest.raises(InfraError, match="no event"):
        decode(line)


def test_the_reporter_writes_all_of_it() -> None:
    read, write = os.pipe()
    report = Reporter(write)
    report(CheckEvent("a/b"))
    report(EndEvent())
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert [decode(line) for line in pipe] == [CheckEvent("a/b"), EndEvent()]
    Reporter(None)(EndEvent())


def test_a_hang_is_told_apart_from_a_crash() -> None:
    assert decode(encode(EndEvent("it no longer answers", hung=True))) == EndEvent("it no longer answers", True)
    assert decode(encode(EndEvent("panic: oops"))) == EndEvent("panic: oops", False)
