"""What a plain log says of a run."""

from __future__ import annotations

import io

import pytest

from dfbuild.cli import progress
from dfbuild.matrix.events import StepBegan, StepEnded, StepSaid
from dfbuild.model import Verdict


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_long_step_is_heard_of_now_and_then(clock: list[float]) -> None:
    out = io.StringIO()
    show = progress.Plain(out)
    show(StepBegan("world gcc2"))
    for second in range(1, 100):
        clock[0] = float(second)
        show(StepSaid("world gcc2", f"component {second}"))
    show(StepEnded("world gcc2", Verdict.PASS, "", 99.0, False))
    assert [line.split(maxsplit=1)[1] for line in out.getvalue().splitlines()] == [
        "...        world gcc2: component 30",
        "...        world gcc2: component 60",
        "...        world gcc2: component 90",
        "PASS       world gcc2 (99.0 s)",
    ]


def test_what_a_step_says_cannot_move_the_cursor(clock: list[float]) -> None:
    out = io.StringIO()
    show = progress.Plain(out)
    show(StepBegan("world"))
    clock[0] = 60.0
    show(StepSaid("world", "\x1b[2Jbin/ls"))
    assert "\x1b" not in out.getvalue()
    assert "bin/ls" in out.getvalue()
