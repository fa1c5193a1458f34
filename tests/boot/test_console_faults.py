"""Guests that go wrong, for real: each gets its verdict within a second of the evidence, and a whole transcript."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dfbuild.build.recipe import Artefact
from dfbuild.build.targets import target
from dfbuild.console.dialogue import Dialogue
from dfbuild.console.protocol import ConsoleClosed
from dfbuild.console.transcript import Times, printable
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, GuestCrashed, GuestError, GuestHung, InfraError, UsageError
from dfbuild.guest import create
from dfbuild.guest.accel import probe
from dfbuild.guest.protocol import Exit, Guest, GuestSpec
from dfbuild.model import Cell, Media, Shape, Variant, Verdict
from dfbuild.releases import Release, load
from dfbuild.runtime import runtime_directory
from dfbuild.session import attach, boot, keep
from dfbuild.session.protocol import Manifest
from dfbuild.workspace import Workspace

pytestmark = pytest.mark.boot

VERDICT_WITHIN = 4.0
"""Seconds from the evidence to the verdict. An idle host needs a half."""


def cell_on(console: str) -> Cell:
    return Cell(Variant("reference", "gcc-12", "on", "smp"), Shape("up", console=console))


def soon(seconds: float = 300.0) -> Deadline:
    return Deadline.after(seconds)


def patient(*, login: float, silence: float) -> Release:
    """The reference release with other limits, emulated or not."""
    release = load("reference")
    kernel, last = release.console.stages[0], release.console.stages[-1]
    update = {
        "stages": (kernel.model_copy(update={"deadline": 60.0}), last.model_copy(update={"deadline": login})),
        "silence": silence,
        "emulation_factor": 1.0,
    }
    return release.model_copy(update={"console": release.console.model_copy(update=update)})


@contextmanager
def made(media: Media, cell: Cell, workspace: Workspace) -> Iterator[Guest]:
    """A guest that is not yet started."""
    directory = runtime_directory("t")
    try:
        guest = create(GuestSpec("fault", cell.shape, media, directory, wire=False), probe(workspace, soon(60)))
        yield guest
        guest.stop(soon(30))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def faulty(reference_image: Artefact, workspace: Workspace) -> Callable[[str, str], tuple[Media, Cell]]:
    """The media and the cell of a guest with `dfbuild.fault=NAME` on a console."""

    def make(fault: str, console: str = "serial") -> tuple[Media, Cell]:
        release, cell = load("reference"), cell_on(console)
        media = target(release).media(release, cell, reference_image, workspace)
        return replace(media, append=f"{media.append} dfbuild.fault={fault}"), cell

    return make


Faulty = Callable[..., tuple[Media, Cell]]


def failed_boot(
    faulty: Faulty, fault: str, release: Release, workspace: Workspace, directory: Path
) -> tuple[GuestError, float]:
    """Boot a guest that must not come up: the error, and the seconds from power-on to the verdict."""
    media, cell = faulty(fault)
    with made(media, cell, workspace) as guest, pytest.MonkeyPatch.context() as patch:
        stop, judged = guest.stop, list[float]()

        def noted(deadline: Deadline) -> Exit:
            # With the verdict, and before the error, comes the guest's end.
            judged.append(time.monotonic())
            return stop(deadline)

        patch.setattr(guest, "stop", noted)
        start = time.monotonic()
        with pytest.raises(GuestError) as caught:
            boot(guest, release, cell, directory, soon())
        return caught.value, judged[0] - start


@pytest.mark.parametrize(
    ("fault", "title"),
    [
        ("panic", "panic: sysrq triggered crash"),
        ("init-exit", "init died, exit code 0x00000100"),
    ],
)
def test_a_dying_kernel(faulty: Faulty, workspace: Workspace, tmp_path: Path, fault: str, title: str) -> None:
    error, seconds = failed_boot(faulty, fault, load("reference"), workspace, tmp_path)
    assert isinstance(error, GuestCrashed)
    assert error.verdict is Verdict.PANIC
    assert error.report.title == title
    log = tmp_path / "console.log"
    assert seconds - Times(log).at(error.report.offset).seconds < VERDICT_WITHIN
    transcript = log.read_bytes()
    assert b"Linux version" in transcript[: error.report.offset]
    assert b"Kernel panic - not syncing" in transcript[error.report.offset :]
    assert "Call Trace" in error.report.excerpt


def test_a_hang(faulty: Faulty, workspace: Workspace, tmp_path: Path) -> None:
    error, seconds = failed_boot(faulty, "hang", patient(login=100.0, silence=8.0), workspace, tmp_path)
    assert isinstance(error, GuestHung)
    assert error.verdict is Verdict.HANG
    assert "silent for 8." in error.message and "'login'" in error.message
    log = tmp_path / "console.log"
    evident = Times(log).at(log.stat().st_size).seconds + 8.0
    assert evident <= seconds < evident + VERDICT_WITHIN
    assert "HLT=1" in (tmp_path / "diagnosis.txt").read_text() and "HLT=1" in error.hint


def test_a_guest_that_wedges_after_its_boot(faulty: Faulty, workspace: Workspace, tmp_path: Path) -> None:
    """The boot is fine; a dialogue's own deadline finds out, and the CPUs say why."""
    media, cell = faulty("wedge")
    with made(media, cell, workspace) as guest, boot(guest, load("reference"), cell, tmp_path, soon()) as session:
        assert session.stages[-1].stage == "login"
        with attach(session.manifest_path) as other:
            dialogue = Dialogue(other.console)
            dialogue.send_line("root", soon(10))
            with pytest.raises(DeadlineExceeded, match="# "):
                dialogue.expect(["# "], soon(3))
            assert other.console.crash is None
            assert "HLT=1" in other.diagnose(soon(10))


