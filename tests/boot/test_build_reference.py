"""The reference guest: what it boots into, how it misbehaves on request, and that it is the same every time."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dfbuild.build.recipe import DISK, Artefact
from dfbuild.build.reference import image as parts
from dfbuild.build.store import ArtefactStore, build_all
from dfbuild.build.targets import target
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded
from dfbuild.guest import create
from dfbuild.guest.accel import Accel
from dfbuild.guest.protocol import Guest, GuestSpec
from dfbuild.model import Cell, Media, StepKind, Variant
from dfbuild.releases import load
from dfbuild.runtime import runtime_directory
from dfbuild.workspace import Workspace

pytestmark = pytest.mark.boot

REFERENCE = load("reference")
LOGIN = b"reference login: "
BOOT_SECONDS = 180  # a starving emulated guest is slow; alone it takes three seconds
SILENCE_SECONDS = 1.0
FLOOD_PART = 300_000


class Terminal:
    """A guest and the other end of its console."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.deadline = Deadline.after(BOOT_SECONDS, what="the guest")
        self.console = guest.start(self.deadline)
        self.seen = bytearray()

    def until(self, text: bytes) -> bytes:
        """Everything up to and with `text`."""
        start = 0
        while (at := self.seen.find(text, start)) < 0:
            start = max(0, len(self.seen) - len(text))
            self.more()
        return self.take(at + len(text))

    def take(self, count: int) -> bytes:
        while len(self.seen) < count:
            self.more()
        found = bytes(self.seen[:count])
        del self.seen[:count]
        return found

    def more(self) -> None:
        self.deadline.select(self.console.fileno(), what=f"more than {bytes(self.seen[-200:])!r}")
        received = self.console.recv(1 << 20)
        assert received, f"the console ended after {bytes(self.seen[-500:])!r}"
        self.seen += received

    def type(self, line: str) -> None:
        """Raises `TimeoutError` where the guest has stopped to read and everything between is full."""
        self.console.settimeout(self.deadline.remaining())
        self.console.sendall(line.encode() + b"\r")

    def log_in(self) -> None:
        self.until(LOGIN)
        self.type("root")
        self.until(b"# ")
        self.type("stty -echo")
        self.until(b"# ")

    def run(self, command: str) -> str:
        """What `command` prints."""
        self.type(f"{command}; echo the' 'end")
        printed = self.until(b"the end\r\n# ").decode(errors="replace")
        return printed.removesuffix("the end\r\n# ").strip().replace("\r\n", "\n")

    def await_silence(self) -> None:
        """Return once nothing comes any more, not even an echo of what is typed.

        Typed again only when it is quiet: the echo comes byte by byte, and a line for each would fill what is
        between this and a guest that reads slowly.
        """
        while True:
            self.type("anybody there?")
            if not self.comes_more():
                return
            while self.comes_more():
                pass

    def comes_more(self) -> bool:
        """Whether anything came within `SILENCE_SECONDS`."""
        self.deadline.check("the guest to fall silent")
        try:
            self.deadline.sooner(SILENCE_SECONDS).select(self.console.fileno())
        except DeadlineExceeded:
            return False
        self.more()
        return True


Boot = Callable[..., Terminal]


@contextlib.contextmanager
def starting(workspace: Workspace, reference_image: Artefact, reference_cell: Cell) -> Iterator[Boot]:
    """Starts guests: `fault` is a word of images/reference/faults.h, further words change the shape."""
    started: list[Guest] = []

    def start(fault: str = "", **changes: object) -> Terminal:
        shape = dataclasses.replace(reference_cell.shape, **changes)  # type: ignore[arg-type]
        cell = dataclasses.replace(reference_cell, shape=shape)
        media: Media = target(REFERENCE).media(REFERENCE, cell, reference_image, workspace)
        if fault:
            media = dataclasses.replace(media, append=f"{media.append} dfbuild.fault={fault}")
        spec = GuestSpec(f"reference{len(started)}", shape, media, runtime_directory("build"))
        started.append(create(spec, Accel("tcg")))
        return Terminal(started[-1])

    yield start
    for guest in started:
        guest.stop(Deadline.after(30))
        shutil.rmtree(guest.spec.directory)


