"""The boot tracker is a pure state machine: bytes and times in, stages and what is overdue out."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.console.stages import BootTracker, overwritten
from dfbuild.releases.schema import Stage

STAGES = (
    Stage(name="kernel", pattern=r"^Linux version \d", deadline=10),
    Stage(name="login", pattern="login: $", deadline=20),
)


def tracker(silence: float = 60.0, factor: float = 1.0) -> BootTracker:
    return BootTracker(STAGES, silence=silence, power_on=100.0, factor=factor)


def test_a_boot() -> None:
    boot = tracker()
    assert boot.awaited == "kernel" and not boot.done
    assert boot.feed(b"BIOS\r\n", 0, 101.0) == ()
    (kernel,) = boot.feed(b"Linux version 6.1\r\n", 6, 102.5)
    assert (kernel.stage, kernel.seconds, kernel.offset) == ("kernel", 2.5, 6)
    assert boot.awaited == "login"
    (login,) = boot.feed(b"\r\nhost login: ", 25, 110.0)
    assert (login.stage, login.seconds, login.offset) == ("login", 10.0, 32)
    assert boot.done and boot.awaited == "" and boot.reached == (kernel, login)
    assert boot.due() == math.inf and boot.expired(1e9) is None


def test_several_stages_in_one_chunk() -> None:
    assert [s.stage for s in tracker().feed(b"Linux version 6\r\nlogin: ", 0, 101.0)] == ["kernel", "login"]


def test_stages_come_in_order() -> None:
    boot = tracker()
    assert boot.feed(b"login: \r\n", 0, 101.0) == ()
    assert boot.awaited == "kernel"


def test_a_missed_deadline_names_the_stage_and_the_last_line() -> None:
    boot = tracker()
    boot.feed(b"Linux version 6\r\nStarting \x1b[1mthings\r\n", 0, 105.0)
    assert boot.due() == 125.0
    assert boot.expired(124.9) is None
    overdue = boot.expired(125.0)
    assert overdue is not None
    assert (overdue.stage, overdue.waited, overdue.silent) == ("login", 20.0, False)
    assert overdue.last_line == "Starting \\x1b[1mthings"
    assert "'login' not reached within 20.0 s" in str(overdue)


def test_what_a_spinner_prints_is_no_line() -> None:
    boot = tracker()
    boot.feed(b"xhci.ko size 0x2a0c8 |\x08/\x08-\x08\\\x08 at 0x1a\r\n|\x08/\x08-\x08", 0, 105.0)
    assert boot.last_line == "xhci.ko size 0x2a0c8  at 0x1a"
    alone = tracker()
    alone.feed(b"|\x08/\x08", 0, 105.0)
    assert alone.last_line == ""


@given(st.binary(max_size=200))
def test_what_is_overwritten_has_no_backspaces(line: bytes) -> None:
    seen = overwritten(line)
    assert b"\x08" not in seen and len(seen) <= len(line)
    assert b"\x08" in line or seen == line


def test_progress_does_not_move_a_stages_deadline() -> None:
    boot = tracker()
    boot.feed(b"still in the firmware\r\n", 0, 109.0)
    assert boot.due() == 110.0


def test_silence() -> None:
    boot = tracker(silence=3.0)
    boot.feed(b"Booting", 0, 101.0)
    assert boot.due() == 104.0
    overdue = boot.expired(104.5)
    assert overdue is not None and overdue.silent
    assert overdue.waited == pytest.approx(3.5)
    assert "silent for 3.5 s before stage 'kernel'; its last line was 'Booting'" in str(overdue)


def test_a_guest_that_never_prints() -> None:
    overdue = tracker(silence=5.0).expired(105.0)
    assert overdue is not None and "never printed a line" in str(overdue)


def test_emulated_cpus_get_more_time() -> None:
    boot = tracker(silence=30.0, factor=4.0)
    assert boot.due() == 140.0
    boot.feed(b"Linux version 6\n", 0, 101.0)
    assert boot.due() == 181.0


def test_a_line_start_is_not_invented() -> None:
    boot = tracker()
    boot.feed(b"x" * 10_000, 0, 101.0)
    assert boot.feed(b"Linux version 6\r\n", 10_000, 101.0) == ()
    assert [s.stage for s in boot.feed(b"Linux version 6\r\n", 10_017, 101.0)] == ["kernel"]


BOOT = b"BIOS\r\n\x1b[2JLinux version 5\r\nLinux version 6.1.0 (gcc)\r\nwelcome\r\n\r\nhost login: "


@given(cuts=st.lists(st.integers(1, len(BOOT) - 1), unique=True))
def test_any_cutting_reaches_the_same_stages(cuts: list[int]) -> None:
    boot = tracker()
    edges = [0, *sorted(cuts), len(BOOT)]
    for start, end in itertools.pairwise(edges):
        boot.feed(BOOT[start:end], start, 101.0)
    assert [(s.stage, s.offset) for s in boot.reached] == [
        ("kernel", BOOT.index(b"Linux version 6")),
        ("login", BOOT.index(b"login: ")),
    ]
    assert boot.last_line in ("host login:", "welcome")
