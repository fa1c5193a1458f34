"""The crash monitor finds what the signatures say, wherever the bytes are cut, and nothing else."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dfbuild.console.monitor import WINDOW, Monitor
from dfbuild.errors import UsageError
from dfbuild.model import CrashReport, Verdict
from dfbuild.releases import load
from dfbuild.releases.schema import Crash

REFERENCE = load("reference").console.crashes
PANIC = b"[   12.345678] Kernel panic - not syncing: Fatal exception in interrupt\r\n"
SIMPLE = (
    Crash(name="panic", literal="panic: ", pattern=r"^panic: ([^\r\n]*)", title="panic: {1}"),
    Crash(name="lockup", literal="LOCKUP", pattern=r"LOCKUP on (\d+)", title="{0}", verdict=Verdict.HANG),
    Crash(name="prompt", literal="db> ", pattern=r"^db> $", title="debugger"),
)


def watch(data: bytes, cuts: tuple[int, ...] = (), crashes: tuple[Crash, ...] = REFERENCE) -> CrashReport | None:
    """Feed `data` cut at `cuts`, settle, and return the one report."""
    monitor = Monitor(crashes)
    edges = [0, *sorted({c for c in cuts if 0 < c < len(data)}), len(data)]
    reports = [monitor.feed(data[a:b], a) for a, b in itertools.pairwise(edges)]
    reports.append(monitor.settle())
    found = [report for report in reports if report is not None]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    ("line", "name", "title", "verdict"),
    [
        (PANIC, "panic", "panic: Fatal exception in interrupt", Verdict.PANIC),
        (
            b"[    3.100000][    T1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n",
            "init-died",
            "init died, exit code 0x00000100",
            Verdict.PANIC,
        ),
        (
            b"[   28.123456] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [spin:77]\r\n",
            "soft-lockup",
            "soft lockup: CPU#1 stuck for 26s",
            Verdict.HANG,
        ),
        (
            b"[   22.000001] rcu: INFO: rcu_preempt self-detected stall on CPU\r\n",
            "rcu-stall",
            "RCU stall: rcu_preempt self-detected stall",
            Verdict.HANG,
        ),
        (
            b"[   22.000001] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:\r\n",
            "rcu-stall",
            "RCU stall: rcu_sched detected stalls",
            Verdict.HANG,
        ),
        (
            b"[  242.000001] INFO: task kworker/0:1:12 blocked for more than 120 seconds.\r\n",
            "hung-task",
            "hung task: kworker/0:1",
            Verdict.HANG,
        ),
        (
            b"[   30.000001] NMI watchdog: Watchdog detected hard LOCKUP on cpu 2\r\n",
            "hard-lockup",
            "hard lockup: cpu 2",
            Verdict.HANG,
        ),
        (
            b"[    2.000001] BUG: kernel NULL pointer dereference, address: 0000000000000008\r\n",
            "bug",
            "BUG: kernel NULL pointer dereference",
            Verdict.PANIC,
        ),
        (
            b"[    2.000001] kernel BUG at mm/slub.c:305!\r\n",
            "bug-at",
            "kernel BUG at mm/slub.c:305",
            Verdict.PANIC,
        ),
        (
            b"[    2.000001] general protection fault, probably for non-canonical address 0x9: 0000 [#1] SMP\r\n",
            "oops",
            "general protection fault",
            Verdict.PANIC,
        ),
        (
            b"[    2.000001] invalid opcode: 0000 [#1] PREEMPT SMP NOPTI\r\n",
            "oops",
            "invalid opcode",
            Verdict.PANIC,
        ),
        (b"PANIC: early exception 0x0d IP 10:ffff\r\n", "early-exception", None, Verdict.PANIC),
        (b"localhost login: " + PANIC, "panic", "panic: Fatal exception in interrupt", Verdict.PANIC),
    ],
)
def test_linux_crashes(line: bytes, name: str, title: str | None, verdict: Verdict) -> None:
    report = watch(b"[    1.000000] before\r\n" + line + b"[    9.000000] after\r\n")
    assert report is not None
    assert (report.signature, report.verdict, report.offset) == (name, verdict, 23)
    if title is not None:
        assert report.title == title


@pytest.mark.parametrize(
    "line",
    [
        b"Kernel panic - not syncing: typed by a user",
        b"echo 'Kernel panic - not syncing: x'",
        b"BUG: kernel NULL pointer dereference, address: 0000000000000000",
        b"[   10.000001] traps: probe[77] general protection fault ip:401000 sp:7ffd error:0 in probe",
        b"[   10.000001] probe[78]: segfault at 0 ip 0000 sp 0000 error 14 in probe[400000+1000]",
        b"[   10.000001] Out of memory: Killed process 80 (hog) total-vm:1000kB",
        b"[   10.000001] WARNING: CPU: 0 PID: 1 at kernel/softirq.c:300 foo+0x1/0x2",
        b"rcu: INFO: rcu_preempt self-detected stall on CPU",
        b"[    0.000001] Kernel command line: panic=-1 oops=panic console=ttyS0",
    ],
)
def test_what_is_no_crash(line: bytes) -> None:
    assert watch(line + b"\r\n") is None


def test_the_first_crash_is_the_one() -> None:
    data = b"x\nLOCKUP on 3\npanic: second\n"
    assert watch(data, crashes=SIMPLE) == CrashReport("LOCKUP on 3", "lockup", Verdict.HANG, 2)


def test_within_a_line_the_first_listed_signature_wins() -> None:
    report = watch(b"panic: LOCKUP on 3\n", crashes=SIMPLE)
    assert report is not None and report.signature == "panic"


def test_a_prompt_counts_once_nothing_more_comes() -> None:
    monitor = Monitor(SIMPLE)
    assert monitor.feed(b"\ndb> ", 0) is None
    assert monitor.unsettled
    report = monitor.settle()
    assert report is not None and (report.signature, report.offset) == ("prompt", 1)


def test_a_line_that_is_not_one_after_all_is_judged_again() -> None:
    monitor = Monitor(SIMPLE)
    assert monitor.feed(b"pan", 0) is None
    assert monitor.settle() is None
    assert not monitor.unsettled
    report = monitor.feed(b"ic: now\n", 3)
    assert report is not None and report.title == "panic: now"


def test_line_starts_are_not_invented_in_long_lines() -> None:
    for before in (1, 100, WINDOW // 2, WINDOW - 3, WINDOW, 3 * WINDOW, 3 * WINDOW + 7):
        data = b"x" * before + b"panic: no\n"
        assert watch(data, crashes=SIMPLE) is None
        assert watch(data, cuts=tuple(range(0, len(data), 97)), crashes=SIMPLE) is None


def test_a_crash_deep_in_a_line_without_end_is_found() -> None:
    garbage = bytes(b for b in range(256) if b != 10) * 400
    report = watch(garbage + PANIC.rstrip() + garbage)
    assert report is not None
    assert report.title.startswith("panic: Fatal exception in interrupt")


def test_a_monitor_that_is_armed_again_finds_again() -> None:
    monitor = Monitor(SIMPLE)
    assert monitor.feed(b"panic: one\n", 0) is not None
    assert monitor.feed(b"panic: two\n", 11) is None
    monitor.rearm()
    report = monitor.feed(b"panic: three\n", 22)
    assert report is not None and (report.title, report.offset) == ("panic: three", 22)


def test_memory_is_bounded() -> None:
    monitor = Monitor(REFERENCE)
    for n in range(200):
        monitor.feed(b"z" * 65536, n * 65536)
    assert len(monitor._carry) <= WINDOW + 1


def test_titles_are_safe_and_short() -> None:
    report = watch(b"panic: \x1b[2J" + b"A" * 1000 + b"\n", crashes=SIMPLE)
    assert report is not None
    assert report.title.startswith("panic: \\x1b[2JAAA") and len(report.title) <= 200


PIECES = st.sampled_from(
    [
        b"panic: ",
        b"panic: a\n",
        b"\n",
        b"\r\n",
        b"LOCKUP on 7",
        b"LOCKUP",
        b"db> ",
        b"\x00\xff\x1b[0m",
        b"pa",
        b"nic: z",
        b"x" * (WINDOW // 2 - 3),
        b"y" * WINDOW,
        b"[    1.000000] ",
    ]
)


@given(pieces=st.lists(PIECES, max_size=12), cuts=st.lists(st.integers(0, 20_000), max_size=30))
@example(pieces=[b"y" * WINDOW, b"LOCKUP on 7"], cuts=[WINDOW + 3])
@example(pieces=[b"x" * (WINDOW // 2 - 3), b"LOCKUP on 7", b"y" * WINDOW, b"panic: a\n"], cuts=[])
def test_any_cutting_gives_the_same_report(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    assert watch(data, tuple(cuts), SIMPLE) == watch(data, (), SIMPLE)


def test_cut_at_every_byte() -> None:
    data = b"some text\r\n" + PANIC
    whole = watch(data)
    assert whole is not None
    assert all(watch(data, (cut,)) == whole for cut in range(len(data)))
    assert watch(data, tuple(range(len(data)))) == whole


@given(st.binary(max_size=3000))
def test_garbage_is_no_crash(data: bytes) -> None:
    assert watch(data) is None


@pytest.mark.parametrize(
    "crash",
    [
        Crash(name="bad", literal="", pattern="x"),
        Crash(name="bad", literal="a\nb", pattern="x"),
        Crash(name="bad", literal="x" * (WINDOW + 1), pattern="x"),
        Crash(name="bad", literal="x", pattern="("),
        Crash(name="bad", literal="x", pattern="x", title="{1}"),
        Crash(name="bad", literal="x", pattern="x", title="{"),
    ],
)
def test_a_signature_that_cannot_work_is_refused(crash: Crash) -> None:
    with pytest.raises(UsageError, match="bad"):
        Monitor([crash])
