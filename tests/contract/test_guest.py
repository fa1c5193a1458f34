"""What every `Guest` must do, on the real hypervisor with next to nothing for an operating system.

Under QEMU that is a boot sector, under Xen a paravirtual kernel as small, in a domain of a nested host that is
restored for every guest. Another implementation joins by a line in `IMPLEMENTATIONS`.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from payload import BANNER, write_disk, write_kernel

from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, InfraError
from dfbuild.guest import create
from dfbuild.guest.accel import Accel
from dfbuild.guest.protocol import Guest, GuestSpec, State
from dfbuild.model import Disk, Media, Shape, XenHost
from dfbuild.runtime import runtime_directory

pytestmark = pytest.mark.boot


@dataclass(frozen=True)
class Implementation:
    """What its guests are like."""

    shape: Shape
    nonsense: tuple[str, ...] = ("-device", "no-such-device")
    """Words that their hypervisor does not understand."""
    unsaved: str = "nowhere"
    """What a guest without a place says that is to be saved."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """What they do not have ▸ why."""


IMPLEMENTATIONS = {
    "qemu": Implementation(Shape("up", memory=32)),
    "xen": Implementation(
        Shape("pv", memory=32, hypervisor="xen-pv", disk="xen-blk", nic="xen-net", console="xen"),
        unsaved="under Xen",
        lacks={
            "saving": "a domain of a nested host is not saved; that it says so is tested",
            "triple faults": "what a paravirtual guest does not handle crashes it, and is kept: test_xen_guests.py",
        },
    ),
}


def soon() -> Deadline:
    """Far longer than anything here takes, on any host."""
    return Deadline.after(120)


class Terminal:
    """The tests' end of a console."""

    def __init__(self, console: socket.socket) -> None:
        self.socket = console
        self.seen = b""

    def read(self, count: int) -> bytes:
        """The next `count` bytes."""
        deadline = soon()
        while len(self.seen) < count:
            deadline.select(self.socket.fileno(), what=f"{count} bytes after {self.seen[-80:]!r}")
            received = self.socket.recv(65536)
            assert received, f"the console ended after {self.seen[-80:]!r}"
            self.seen += received
        taken, self.seen = self.seen[:count], self.seen[count:]
        return taken

    def expect(self, text: bytes) -> None:
        """The next bytes are exactly these."""
        assert self.read(len(text)) == text

    def type(self, text: bytes) -> None:
        self.socket.sendall(text)

    def quiet(self) -> bool:
        return not self.seen and not select.select([self.socket], [], [], 0)[0]

    def end(self) -> bytes:
        """All that comes until the guest's end of the console is gone."""
        deadline = soon()
        while True:
            deadline.select(self.socket.fileno(), what="the console's end")
            try:
                received = self.socket.recv(65536)
            except ConnectionResetError:
                received = b""
            if not received:
                rest, self.seen = self.seen, b""
                return rest
            self.seen += received


class Workshop:
    """Makes guests of one implementation and starts them."""

    def __init__(self, implementation: Implementation, media: Media) -> None:
        self.implementation, self.media = implementation, media
        self.guests: list[Guest] = []
        self.consoles: list[socket.socket] = []

    def make(self, *, shape: Shape | None = None, **more: object) -> Guest:
        shape = shape or self.implementation.shape
        spec = GuestSpec(f"g{len(self.guests)}", shape, self.media, runtime_directory("t"), **more)  # type: ignore[arg-type]
        self.guests.append(create(spec, Accel("tcg")))
        return self.guests[-1]

    def up(self, **more: object) -> tuple[Guest, Terminal]:
        """A guest whose payload has said so."""
        guest = self.make(**more)  # type: ignore[arg-type]
        terminal = self.start(guest)
        terminal.expect(BANNER)
        return guest, terminal

    def start(self, guest: Guest) -> Terminal:
        self.consoles.append(guest.start(soon()))
        return Terminal(self.consoles[-1])


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_disk(tmp_path_factory.mktemp("payload") / "disk, with a comma.img")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kernel(tmp_path_factory.mktemp("payload") / "kernel")


@pytest.fixture(params=IMPLEMENTATIONS)
def name(request: pytest.FixtureRequest) -> str:
    """Of an implementation."""
    return str(request.param)


@pytest.fixture
def media(name: str, disk: Path, request: pytest.FixtureRequest) -> Media:
    """What guests of the implementation `name` boot from."""
    disks = (Disk(disk, "raw"),)
    if name != "xen":
        return Media(disks=disks)
    return Media(disks=disks, kernel=request.getfixturevalue("kernel"), xen=request.getfixturevalue("xen_host"))


@pytest.fixture
def workshop(name: str, media: Media) -> Iterator[Workshop]:
    yield from opened(Workshop(IMPLEMENTATIONS[name], media))