@pytest.fixture
def boot(workspace: Workspace, reference_image: Artefact, reference_cell: Cell) -> Iterator[Boot]:
    """They end with the test: one that panicked turns its CPU to the end."""
    with starting(workspace, reference_image, reference_cell) as start:
        yield start


@pytest.fixture(scope="module")
def healthy(workspace: Workspace, reference_image: Artefact, reference_cell: Cell) -> Iterator[Terminal]:
    with starting(workspace, reference_image, reference_cell) as start:
        terminal = start(sockets=2)
        assert b"Linux version" in terminal.until(b"\n")
        terminal.log_in()
        yield terminal


def test_it_is_a_system_of_its_own(healthy: Terminal) -> None:
    assert healthy.run("hostname; whoami; tty").split() == ["reference", "root", "/dev/ttyS0"]
    assert healthy.run("cat /proc/1/comm") == "init"
    assert healthy.run("nproc") == "2"
    mounts = healthy.run("cat /proc/mounts").splitlines()
    places = {line.split()[1]: line.split()[2] for line in mounts if not line.startswith("rootfs")}
    assert {"/": "ext4", "/proc": "proc", "/sys": "sysfs", "/tmp": "tmpfs", "/dev/pts": "devpts"}.items() <= (
        places.items()
    )


def test_there_is_room_for_copies(healthy: Terminal) -> None:
    assert int(healthy.run("df -m /var/tmp | tail -1").split()[3]) >= 300


def test_the_network_is_up_without_waiting(healthy: Terminal) -> None:
    assert "inet 10.0.2.15/24" in healthy.run("ip addr show eth0")
    assert healthy.run("ip route").startswith("default via 10.0.2.2 dev eth0")
    assert "state DOWN" in healthy.run("ip addr show eth1") or "UP" not in healthy.run("ip link show eth1")
    assert "127.0.0.1:22" not in healthy.run("netstat -tln") and ":22" in healthy.run("netstat -tln")


def test_sshd_speaks_to_the_host(healthy: Terminal) -> None:
    deadline = Deadline.after(30)
    with socket.create_connection(healthy.guest.ssh_address(deadline), timeout=30) as connection:
        assert connection.recv(8) == b"SSH-2.0-"


def test_the_suites_programs_are_there_and_run(healthy: Terminal, reference_image: Artefact) -> None:
    listed = healthy.run(f"ls -1 {REFERENCE.probes}").split()
    assert listed == list(reference_image.facts["probes"]) and listed
    for name in listed:
        # Whatever they answer without arguments, the dynamic linker has nothing to complain of.
        assert "not found" not in healthy.run(f"{REFERENCE.probes}/{name} 2>&1 < /dev/null | head -c 300")


def test_protections_that_checks_look_at_are_on(healthy: Terminal) -> None:
    assert healthy.run("cat /proc/sys/kernel/randomize_va_space") == "2"
    assert healthy.run("grep -c ' nx ' /proc/cpuinfo") == "2"


def test_orphans_are_reaped(healthy: Terminal) -> None:
    healthy.run("for i in 1 2 3; do (sleep 0.01 & exec true); done; sleep 0.3")
    assert healthy.run("ps -o stat,args | grep -c '^Z'") == "0"


def test_a_login_that_ends_is_followed_by_another(healthy: Terminal) -> None:
    healthy.type("exit")
    healthy.log_in()


def test_the_power_button_shuts_it_down(boot: Boot) -> None:
    terminal = boot()
    terminal.log_in()
    terminal.guest.power_button(terminal.deadline)
    terminal.until(b"Power down")
    assert terminal.guest.wait(terminal.deadline).rung == "guest"


