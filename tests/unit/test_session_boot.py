"""Every way that a boot can end, by a guest that only prints."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeGuest
from patience import AT_ONCE

from dfbuild.console.monitor import Monitor
from dfbuild.console.reader import ConsoleReader
from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import BootFailed, Cancelled, DeadlineExceeded, GuestCrashed, GuestHung, HostFull, InfraError
from dfbuild.guest.protocol import Exit, State
from dfbuild.model import Cell, Shape, StageReached, Symbols, Variant, Verdict
from dfbuild.releases import Release, load
from dfbuild.session import boot, boot_seconds
from dfbuild.session.held import end
from dfbuild.session.messages import parse_manifest

KERNEL = b"[    0.000000] Linux version 6.1\r\n"
LOGIN = b"\r\nreference login: "
PANIC = b"[    1.345678] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n"
HOST_CPUS = len(os.sched_getaffinity(0))
XEN_FACTOR = load("reference").console.xen_factor
CELL = Cell(Variant("reference", "gcc-12", "on", "smp"), Shape("up"))


def soon(seconds: float = 20.0) -> Deadline:
    return Deadline.after(seconds)


def quick(*, kernel: float = 10.0, login: float = 10.0, silence: float = 10.0, factor: float = 1.0) -> Release:
    """The reference release with other patience."""
    release = load("reference")
    stages = tuple(
        stage.model_copy(update={"deadline": seconds})
        for stage, seconds in zip(release.console.stages, (kernel, login), strict=True)
    )
    update = {"stages": stages, "silence": silence, "emulation_factor": factor}
    return release.model_copy(update={"console": release.console.model_copy(update=update)})


def upon(stage: str, call: Callable[[], None]) -> Callable[[StageReached], None]:
    """What does `call` when `stage` is reached."""
    return lambda reached: call() if reached.stage == stage else None


@pytest.fixture
def guest() -> Iterator[FakeGuest]:
    guest = FakeGuest()
    yield guest
    guest.end()


def test_a_good_boot(guest: FakeGuest, tmp_path: Path) -> None:
    guest.script = KERNEL + LOGIN
    seen: list[StageReached] = []
    with boot(guest, quick(), CELL, tmp_path / "run", soon(), seen.append) as session:
        assert [stage.stage for stage in seen] == ["kernel", "login"]
        assert session.stages == tuple(seen)
        assert session.console.read(0) == KERNEL + LOGIN
        manifest = parse_manifest(session.manifest_path.read_bytes())
        assert manifest == session.manifest
        assert (manifest.cell, manifest.ssh, manifest.accel) == (CELL, ("127.0.0.1", 2222), "kvm")
        assert manifest.control.stat().st_mode & 0o077 == 0
    assert guest.state is State.ENDED
    assert not session.manifest_path.exists() and not manifest.control.exists()
    assert (tmp_path / "run" / "console.log").read_bytes() == KERNEL + LOGIN


def test_what_a_stage_types_is_typed_when_it_is_reached(guest: FakeGuest, tmp_path: Path) -> None:
    release = quick()
    kernel, login = release.console.stages
    asked = (kernel.model_copy(update={"type": "set console=comconsole\r"}), login)
    told = release.model_copy(update={"console": release.console.model_copy(update={"stages": asked})})
    guest.script = KERNEL
    typed: list[bytes] = []

    def answer(stage: StageReached) -> None:
        if stage.stage == "kernel":
            threading.Thread(target=lambda: (typed.append(guest.typed(23)), guest.print(LOGIN))).start()

    with boot(guest, told, CELL, tmp_path / "run", soon(), answer) as session:
        assert [stage.stage for stage in session.stages] == ["kernel", "login"]
    assert typed == [b"set console=comconsole\r"]


@pytest.mark.parametrize(
    ("fields", "overcommit", "patience"),
    [
        ({}, 1.0, 1.0),
        ({"sockets": 2 * HOST_CPUS}, 4.0, 4.0),
        ({"hypervisor": "xen-pv"}, 1.0, XEN_FACTOR),
        ({"hypervisor": "xen-hvm", "sockets": 3 * HOST_CPUS}, 9.0, 9.0 * XEN_FACTOR),
    ],
)
def test_how_slow_a_guest_may_be(
    guest: FakeGuest, tmp_path: Path, fields: dict[str, Any], overcommit: float, patience: float
) -> None:
    guest.script = KERNEL + LOGIN
    guest.spec = replace(guest.spec, shape=Shape("x", **fields))
    with boot(guest, quick(), replace(CELL, shape=guest.spec.shape), tmp_path, soon()) as session:
        assert (session.manifest.overcommit, session.manifest.patience) == (overcommit, patience)


def test_the_transcript_is_whole_after_the_end(guest: FakeGuest, tmp_path: Path) -> None:
    guest.script = KERNEL + LOGIN
    with boot(guest, quick(), CELL, tmp_path, soon()):
        guest.print(b"last words")
    assert (tmp_path / "console.log").read_bytes().endswith(b"last words")


def test_a_panic(guest: FakeGuest, tmp_path: Path) -> None:
    guest.script = KERNEL + PANIC + b"[    1.400000] Call Trace:\r\n"
    start = time.monotonic()
    with pytest.raises(GuestCrashed) as caught:
        boot(guest, quick(), CELL, tmp_path, soon())
    assert time.monotonic() - start < AT_ONCE
    assert caught.value.verdict is Verdict.PANIC
    assert caught.value.report.title == "panic: VFS: Unable to mount root fs"
    assert "Call Trace" in caught.value.report.excerpt
    assert guest.state is State.ENDED


def test_a_panic_is_not_called_a_hang(guest: FakeGuest, tmp_path: Path) -> None:
    """The stage's deadline passes between the crash and its being made known."""
    guest.script = KERNEL + PANIC
    with pytest.raises(GuestCrashed):
        boot(guest, quick(login=0.05), CELL, tmp_path, soon())