def test_a_flood(faulty: Faulty, workspace: Workspace, tmp_path: Path) -> None:
    """200 MB, and every line of it is there."""
    # The flood keeps virtio's interrupt so busy that the kernel would say so in the middle of it ("nobody cared").
    media, cell = faulty("flood noirqdebug", "virtio")
    release = patient(login=280.0, silence=60.0)
    with made(media, cell, workspace) as guest, boot(guest, release, cell, tmp_path, soon()) as session:
        assert session.stages[-1].stage == "login"
        assert session.final_crash(soon()) is None
    fills = [bytes(ord("!") + (n * 7 + i * 13) % 94 for i in range(83)) for n in range(94)]
    with (tmp_path / "console.log").open("rb") as file:
        assert b"flood begins\r\n" in iter(file.readline, b"")
        wrong = [n for n in range(2_000_000) if file.readline() != b"flood %08d %s\r\n" % (n, fills[n % 94])]
        assert wrong == []
        assert file.readline() == b"flood ends 2000000 lines 200000000 bytes\r\n"


def test_garbage(faulty: Faulty, workspace: Workspace, tmp_path: Path) -> None:
    """Every byte value, escapes and broken UTF-8: no verdict but a good boot, and the very bytes on disk."""
    media, cell = faulty("garbage")
    release = patient(login=120.0, silence=60.0)
    with made(media, cell, workspace) as guest, boot(guest, release, cell, tmp_path, soon()) as session:
        assert session.final_crash(soon()) is None
    log = tmp_path / "console.log"
    begin = log.read_bytes().index(b"garbage begins\r\n")
    # The kernel may well complain of so much work in the middle of it; that is no garbage.
    printed = re.sub(rb"\[ *\d+\.\d{6}\] [^\r\n]*\r\n", b"", log.read_bytes()[begin:])
    expected = pseudo_random().replace(b"\n", b"\r\n")
    start = printed.index(expected[:64])
    printed = printed[start : start + len(expected)]
    blocks = range(0, len(expected), 4096)
    assert [at for at in blocks if printed[at : at + 4096] != expected[at : at + 4096]] == []
    assert b"garbage ends\r\n" in log.read_bytes()
    assert printable(log.read_bytes()[begin:]).replace("\t", "").replace("\n", "").isprintable()


def pseudo_random() -> bytes:
    """What images/reference/faults.h calls the fixed sequence."""
    state, out = 1, bytearray()
    for _ in range(1 << 20):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append(state >> 24)
    return bytes(out)


def test_a_guest_that_is_kept_up(reference_media: Media, workspace: Workspace, tmp_path: Path) -> None:
    """Up by name, shared, found, and down again, with nothing left but its transcript."""
    cell, said = cell_on("serial"), list[str]()
    kept, release = Workspace(tmp_path), load("reference")

    def up() -> Manifest:
        return keep.up(kept, "keeper", release, cell, reference_media, soon(), said.append)

    manifest = up()
    assert keep.names(kept) == ("keeper",) and keep.find(kept, "keeper") == manifest
    assert any(line.startswith("login at ") for line in said)
    with pytest.raises(UsageError, match="up already"):
        up()
    with attach(manifest) as session:
        dialogue = Dialogue(session.console)
        dialogue.send_line("root", soon(20))
        dialogue.expect(["# "], soon(60))

        # A holder that is killed: everybody learns of it, and its name is free again.
        holder = os.pidfd_open(manifest.owner)
        signal.pidfd_send_signal(holder, signal.SIGKILL)
        with pytest.raises(ConsoleClosed):
            session.console.wait(1 << 40, soon(30))
        soon(30).select(holder)
        os.close(holder)
    assert keep.names(kept) == ()
    with pytest.raises(UsageError, match="'keeper' has ended"):
        keep.find(kept, "keeper")

    manifest = up()
    keep.down(kept, "keeper", soon(30))
    assert keep.names(kept) == ()
    assert not manifest.control.parent.exists()
    assert b"login: " in manifest.transcript.read_bytes()
    with pytest.raises(UsageError, match="'keeper' has ended"):
        keep.down(kept, "keeper", soon(30))


def test_a_kept_guest_that_does_not_come_up(faulty: Faulty, tmp_path: Path) -> None:
    """The holder's error is raised here, as what it was."""
    media, cell = faulty("panic")
    kept, release = Workspace(tmp_path), load("reference")
    with pytest.raises(GuestCrashed) as caught:
        keep.up(kept, "dead", release, cell, media, soon(), print)
    assert caught.value.report.excerpt
    missing = replace(media, kernel=tmp_path / "missing")
    with pytest.raises(InfraError, match="missing is not there"):
        keep.up(kept, "dead", release, cell, missing, soon(), print)
    assert keep.names(kept) == ()