@pytest.fixture
def unstarted(name: str, disk: Path) -> Iterator[Workshop]:
    """A workshop of which no guest gets as far as its hypervisor: any files do for its host."""
    some = Path(__file__)
    media = Media(disks=(Disk(disk, "raw"),), kernel=some, xen=XenHost(some, some, some, 768))
    yield from opened(Workshop(IMPLEMENTATIONS[name], media))


def opened(workshop: Workshop) -> Iterator[Workshop]:
    yield workshop
    for console in workshop.consoles:
        console.close()
    for guest in workshop.guests:
        guest.stop(soon())
        shutil.rmtree(guest.spec.directory)


@pytest.fixture
def has(name: str) -> Callable[[str], None]:
    """Skips a test of what the implementation lacks, with the reason."""

    def check(what: str) -> None:
        if what in IMPLEMENTATIONS[name].lacks:
            pytest.skip(IMPLEMENTATIONS[name].lacks[what])

    return check


def dead(pid: int) -> bool:
    """No such process, or nobody has reaped it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


# ── power on ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_first_byte_printed_is_the_first_byte_read(workshop: Workshop) -> None:
    guest = workshop.make()
    assert guest.state is State.NEW
    terminal = workshop.start(guest)
    terminal.expect(BANNER)
    assert guest.state is State.RUNNING
    assert guest.accel == "tcg"
    assert not dead(guest.pid)


def test_the_console_takes_what_is_typed(workshop: Workshop) -> None:
    _, terminal = workshop.up()
    for text in (b"abc", b"\x00\x1b\xff\r\n", bytes(range(0x20, 0x40)) * 8):
        terminal.type(text)
        terminal.expect(text)


def test_a_slow_reader_loses_nothing(workshop: Workshop) -> None:
    guest, terminal = workshop.up()
    terminal.type(b"F")
    while_it_prints = Deadline.after(1)
    while while_it_prints.remaining() > 0:
        guest.diagnose(soon())  # meanwhile it fills what the socket holds, and has to wait
    printed = terminal.read(50_000)
    assert printed == (bytes(range(256)) * (len(printed) // 256 + 2))[ord("F") :][: len(printed)]


def test_a_guest_starts_once(workshop: Workshop) -> None:
    guest, terminal = workshop.up()
    with pytest.raises(InfraError, match="once"):
        guest.start(soon())
    terminal.type(b"x")
    terminal.expect(b"x")
    guest.stop(soon())
    with pytest.raises(InfraError, match="once"):
        guest.start(soon())


def test_a_hypervisor_that_refuses_is_reported_with_its_words_and_command(workshop: Workshop) -> None:
    guest = workshop.make(extra=workshop.implementation.nonsense)
    with pytest.raises(InfraError) as caught:
        guest.start(Deadline.after(60))
    complaint, _, command = str(caught.value).partition("command:")
    for word in workshop.implementation.nonsense:
        assert word in command
    assert workshop.implementation.nonsense[-1] in complaint
    assert guest.state is State.ENDED


def test_a_missing_disk_is_reported(unstarted: Workshop, tmp_path: Path) -> None:
    unstarted.media = replace(unstarted.media, disks=(Disk(tmp_path / "none.img", "raw"),))
    with pytest.raises(InfraError, match=r"none\.img"):
        unstarted.make().start(soon())


def test_a_directory_that_others_can_enter_is_refused(unstarted: Workshop) -> None:
    guest = unstarted.make()
    guest.spec.directory.chmod(0o755)
    with pytest.raises(InfraError, match="only its owner"):
        guest.start(soon())


def test_a_start_can_be_cancelled(unstarted: Workshop) -> None:
    cancel = Cancel()
    cancel.set()
    guest = unstarted.make()
    with pytest.raises(Cancelled):
        guest.start(Deadline.after(30, cancel=cancel))
    assert guest.state is State.ENDED


def test_everything_a_guest_makes_is_its_owners_alone(workshop: Workshop) -> None:
    guest, _ = workshop.up()
    assert guest.spec.directory.stat().st_mode & 0o777 == 0o700
    assert any(path.is_socket() for path in guest.spec.directory.iterdir())


@pytest.mark.parametrize("what", ["pause", "resume", "reset", "power_button", "diagnose", "ssh_address", "wait"])
def test_a_guest_that_is_not_up_says_so(unstarted: Workshop, what: str) -> None:
    guest = unstarted.make()
    with pytest.raises(InfraError, match=guest.spec.name):
        getattr(guest, what)(soon())


# ── networks ──────────────────────────────────────────────────────────────────────────────────────────────────────
def listening(port: int) -> set[str]:
    """Addresses on which somebody listens on TCP `port`, as /proc/net/tcp writes them."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            address, _, number = line.split()[1].rpartition(":")
            if int(number, 16) == port and line.split()[3] == "0A":
                found.add(address)
    return found


