"""Real consoles: what the monitor and the boot stages make of recorded transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dfbuild.console.monitor import Monitor
from dfbuild.console.stages import BootTracker
from dfbuild.releases import load
from dfbuild.releases.schema import Crash, Stage

RECORDED = Path(__file__).parents[1] / "recorded"
OF = {"1.0": "1.0", "1.2": "1.2", "5.9": "master", "ref": "reference"}
"""The first three letters of a transcript's name ▸ the release that it is of."""


def knowledge(name: str) -> tuple[Sequence[Stage], Sequence[Crash]]:
    """The release's stages but for those of boot programs, which not all transcripts have, and its crashes."""
    kind, _, log = name.partition("/")
    console = load(OF[(log if kind == "dragonfly" else kind)[:3]]).console
    return [stage for stage in console.stages if stage.name in ("kernel", "root", "login")], console.crashes


LOGS = {
    "dragonfly/1.0-i386-up.log": ("kernel root", None),
    "dragonfly/1.2-i386-disk-login.log": ("kernel root login", None),
    "dragonfly/1.2-i386-native-buildworld-unfinished.log": ("kernel root", None),
    "dragonfly/1.2-i386-own-loader.log": ("kernel root", None),
    "dragonfly/1.2-i386-smp-disk-read-timeouts.log": ("kernel root", None),
    "dragonfly/1.2-i386-smp2-single-user-commands.log": ("kernel root", None),
    "dragonfly/1.2-i386-smp4-disk-login.log": ("kernel root login", None),
    "dragonfly/1.2-i386-up-mountroot-prompt.log": ("kernel", ("BOOT_FAIL", "no root file system")),
    "dragonfly/5.9-x86_64-disk-boot.log": ("kernel root login", None),
    "dragonfly/5.9-x86_64-uefi-disk-boot.log": ("kernel root login", None),
    "dragonfly/5.9-x86_64-disk-install.log": ("kernel root login", None),
    "dragonfly/5.9-x86_64-panic-early-ddb.log": ("kernel", ("PANIC", "panic: zone: invalid zone")),
    "dragonfly/5.9-x86_64-smp2-multi-user.log": ("kernel root login", None),
    "dragonfly/5.9-x86_64-smp2-single-user.log": (
        "kernel root",
        ("BOOT_FAIL", "the system comes up in single-user mode only"),
    ),
    "dragonfly/5.9-x86_64-vtnet-hang.log": ("kernel root", None),
    "reference/smp2-user-commands-then-panic.log": ("kernel login", ("PANIC", "panic: sysrq triggered crash")),
    "reference/up-hang.log": ("kernel", None),
    "reference/up-init-exit.log": ("kernel", ("PANIC", "init died, exit code 0x00000100")),
    "reference/up-panic.log": ("kernel", ("PANIC", "panic: sysrq triggered crash")),
}


def test_every_transcript_is_judged() -> None:
    assert {str(log.relative_to(RECORDED)) for log in RECORDED.glob("*/*.log")} == set(LOGS)


@pytest.mark.parametrize("chunk", [1, 7, 65536])
@pytest.mark.parametrize("name", LOGS)
def test_verdicts(name: str, chunk: int) -> None:
    expected_stages, crash = LOGS[name]
    stages, crashes = knowledge(name)
    data = (RECORDED / name).read_bytes()
    monitor = Monitor(crashes)
    boot = BootTracker(stages, silence=60.0, power_on=0.0)
    report = None
    for offset in range(0, len(data), chunk):
        report = monitor.feed(data[offset : offset + chunk], offset) or report
        boot.feed(data[offset : offset + chunk], offset, 1.0)
    report = report or monitor.settle()
    assert " ".join(stage.stage for stage in boot.reached) == expected_stages
    assert (report and (report.verdict, report.title)) == crash
    if report is not None:
        assert report.offset == 0 or data[report.offset - 1 : report.offset] == b"\n"


def test_the_debugger_prompt_alone_is_a_crash() -> None:
    name = "dragonfly/5.9-x86_64-panic-early-ddb.log"
    data = (RECORDED / name).read_bytes()
    monitor = Monitor([crash for crash in knowledge(name)[1] if crash.name == "debugger"])
    assert monitor.feed(data, 0) is None
    report = monitor.settle()
    assert report is not None and data[report.offset :] == b"db> "


def test_what_a_user_prints_is_no_crash() -> None:
    """The transcript has crash texts printed by commands ahead of the real panic."""
    data = (RECORDED / "reference" / "smp2-user-commands-then-panic.log").read_bytes()
    assert b"\nKernel panic - not syncing: only said so" in data
    report = Monitor(load("reference").console.crashes).feed(data, 0)
    assert report is not None and report.offset == data.index(b"[    2.765151] Kernel panic")