@pytest.mark.parametrize(
    ("fault", "words"), [("panic", b"sysrq triggered crash"), ("init-exit", b"Attempted to kill init!")]
)
def test_it_panics_before_the_login(boot: Boot, fault: str, words: bytes) -> None:
    printed = boot(fault).until(b"---[ end Kernel panic")
    assert b"Kernel panic - not syncing: " + words in printed
    assert LOGIN not in printed


def test_it_hangs_before_the_login(boot: Boot) -> None:
    terminal = boot("hang", sockets=2)
    assert LOGIN not in terminal.until(b"virtio_blk virtio")
    terminal.await_silence()
    assert LOGIN not in terminal.seen


def test_it_wedges_at_the_login(boot: Boot) -> None:
    terminal = boot("wedge", sockets=2)
    terminal.until(LOGIN)
    terminal.await_silence()


def test_garbage_is_followed_by_a_login_that_works(boot: Boot) -> None:
    terminal = boot("garbage")
    garbage = terminal.until(b"garbage ends")
    assert set(garbage) == set(range(256))
    assert len(garbage) > 1 << 20
    assert b"\x1b[2J" in garbage and b"<script>" in garbage
    terminal.log_in()
    assert terminal.run("echo fine") == "fine"


def flood_line(number: int) -> bytes:
    """Line `number` of the flood, as images/reference/faults.h documents it."""
    return b"flood %08d " % number + bytes(33 + (number * 7 + i * 13) % 94 for i in range(83)) + b"\r\n"


def test_the_flood_is_what_its_documentation_says(boot: Boot) -> None:
    """A part of it, over the slow console that loses nothing; the whole over virtio is the console's own test."""
    terminal = boot("flood")
    assert LOGIN not in terminal.until(b"flood begins\r\n")
    assert terminal.take(FLOOD_PART) == b"".join(flood_line(number) for number in range(FLOOD_PART // 100))
    terminal.guest.stop(Deadline.after(30))


def test_a_virtio_console_says_it_all_from_the_beginning(boot: Boot) -> None:
    terminal = boot(console="virtio")
    assert b"Linux version" in terminal.until(b"\n")
    terminal.log_in()
    assert terminal.run("tty") == "/dev/hvc0"


@pytest.mark.parametrize("protector", list(REFERENCE.stack_protectors))
@pytest.mark.parametrize("toolchain", list(REFERENCE.toolchains))
def test_every_variant_builds_and_is_proven(
    workspace: Workspace, reference_cell: Cell, toolchain: str, protector: str
) -> None:
    cell = dataclasses.replace(reference_cell, variant=Variant("reference", toolchain, protector, "smp"))
    recipe = target(REFERENCE).image(REFERENCE, cell, workspace)
    build_all(recipe, ArtefactStore(workspace), Deadline.after(600), print)
    (made,) = (need for need in recipe.needs if need.kind == StepKind.WORLD)
    world = ArtefactStore(workspace).find(made)
    assert world is not None
    sites = world.facts["protector"]["sites"]
    assert world.facts["objects"] > 1
    assert sites > world.facts["objects"] if protector == "on" else sites == 0


def test_the_image_is_the_same_wherever_it_is_made(
    workspace: Workspace, reference_image: Artefact, reference_cell: Cell, tmp_path: Path
) -> None:
    elsewhere = Workspace(tmp_path / "elsewhere")
    # The same keys, and the downloads as they are: neither is what is tested here.
    shutil.copytree(workspace.identities, elsewhere.identities)
    shutil.copytree(workspace.artefacts / StepKind.FETCH, elsewhere.artefacts / StepKind.FETCH)
    recipe = target(REFERENCE).image(REFERENCE, reference_cell, elsewhere)
    again = build_all(recipe, ArtefactStore(elsewhere), Deadline.after(600), print)
    assert again.key == reference_image.key
    for name in (parts.KERNEL, parts.INITRD, DISK):
        assert (again.path / name).read_bytes() == (reference_image.path / name).read_bytes(), name
