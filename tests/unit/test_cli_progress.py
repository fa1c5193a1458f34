"""What a plain log says of a run."""

from __future__ import annotations

import io

import pytest

from dfbuild.cli import progress
from dfbuild.matrix.events import CellBegan, CellEnded, StepBegan, StepEnded, StepSaid
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


def test_what_is_silent_is_heard_of_too_until_it_ends(clock: list[float]) -> None:
    out = io.StringIO()
    show = progress.Plain(out)
    show(StepBegan("toolchain gcc80"))
    show(StepSaid("toolchain gcc80", "libbackend"))
    show(CellBegan("a @ up", 1))
    for second in range(1, 300):
        clock[0] = float(second)
        if second == 200:
            show(CellEnded("a @ up", Verdict.PASS, "", 200.0))
        show.remind(clock[0])
    show(StepEnded("toolchain gcc80", Verdict.PASS, "", 300.0, False))
    clock[0] = 900.0
    show.remind(clock[0])
    assert [line.split(maxsplit=1)[1] for line in out.getvalue().splitlines()] == [
        "...        toolchain gcc80: libbackend",
        "...        a @ up",
        "PASS       a @ up (200.0 s)",
        "...        toolchain gcc80: libbackend",
        "PASS       toolchain gcc80 (300.0 s)",
    ]


def test_things_of_one_name_are_shown_beside_each_other() -> None:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=io.StringIO())) as bars:
        show = progress.Live(bars, bars.add_task("", total=None))
        for _ in range(2):
            show(StepBegan("tools host kit"))
        show(StepEnded("tools host kit", Verdict.PASS, "", 1.0, False))
        show(StepSaid("tools host kit", "make"))
        assert len(bars.tasks) == 2
        show(StepEnded("tools host kit", Verdict.PASS, "", 1.0, False))
        show(StepSaid("tools host kit", "too late"))
        assert len(bars.tasks) == 1


def test_what_a_step_says_cannot_move_the_cursor(clock: list[float]) -> None:
    out = io.StringIO()
    show = progress.Plain(out)
    show(StepBegan("world"))
    clock[0] = 60.0
    show(StepSaid("world", "\x1b[2Jbin/ls"))
    assert "\x1b" not in out.getvalue()
    assert "bin/ls" in out.getvalue()