def test_two_guests_at_once_have_their_own_ports_and_consoles(workshop: Workshop) -> None:
    pairs = [workshop.up() for _ in range(2)]
    addresses = {guest.ssh_address(soon()) for guest, _ in pairs}
    assert len(addresses) == 2
    for host, port in addresses:
        assert host == "127.0.0.1"
        assert listening(port) == {"0100007F"}
    assert len({guest.wire_ends().guest for guest, _ in pairs}) == 2
    for text, (_, terminal) in zip((b"one", b"two"), pairs, strict=True):
        terminal.type(text)
    for text, (_, terminal) in zip((b"one", b"two"), pairs, strict=True):
        terminal.expect(text)


def test_a_guest_without_networks_has_none(workshop: Workshop) -> None:
    guest, _ = workshop.up(ssh_port=None, wire=False)
    with pytest.raises(InfraError, match="management"):
        guest.ssh_address(soon())
    with pytest.raises(InfraError, match="wire"):
        guest.wire_ends()


def test_the_wires_guest_end_is_bound_once_the_guest_is_up(workshop: Workshop) -> None:
    guest, terminal = workshop.up()
    ends = guest.wire_ends()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
        peer.bind(str(ends.peer))
        peer.sendto(bytes(60), str(ends.guest))
    terminal.type(b"x")
    terminal.expect(b"x")


# ── disks ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_two_guests_write_to_one_image_and_neither_changes_it(workshop: Workshop, disk: Path) -> None:
    before = hashlib.sha256(disk.read_bytes()).digest()
    pairs = [workshop.up() for _ in range(2)]
    for guest, terminal in pairs:
        terminal.type(b"W")
        terminal.expect(b"w")
        guest.stop(soon())
    assert hashlib.sha256(disk.read_bytes()).digest() == before


def test_a_guest_that_was_saved_goes_on_where_it_was(
    workshop: Workshop, has: Callable[[str], None], tmp_path: Path
) -> None:
    has("saving")
    first, terminal = workshop.up(kept=tmp_path)
    assert not first.saved
    for text in (b"a", b"b", b"c"):
        terminal.type(text)
        terminal.expect(text)
        first.save(soon())
        assert first.saved
    terminal.type(b"d")
    terminal.expect(b"d")
    first.stop(soon())
    second = workshop.make(kept=tmp_path)
    assert second.saved
    terminal = workshop.start(second)
    terminal.type(b"e")
    terminal.expect(b"e")  # and no banner before it


def test_a_guest_without_a_place_is_not_saved(workshop: Workshop) -> None:
    guest, _ = workshop.up()
    assert not guest.saved
    with pytest.raises(InfraError, match=workshop.implementation.unsaved):
        guest.save(soon())


# ── while it runs ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_paused_guest_does_nothing_until_it_is_resumed(workshop: Workshop) -> None:
    guest, terminal = workshop.up()
    guest.pause(soon())
    assert guest.state is State.PAUSED
    terminal.type(b"z")
    guest.diagnose(soon())  # a round trip through the hypervisor: it had its chance to take the byte
    assert terminal.quiet()
    with pytest.raises(InfraError, match="paused"):
        guest.pause(soon())
    guest.resume(soon())
    assert guest.state is State.RUNNING
    terminal.expect(b"z")


def test_a_reset_starts_it_again_on_the_same_console(workshop: Workshop) -> None:
    guest, terminal = workshop.up()
    for _ in range(2):
        guest.reset(soon())
        terminal.expect(BANNER)
    terminal.type(b"x")
    terminal.expect(b"x")
    assert guest.state is State.RUNNING


def test_resets_may_follow_each_other_closely(workshop: Workshop) -> None:
    guest, terminal = workshop.up()
    for _ in range(3):
        guest.reset(soon())
    terminal.expect(BANNER)
    assert guest.state is State.RUNNING


def test_a_hanging_guest_can_be_diagnosed(workshop: Workshop) -> None:
    guest, terminal = workshop.up(shape=replace(workshop.implementation.shape, name="smp", sockets=2))
    terminal.type(b"H")
    text = guest.diagnose(soon())
    assert "running" in text
    assert len([line for line in text.splitlines() if line.startswith("CPU#")]) == 2
    assert len(text.splitlines()) < 40


def test_the_power_button_only_asks(workshop: Workshop) -> None:
    guest, terminal = workshop.up()
    guest.power_button(soon())
    terminal.type(b"x")
    terminal.expect(b"x")
    assert guest.state is State.RUNNING


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_guest_that_powers_itself_off_has_ended_by_itself(workshop: Workshop) -> None:
    guest, terminal = workshop.up()
    terminal.type(b"P")
    end = guest.wait(soon())
    assert (end.status, end.rung, end.cause) == (0, "guest", "guest-shutdown")
    assert guest.state is State.ENDED
    assert terminal.end() == b""
    assert guest.stop(soon()) == end == guest.wait(soon())


