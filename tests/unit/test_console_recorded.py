"""Real consoles: what the monitor and the boot stages make of recorded transcripts."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dfbuild.console.monitor import Monitor
from dfbuild.console.stages import BootTracker
from dfbuild.console.transcript import render
from dfbuild.releases.schema import Crash, Stage

RECORDED = Path(__file__).parents[1] / "recorded" / "dragonfly"
DATA = tomllib.loads((RECORDED / "console.toml").read_text())
CRASHES = [Crash.model_validate(crash) for crash in DATA["crashes"]]
STAGES = [Stage.model_validate(stage) for stage in DATA["stages"]]

LOGS = {
    "1.0-i386-up.log": ("kernel root shell", None),
    "1.2-i386-native-buildworld-unfinished.log": ("kernel root shell", None),
    "1.2-i386-own-loader.log": ("kernel root shell", None),
    "1.2-i386-smp-disk-read-timeouts.log": ("kernel root shell", None),
    "1.2-i386-smp2-single-user-commands.log": ("kernel root shell", None),
    "1.2-i386-up-mountroot-prompt.log": ("kernel", ("BOOT_FAIL", "no root file system")),
    "5.9-x86_64-disk-boot.log": ("kernel root shell", None),
    "5.9-x86_64-disk-install.log": ("kernel root shell", None),
    "5.9-x86_64-panic-early-ddb.log": ("kernel", ("PANIC", "panic: zone: invalid zone")),
    "5.9-x86_64-smp2-multi-user.log": ("kernel root shell", None),
    "5.9-x86_64-smp2-single-user.log": ("kernel root shell", None),
    "5.9-x86_64-vtnet-hang.log": ("kernel root", None),
}


def test_every_transcript_is_judged() -> None:
    assert {path.name for path in RECORDED.glob("*.log")} == set(LOGS)


@pytest.mark.parametrize("chunk", [1, 7, 65536])
@pytest.mark.parametrize("name", LOGS)
def test_dragonfly(name: str, chunk: int) -> None:
    stages, crash = LOGS[name]
    data = (RECORDED / name).read_bytes()
    monitor = Monitor(CRASHES)
    boot = BootTracker(STAGES, silence=60.0, power_on=0.0)
    report = None
    for offset in range(0, len(data), chunk):
        report = monitor.feed(data[offset : offset + chunk], offset) or report
        boot.feed(data[offset : offset + chunk], offset, 1.0)
    report = report or monitor.settle()
    assert " ".join(stage.stage for stage in boot.reached) == stages
    assert (report and (report.verdict, report.title)) == crash
    if report is not None:
        assert report.offset == 0 or data[report.offset - 1 : report.offset] == b"\n"


def test_the_debugger_prompt_alone_is_a_crash() -> None:
    data = (RECORDED / "5.9-x86_64-panic-early-ddb.log").read_bytes()
    monitor = Monitor([crash for crash in CRASHES if crash.name == "debugger"])
    assert monitor.feed(data, 0) is None
    report = monitor.settle()
    assert report is not None and data[report.offset :] == b"db> "


@pytest.mark.parametrize("name", LOGS)
def test_they_can_be_shown(name: str) -> None:
    assert all(line.text.replace("\t", "").isprintable() for line in render(RECORDED / name))