def test_a_panic_and_the_guests_end(guest: FakeGuest, tmp_path: Path) -> None:
    guest.script = KERNEL + PANIC
    with pytest.raises(GuestCrashed):
        boot(guest, quick(), CELL, tmp_path, soon(), upon("kernel", guest.end))


def test_a_missed_stage(guest: FakeGuest, tmp_path: Path) -> None:
    guest.script = KERNEL + b"Starting the world\r\n"
    start = time.monotonic()
    with pytest.raises(GuestHung) as caught:
        boot(guest, quick(login=0.3), CELL, tmp_path, soon())
    assert time.monotonic() - start < AT_ONCE
    text = str(caught.value)
    assert re.search(r"stage 'login' not reached within 0\.\d s", text)
    assert "'Starting the world'" in text and "kernel at 0." in text and "halted at 0xffffffff81000000" in text
    assert caught.value.verdict is Verdict.HANG
    assert guest.diagnosis in (tmp_path / "diagnosis.txt").read_text()
    assert guest.calls[:2] == ["diagnose", "stop"]


@pytest.fixture
def spinning(guest: FakeGuest, tmp_path: Path) -> int:
    """The address of the function `spin` in the kernel of `guest`, which a program of this host stands for."""
    (tmp_path / "spin.c").write_text("void spin(void) { for (;;); }\nint main(void) { return 0; }\n")
    subprocess.run(["gcc", "-g", "-no-pie", "-o", "kernel", "spin.c"], cwd=tmp_path, check=True)
    media = replace(guest.spec.media, symbols=Symbols(tmp_path / "kernel", str(tmp_path)))
    guest.spec = replace(guest.spec, media=media)
    listed = subprocess.run(["nm", tmp_path / "kernel"], check=True, capture_output=True, text=True).stdout
    return next(int(line.split()[0], 16) for line in listed.splitlines() if line.endswith(" T spin"))


def test_a_hang_names_where_its_cpus_are(guest: FakeGuest, spinning: int, tmp_path: Path) -> None:
    guest.script = KERNEL
    guest.diagnosis = (
        f"cpu 0 (host thread 7):\n  at {spinning:016x}\ncpu 1 (host thread 8):\n  at {0:016x}\n"
        f"cpu 2 (host thread 9):\n  at {spinning:016x}\n  from {spinning + 4:016x}\n  from {spinning + 4:016x}\n"
    )
    with pytest.raises(GuestHung) as caught:
        boot(guest, quick(login=0.3), CELL, tmp_path, soon())
    assert re.fullmatch(
        r"stage 'login' not reached within \d+\.\d s; cpu 0 at spin\+0x0 \(spin\.c:1\); "
        r"cpu 2 at spin\+0x0 \(spin\.c:1\), from spin\+0x4 \(spin\.c:1\); its last line was .*",
        caught.value.message,
    )
    assert f"  at {spinning:016x} spin+0x0 (spin.c:1)" in (tmp_path / "diagnosis.txt").read_text()


def test_a_panic_names_its_lines(guest: FakeGuest, spinning: int, tmp_path: Path) -> None:
    guest.script = KERNEL + PANIC + f"RIP: 0010:0x{spinning + 4:016x}\r\n".encode()
    with pytest.raises(GuestCrashed) as caught:
        boot(guest, quick(), CELL, tmp_path, soon())
    assert caught.value.report is not None
    assert f"0x{spinning + 4:016x} spin+0x4 (spin.c:1)" in caught.value.report.excerpt


def test_symbols_that_cannot_be_read_cost_nothing_else(guest: FakeGuest, tmp_path: Path) -> None:
    guest.script = KERNEL
    guest.spec = replace(guest.spec, media=replace(guest.spec.media, symbols=Symbols(tmp_path / "gone", "")))
    with pytest.raises(GuestHung, match="not reached within"):
        boot(guest, quick(login=0.3), CELL, tmp_path, soon())
    text = (tmp_path / "diagnosis.txt").read_text()
    assert guest.diagnosis in text and "cannot read the symbols" in text


def test_silence(guest: FakeGuest, tmp_path: Path) -> None:
    guest.script = KERNEL
    with pytest.raises(GuestHung, match=r"silent for \d\.\d s before stage 'login'"):
        boot(guest, quick(silence=0.2), CELL, tmp_path, soon())