@pytest.mark.parametrize(("letter", "what"), [(b"R", "resets"), (b"T", "triple faults")])
def test_a_guest_that_resets_itself_has_ended_too(
    workshop: Workshop, has: Callable[[str], None], letter: bytes, what: str
) -> None:
    has(what)
    guest, terminal = workshop.up()
    terminal.type(letter)
    end = guest.wait(soon())
    assert (end.rung, end.cause) == ("guest", "guest-reset")


def test_waiting_for_a_guest_that_goes_on_times_out(workshop: Workshop) -> None:
    guest, terminal = workshop.up()
    with pytest.raises(DeadlineExceeded):
        guest.wait(Deadline.after(0.05))
    terminal.type(b"x")
    terminal.expect(b"x")


def test_stopping_asks_first_and_is_idempotent(workshop: Workshop) -> None:
    guest, terminal = workshop.up()
    pid = guest.pid
    end = guest.stop(soon())
    assert (end.status, end.rung) == (0, "quit")
    assert guest.state is State.ENDED
    assert dead(pid)
    assert guest.stop(soon()) is end
    terminal.end()


def test_a_paused_guest_can_be_stopped(workshop: Workshop) -> None:
    guest, _ = workshop.up()
    guest.pause(soon())
    assert guest.stop(soon()).rung == "quit"


def test_a_hypervisor_that_does_not_listen_is_killed(workshop: Workshop) -> None:
    guest, _ = workshop.up()
    pid = guest.pid
    os.kill(pid, signal.SIGSTOP)
    end = guest.stop(Deadline.after(0.4))
    assert (end.status, end.rung) == (-signal.SIGKILL, "kill")
    assert dead(pid)


def test_stopping_without_time_still_stops(workshop: Workshop) -> None:
    cancel = Cancel()
    cancel.set()
    for deadline in (Deadline.after(0), Deadline.after(30, cancel=cancel)):
        guest, _ = workshop.up()
        end = guest.stop(deadline)
        assert end.rung in ("quit", "kill")
        assert guest.state is State.ENDED and dead(guest.pid)


def test_a_guest_that_never_started_can_be_stopped(unstarted: Workshop) -> None:
    guest = unstarted.make()
    guest.stop(soon())
    with pytest.raises(InfraError):
        guest.start(soon())


def test_a_hypervisor_that_dies_is_seen_as_such(workshop: Workshop) -> None:
    guest, terminal = workshop.up()
    os.kill(guest.pid, signal.SIGKILL)
    assert guest.wait(soon()).status == -signal.SIGKILL
    terminal.end()
    with pytest.raises(InfraError, match="ended"):
        guest.pause(soon())


def test_a_waiter_and_a_stopper_agree(workshop: Workshop) -> None:
    guest, _ = workshop.up()
    seen: list[object] = []
    waiter = threading.Thread(target=lambda: seen.append(guest.wait(soon())))
    waiter.start()
    end = guest.stop(soon())
    waiter.join()
    assert seen == [end]


# ── who it lives with ─────────────────────────────────────────────────────────────────────────────────────────────
def test_it_outlives_the_thread_that_started_it(workshop: Workshop) -> None:
    guest = workshop.make()
    terminals: list[Terminal] = []
    worker = threading.Thread(target=lambda: terminals.append(workshop.start(guest)))
    worker.start()
    worker.join()
    (terminal,) = terminals
    terminal.expect(BANNER)
    terminal.type(b"still here")
    terminal.expect(b"still here")


HERE = Path(__file__).parent
OWNER = """
import pickle, sys
sys.path[:0] = {path!r}
from test_guest import IMPLEMENTATIONS, Workshop
guest, terminal = Workshop(IMPLEMENTATIONS[{name!r}], pickle.loads({media!r})).up()
print(guest.pid, guest.spec.directory, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, None], ids=["kill -9", "exit"])
def test_it_dies_with_dfbuild(name: str, how: signal.Signals | None, media: Media) -> None:
    program = OWNER.format(path=[str(HERE), str(HERE.parent)], name=name, media=pickle.dumps(media))
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as owner:
        assert owner.stdin is not None and owner.stdout is not None and owner.stderr is not None
        pid, directory = owner.stdout.readline().split()
        hypervisor = os.pidfd_open(int(pid))
        try:
            assert not dead(int(pid))
            if how is not None:
                owner.send_signal(how)
            else:
                owner.stdin.close()
                assert owner.wait(10) == 0
                assert owner.stderr.read() == ""
            Deadline.after(1).select(hypervisor, what="the hypervisor's death")
        finally:
            os.close(hypervisor)
            owner.kill()
            shutil.rmtree(directory)
