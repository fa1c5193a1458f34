"""The machine is what its shape says, keeps time, and neither its disk nor its network card loses anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dfbuild.deadline import Deadline
from dfbuild.model import Cell
from dfbuild.releases import Release
from dfbuild.shell.protocol import Shell
from dfbuild.suites.hardware.conftest import SECONDS, Drift
from dfbuild.suites.probe import ProbeError, integers

Ask = Callable[[str], str]
Fact = Callable[[str, object], None]

MOST_DRIFT = 0.005
MOST_STALLED = 0.02
BYTES = {"ssh": 50 << 20, "serial": 256 << 10}
"""What is sent there and back, by the way it goes: a serial line takes 100 s for a megabyte."""
PLACE = "/var/tmp/dfbuild"
"""On the disk, where `/tmp` may be memory."""


def test_product(ask: Ask, cell: Cell, fact: Fact) -> None:
    """The guest reads the machine's name in the firmware."""
    if not cell.shape.product:
        pytest.skip("the shape gives the machine no name")
    said = ask("product")
    fact("product", said)
    assert said == cell.shape.product, f"the guest takes the machine for a {said!r}"


def test_hypervisor(ask: Ask, cell: Cell, fact: Fact) -> None:
    """The kernel knows whose guest it is by the machine's name."""
    maker = cell.shape.product.partition(" ")[0].lower()
    if not maker:
        pytest.skip("the shape gives the machine no name")
    said = ask("hypervisor")
    fact("hypervisor", said)
    assert said == maker, f"the kernel takes the hypervisor for {said!r}"


def test_firmware(ask: Ask, cell: Cell, fact: Fact) -> None:
    """What started the guest is the firmware that its shape has."""
    if cell.shape.firmware == "bios":
        pytest.skip("the shape has the firmware that every release knows")
    said = ask("firmware")
    fact("firmware", said)
    assert said == cell.shape.firmware, f"the guest was started by {said!r}"


def test_root(ask: Ask, cell: Cell, fact: Fact) -> None:
    """The root is in the file system that the shape says."""
    said = ask("root")
    fact("root", said)
    assert said == cell.shape.root, f"the root is in {said!r}"


@pytest.mark.check(seconds=4 * SECONDS)
@pytest.mark.parametrize("clock", ["wall", "steady"])
def test_clock(clock: str, drifts: dict[str, Drift], fact: Fact) -> None:
    """In two minutes it goes neither forward nor back by more than half a per cent."""
    drift = drifts[clock]
    fact("drift", f"{drift.ratio:+.4%}")
    most = MOST_DRIFT + drift.doubt
    wrong, unknown = abs(drift.ratio) > most, drift.doubt > MOST_DRIFT
    # Without a CPU an emulated timer loses ticks: for as long as the host had none, a clock may have stood.
    excused = -(most + drift.stalled) <= drift.ratio < 0 if wrong else unknown
    if excused and drift.stalled > MOST_STALLED:
        pytest.skip(
            f"the host was too busy to tell: for {drift.stalled:.0%} of the time it had no CPU for somebody"
        )
    if unknown:
        raise ProbeError(f"the guest took too long to answer: the drift is known to {drift.doubt:.2%} only")
    assert not wrong, f"the clock is off by {drift.ratio:+.2%}"


@pytest.mark.check(seconds=600)
def test_transfer(shell: Shell, ask: Ask, release: Release, deadline: Deadline, tmp_path: Path, fact: Fact) -> None:
    """Through the network card to the disk, copied there, and back: not a bit is lost, and nothing times out.

    The copy is read from the disk where the release knows how to make the guest forget what it has in memory.
    """
    (complaints,) = integers(ask("disk-complaints"), 1)
    size = BYTES[shell.via]
    fact("bytes", size)
    (tmp_path / "sent").write_bytes(os.urandom(size))
    try:
        shell.run(f"mkdir -p {PLACE}", deadline)
        shell.put(tmp_path / "sent", f"{PLACE}/sent", deadline)
        forget = release.commands.get("forget-files", "true")
        answer = shell.run(f"cd {PLACE} && cp sent copy && sync && {forget} && cmp sent copy", deadline)
        assert answer.status == 0, f"copied on the disk, the file is another one: {answer.text[-300:]}"
        shell.get(f"{PLACE}/copy", tmp_path / "back", deadline)
    finally:
        shell.run(f"rm -rf {PLACE}", deadline)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()
    (after,) = integers(ask("disk-complaints"), 1)
    assert after == complaints, f"the disk's driver complained {after - complaints} times"