def test_no_silence_limit_after_the_boot(guest: FakeGuest, tmp_path: Path) -> None:
    guest.script = KERNEL + LOGIN
    with boot(guest, quick(silence=2), CELL, tmp_path, soon()) as session:
        with pytest.raises(DeadlineExceeded):
            session.console.wait(session.console.size, soon(2.5))
        assert not session.console.closed


def test_emulation_is_given_more_time(guest: FakeGuest, tmp_path: Path) -> None:
    guest.accel = "tcg"
    threading.Timer(0.5, guest.print, (KERNEL + LOGIN,)).start()
    boot(guest, quick(kernel=0.1, silence=0.1, factor=100.0), CELL, tmp_path, soon()).close()


def test_the_guests_own_end(guest: FakeGuest, tmp_path: Path) -> None:
    guest.script = KERNEL + b"reboot: Power down\r\n"
    with pytest.raises(BootFailed, match="ended before boot stage 'login'") as caught:
        boot(guest, quick(), CELL, tmp_path, soon(), upon("kernel", guest.end))
    assert "reboot: Power down" in caught.value.hint


def test_the_hypervisors_failure_is_not_the_guests(guest: FakeGuest, tmp_path: Path) -> None:
    guest.script = KERNEL
    fail = upon("kernel", lambda: guest.end(1, "qemu: could not open disk"))
    with pytest.raises(InfraError, match="status 1") as caught:
        boot(guest, quick(), CELL, tmp_path, soon(), fail)
    assert "could not open disk" in caught.value.hint


def test_a_hypervisor_that_dies_a_moment_after_its_console_is_not_the_guest(
    guest: FakeGuest, tmp_path: Path
) -> None:
    guest.script = KERNEL

    def die() -> None:
        guest.wire.shutdown(socket.SHUT_RDWR)
        threading.Timer(0.3, guest.end, (-9, "")).start()

    with pytest.raises(InfraError, match="status -9"):
        boot(guest, quick(), CELL, tmp_path, soon(), upon("kernel", die))


def test_a_guest_that_stands_still_for_want_of_room_does_not_hang(guest: FakeGuest, tmp_path: Path) -> None:
    def diagnose(deadline: Deadline) -> str:
        raise HostFull("no room")

    guest.script = KERNEL
    guest.diagnose = diagnose  # type: ignore[method-assign]
    with pytest.raises(HostFull):
        boot(guest, quick(login=0.1), CELL, tmp_path, soon())
    assert guest.state is State.ENDED


def test_the_outer_limit_is_longer_than_those_of_the_stages() -> None:
    shape = Shape("big", sockets=4 * HOST_CPUS)
    release = quick(kernel=10, login=20, silence=5, factor=3)
    assert boot_seconds(shape, release) == 35 * 3 * 16


def test_a_full_disk(guest: FakeGuest, tmp_path: Path) -> None:
    (tmp_path / "console.log").symlink_to("/dev/full")
    guest.script = KERNEL
    with pytest.raises(InfraError, match="No space left"):
        boot(guest, quick(), CELL, tmp_path, soon())
    assert guest.state is State.ENDED


def test_a_transcript_that_cannot_be_made(guest: FakeGuest, tmp_path: Path) -> None:
    (tmp_path / "console.log").mkdir()
    with pytest.raises(InfraError, match="cannot record the console"):
        boot(guest, quick(), CELL, tmp_path, soon())
    assert guest.state is State.ENDED


def test_a_manifest_that_cannot_be_written(guest: FakeGuest, tmp_path: Path) -> None:
    (tmp_path / "guest.json").mkdir()
    guest.script = KERNEL + LOGIN
    with pytest.raises(InfraError, match="cannot write"):
        boot(guest, quick(), CELL, tmp_path, soon())
    assert guest.state is State.ENDED
    assert not (guest.spec.directory / "control").exists()


def test_the_callers_deadline_is_the_callers(guest: FakeGuest, tmp_path: Path) -> None:
    guest.script = KERNEL
    with pytest.raises(DeadlineExceeded, match="'login'"):
        boot(guest, quick(), CELL, tmp_path, soon(0.3))
    assert guest.state is State.ENDED


def test_interrupted(guest: FakeGuest, tmp_path: Path) -> None:
    cancel = Cancel()
    threading.Timer(0.2, cancel.set).start()
    with pytest.raises(Cancelled):
        boot(guest, quick(), CELL, tmp_path, Deadline.after(20, cancel=cancel))
    assert guest.state is State.ENDED


def test_an_end_that_fails_still_closes_the_console(tmp_path: Path) -> None:
    """Whatever the end raises would hide the error that led to it, and leave who reads the console running."""
    guest = FakeGuest()
    connection = guest.start(soon())
    console = ConsoleReader(connection, tmp_path / "console.log", Monitor(()), power_on=0.0)

    def stop(deadline: Deadline) -> Exit:
        raise OSError(errno.ENOSPC, "No space left on device")

    guest.stop = stop  # type: ignore[method-assign]
    assert end(guest, console) is None
    assert connection.fileno() == -1
