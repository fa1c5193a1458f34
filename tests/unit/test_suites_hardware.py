"""How far a clock is off, how much of that is the way to it, and what a disk complains of."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.releases import load
from dfbuild.suites.hardware import test_machine
from dfbuild.suites.hardware.conftest import Drift, Look, drift
from dfbuild.suites.host import pressure


def look(at: float, trip: float, clock: float, stalled: float = 0.0) -> Look:
    return Look(at, at + trip, {"wall": clock}, stalled)


def test_a_clock_that_loses_a_second_in_a_hundred() -> None:
    found = drift(look(0, 0, 5e6), look(100, 0, 104e6, stalled=25))["wall"]
    assert found.ratio == pytest.approx(-0.01)
    assert found.doubt == 0
    assert found.stalled == 0.25


@given(st.floats(0.9, 1.1), st.floats(10, 1000), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_truth_is_within_the_doubt(
    speed: float, seconds: float, trip: float, trip_back: float, when: float, when_back: float
) -> None:
    """Wherever in the two round trips the guest looked at its clock."""
    first = look(0, trip, trip * when * speed * 1e6)
    last = look(seconds + 2, trip_back, (seconds + 2 + trip_back * when_back) * speed * 1e6)
    found = drift(first, last)["wall"]
    assert abs(found.ratio - (speed - 1)) <= found.doubt + 1e-9


@pytest.mark.parametrize(
    ("ratio", "stalled", "wrong"),
    [
        (0.0, 0.5, False),
        (-0.02, 0.0, True),
        (-0.02, 0.03, None),
        (-0.08, 0.03, True),
        (-1.0, 0.03, True),
        (0.02, 0.5, True),
        (1.0, 0.9, True),
        (-0.02, math.nan, True),
    ],
)
def test_a_busy_host_excuses_what_it_can_have_done_and_no_more(
    ratio: float, stalled: float, wrong: bool | None
) -> None:
    def run() -> None:
        test_machine.test_clock("wall", {"wall": Drift(ratio, 0.001, stalled)}, lambda *_: None)

    if wrong is None:
        with pytest.raises(pytest.skip.Exception, match="too busy"):
            run()
    elif wrong:
        with pytest.raises(AssertionError, match="the clock is off"):
            run()
    else:
        run()


COMPLAINTS = {
    "1.2": ["ad0: READ command timeout tag=0 serv=0 - resetting", "(da0:sym0:0:0:0): SCSI bus reset delivered."],
    "master": [
        "ad0: TIMEOUT - READ_DMA retrying (1 retry left) LBA=63",
        "ahci0.0: CMD TIMEOUT state=5 slot=3",
        "(da0:mpt0:0:0:0): CAM Status: Command timeout",
        "sym0: SCSI BUS reset detected.",
        "vbd0: hard error cmd=read 0-3",
    ],
    "reference": [
        "[    9.1] I/O error, dev vda, sector 0 op 0x0:(READ) flags 0x0",
        "[    9.2] Buffer I/O error on dev vda, logical block 0, async page read",
        "[    9.3] EXT4-fs error (device vda): ext4_find_entry:1455: inode #2: comm sh: reading directory lblock 0",
        "[    9.4] virtio_blk virtio1: vda: timed out",
    ],
}


@pytest.mark.parametrize("name", COMPLAINTS)
def test_what_a_driver_complains_of_is_counted(name: str, tmp_path: Path) -> None:
    quiet = ["vbd0: attached", "ad0: 1024MB <QEMU HARDDISK> at ata0-master PIO4", "virtio_blk virtio1: [vda] 512"]
    dmesg = tmp_path / "dmesg"
    dmesg.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(COMPLAINTS[name] + quiet) + "\nEND\n")
    dmesg.chmod(0o755)
    command = ["sh", "-c", load(name).commands["disk-complaints"]]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    counted = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert int(counted) == len(COMPLAINTS[name])


def test_the_pressure_on_the_cpus() -> None:
    said = "some avg10=1.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    assert pressure(said) == 2.5
    assert pressure("") == 0
