"""Xen hosts that are given: who they are, how they are reached, what they lack, and what is done on one by its xl.

Here `xl` is a shell script: it makes no domains, but keeps a list of them, with a terminal for each.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from dfbuild.deadline import Deadline
from dfbuild.errors import InfraError, UsageError
from dfbuild.guest import create
from dfbuild.guest.accel import Accel
from dfbuild.guest.argv import mac
from dfbuild.guest.protocol import GuestSpec, State
from dfbuild.guest.xen import examine as examination
from dfbuild.guest.xen.examine import examine
from dfbuild.guest.xen.hosted import HostedGuest, panel_argv
from dfbuild.guest.xen.reach import SshReach, given, once, reach
from dfbuild.model import Disk, GivenXenHost, Media, Shape
from dfbuild.runtime import runtime_directory

LOCAL = GivenXenHost("local")
SHAPE = Shape("pv", hypervisor="xen-pv", disk="xen-blk", nic="xen-net", console="xen")


def soon() -> Deadline:
    return Deadline.after(30)


# ── where it is ───────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("where", ["", "nested"])
def test_hosts_are_made_unless_one_is_named(where: str) -> None:
    assert given(where) is None


@pytest.mark.parametrize(
    "where",
    ["local", "ssh://xen", "ssh://root@xen.example.org", "ssh://root@127.0.0.1:2222", "ssh://root@[fe80::1]:22"],
)
def test_a_named_host_is_taken_by_its_word(where: str) -> None:
    assert given(where) == GivenXenHost(where)


@pytest.mark.parametrize(
    "where",
    [
        "xen",
        "http://xen",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://-o@h",
        "ssh://a b",
        "ssh://h:22/x",
        "ssh://h\n",
    ],
)
def test_what_names_no_host_is_refused(where: str) -> None:
    with pytest.raises(UsageError, match="no Xen host") as caught:
        given(where)
    assert "ssh://" in caught.value.hint


@forall(st.text())
def test_no_word_becomes_an_option_of_ssh(word: str) -> None:
    try:
        host = given(f"ssh://{word}")
    except UsageError:
        return
    assert host is not None
    line = once(host, "true")
    assert line[-3:] == ["--", host.where, "true"] and not re.search(r"//-|@-|\s", host.where)


def test_ssh_asks_nobody_and_trusts_no_unknown_key() -> None:
    there = SshReach("ssh://root@h", Path("/tmp/g"), "dfbuild-1")
    for line in (there.first("true"), there.argv("true"), once(GivenXenHost("ssh://root@h"), "true")):
        assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "-a", "-x"} <= set(line)
    assert str(there.directory) == "/var/tmp/dfbuild-1"
    assert "-M" in there.first("true") and "-M" not in there.argv("true")


# ── what it has ───────────────────────────────────────────────────────────────────────────────────────────────────
def answering(monkeypatch: pytest.MonkeyPatch, words: str, status: int = 255) -> None:
    """Whoever is asked ends so."""
    script = f"printf '%s\\n' {shlex.quote(words)} >&2; exit {status}"
    monkeypatch.setattr(examination, "once", lambda host, command: ["sh", "-c", script])


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ("Host key verification failed.", "known_hosts"),
        ("root@h: Permission denied (publickey).", "ssh-add"),
        ("dfbuild: need 0", "xen-utils"),
        ("dfbuild: need 1", "root@host"),
        ("dfbuild: need 2", "boot it into Xen"),
    ],
)
def test_an_unfit_host_is_a_mistake_with_its_cure(monkeypatch: pytest.MonkeyPatch, words: str, cure: str) -> None:
    answering(monkeypatch, words)
    with pytest.raises(UsageError) as caught:
        examine(GivenXenHost("ssh://root@h"), [SHAPE], soon())
    assert cure in caught.value.hint and "ssh://root@h" in caught.value.message


def test_a_host_that_is_not_there_is_told_in_sshs_words(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "ssh: connect to host h port 22: Connection refused")
    with pytest.raises(UsageError, match="Connection refused"):
        examine(GivenXenHost("ssh://root@h"), [SHAPE], soon())


def test_a_host_whose_shell_talks_is_none_to_talk_through(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "Welcome to h", status=0)
    with pytest.raises(UsageError, match="says 'Welcome to h") as caught:
        examine(GivenXenHost("ssh://root@h"), [SHAPE], soon())
    assert "without a word" in caught.value.hint


def test_only_guests_with_firmware_or_page_tables_need_hardware_for_them() -> None:
    tests = [need.test for need in examination.needs([SHAPE])]
    assert not any("hvm" in test for test in tests)
    pvh = Shape("pvh", hypervisor="xen-pvh")
    assert any("hvm" in need.test for need in examination.needs([SHAPE, pvh]))


def test_a_machine_without_xen_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(examination, "_PATH", f"PATH={tmp_path}")
    (tmp_path / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="this machine has no xl") as caught:
        examine(LOCAL, [SHAPE], soon())
    assert "install" in caught.value.hint


# ── what is done there ────────────────────────────────────────────────────────────────────────────────────────────
def test_the_panel_is_nothing_but_networks() -> None:
    spec = GuestSpec("g", SHAPE, Media(kernel=Path("/k"), xen=LOCAL), Path("/tmp/g"))
    line = panel_argv(spec, {"mgmt": 7, "wire": 8})
    assert "none" in line[line.index("-machine") :][:2] and "-device" not in line
    networks = [line[i + 1] for i, word in enumerate(line) if word == "-netdev"]
    assert networks[0] == "user,id=mgmt,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"
    assert {"socket,id=mgmt-far,fd=7", "socket,id=wire-far,fd=8"} <= set(networks)
    assert {f"hubport,id={end}-hub,hubid=1,netdev={end}" for end in ("wire", "wire-far")} <= set(networks)


def test_guests_of_one_host_have_nothing_in_common() -> None:
    media = Media(
        disks=(Disk(Path("/i/d")),), kernel=Path("/i/vmlinux"), xen=GivenXenHost("ssh://root@h", Path("/tap"))
    )
    guests = [create(GuestSpec("g", SHAPE, media, Path(f"/tmp/g{n}")), Accel("tcg")) for n in range(2)]
    places = []
    for guest in guests:
        assert isinstance(guest, HostedGuest)
        text = guest._configuration
        place = guest._place
        assert f'name = "{place.name}"' in text and f"target={place.directory}/disk.0" in text
        assert f'kernel = "{place.directory}/kernel"' in text
        for number, bridge in enumerate(place.bridges.values()):
            assert len(bridge) < 16 and f"mac={mac('g', number)},bridge={bridge},type=vif" in text
        places.append(place)
    assert not {*places[0].bridges.values()} & {*places[1].bridges.values()}
    assert places[0].name != places[1].name and places[0].directory != places[1].directory


def test_a_host_that_is_nobodys_is_refused() -> None:
    with pytest.raises(InfraError, match="none is named"):
        HostedGuest(GuestSpec("g", SHAPE, Media(kernel=Path("/k")), Path("/tmp/g")), Accel("tcg"))
    with pytest.raises(InfraError, match="none is named"):
        create(GuestSpec("g", SHAPE, Media(kernel=Path("/k"), xen=LOCAL), Path("/tmp/g")), Accel("tcg"))


FAKES = {
    # One domain, number 7. What it does is what `$state/told` says; its terminal is a pipe both ways.
    "xl": """
echo "$@" >>"$FAKE/calls"
case $1 in
create)
    grep -q '^kernel = ' domain.cfg && cmp kernel "$FAKE/kernel" && cmp disk.0 "$FAKE/disk" || exit 1
    touch "$FAKE/domain"; mkfifo "$FAKE/tty" ;;
unpause) printf 'hello from the domain\\n' >"$FAKE/tty" ;;
domid) [ -e "$FAKE/domain" ] && echo 7 ;;
list)
    echo "Name ID Mem VCPUs State Time(s) UUID Reason-Code Security Label"
    [ ! -e "$FAKE/domain" ] || echo "$3 7 256 1 ------ 1.0 u $(cat "$FAKE/reason" 2>/dev/null || echo -) -" ;;
vcpu-list) printf 'Name ID VCPU CPU State\\nd 7 0 1 -b-\\n' ;;
destroy) rm "$FAKE/domain" "$FAKE/tty" ;;
dmesg) echo "(XEN) Xen version 4.17" ;;
esac
""",
    "xenctx": "echo 'rip: ffffffff81000000 nowhere'\n",
    "xenstore-read": 'echo "$FAKE/tty"\n',
    "xenstore-watch": 'echo "$1"; exec cat "$FAKE/releases"\n',
    "losetup": """
echo "losetup $@" >>"$FAKE/calls"
case $1 in -f) echo "$FAKE/loop" ;; -d) ;; *) cp "$2" "$1" ;; esac
""",
    "ip": 'echo "ip $@" >>"$FAKE/calls"\n',
    "modprobe": "true\n",
}


@dataclass
class Host:
    """A local Xen host of shell scripts."""

    state: Path
    spec: GuestSpec

    def calls(self) -> str:
        return (self.state / "calls").read_text()

    def end(self, reason: int) -> None:
        """The domain ends by itself."""
        (self.state / "reason").write_text(str(reason))
        (self.state / "releases").open("w").write("@releaseDomain\n")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    programs, state = tmp_path / "bin", tmp_path / "state"
    programs.mkdir()
    state.mkdir()
    for name, text in FAKES.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}")
        (programs / name).chmod(0o755)
    os.mkfifo(state / "releases")
    keep = os.open(state / "releases", os.O_RDWR)  # as xenstore-watch, it goes on
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(state))
    (state / "kernel").write_bytes(os.urandom(100_000))
    (state / "disk").write_bytes(bytes(1 << 20) + b"data" * 128 + bytes(1 << 20))
    given = replace(LOCAL, tap=state / "tap")
    media = Media(disks=(Disk(state / "disk", "raw"),), kernel=state / "kernel", xen=given)
    (state / "tap").write_text("#!/bin/sh\nexec cat\n")  # what is on the domain's networks comes back
    (state / "tap").chmod(0o755)
    spec = GuestSpec("g", SHAPE, media, runtime_directory("t"))
    yield Host(state, spec)
    os.close(keep)
    shutil.rmtree(spec.directory)


def read(console: socket.socket, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        soon().select(console.fileno(), what=f"{text!r} after {seen!r}")
        received = console.recv(4096)
        assert received, f"the console ended after {seen!r}"
        seen += received
    return seen


def finish(console: socket.socket) -> None:
    """Read what comes until the console's end."""
    while True:
        soon().select(console.fileno(), what="the console's end")
        if not console.recv(4096):
            return


def test_it_is_created_with_its_files_and_its_console_and_leaves_nothing(host: Host) -> None:
    guest = create(host.spec, Accel("tcg"))
    with guest.start(soon()) as console:
        read(console, b"hello from the domain")
        assert guest.state is State.RUNNING
        place = host.spec.directory / "xen"
        assert place.stat().st_mode & 0o777 == 0o700
        image = (place / "image.0").stat()
        assert image.st_size == (2 << 20) + 512 and image.st_blocks * 512 < image.st_size, "holes stay holes"
        assert "running" in guest.diagnose(soon()) and "rip: " in guest.diagnose(soon())
        guest.pause(soon())
        guest.resume(soon())
        end = guest.stop(soon())
        assert end.rung == "quit"
        assert not place.exists()
        finish(console)
    calls = host.calls()
    name = re.search(r"destroy (dfbuild-\w+)", calls)
    assert name is not None and f"pause {name[1]}" in calls and f"losetup -d {host.state}/loop" in calls
    assert "Xen version 4.17" in (host.spec.directory / "xl-dmesg.txt").read_text()


def test_frames_pass_between_its_bridges_and_the_wire(host: Host) -> None:
    guest = create(host.spec, Accel("tcg"))
    ends = guest.wire_ends()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.bind(str(ends.peer))
        with guest.start(soon()):
            for size in (60, 1514, 61):
                frame = b"\xff" * 6 + os.urandom(size - 6)
                wire.sendto(frame, str(ends.guest))
                soon().select(wire.fileno(), what="the frame")
                assert wire.recv(4096) == frame
            assert guest.ssh_address(soon())[0] == "127.0.0.1"
            guest.stop(soon())
    bridges = set(re.findall(r"ip link add (dfb\w+) type bridge", host.calls()))
    taps = set(re.findall(r"ip tuntap add dev (dfb\w+) mode tap", host.calls()))
    assert len(bridges) == len(taps) == 2 and max(map(len, bridges | taps)) < 16


@pytest.mark.parametrize(("reason", "cause"), [(0, "guest-shutdown"), (1, "guest-reset")])
def test_a_domain_that_ends_ends_its_guest(host: Host, reason: int, cause: str) -> None:
    guest = create(host.spec, Accel("tcg"))
    with guest.start(soon()) as console:
        read(console, b"hello from the domain")
        host.end(reason)
        finish(console)
        end = guest.wait(soon())
    assert (end.status, end.rung, end.cause) == (0, "guest", cause)
    assert not (host.spec.directory / "xen").exists()


def test_a_domain_that_crashes_says_so_on_its_console_and_is_kept(host: Host) -> None:
    guest = create(host.spec, Accel("tcg"))
    with guest.start(soon()) as console:
        host.end(3)
        assert b"CPU#0" in read(console, b"Xen version 4.17")
        assert "reason code 3" in guest.diagnose(soon())
        guest.stop(soon())


def test_what_xl_refuses_is_told_in_its_words(host: Host) -> None:
    (host.state.parent / "bin" / "xl").write_text("#!/bin/sh\necho 'not enough free memory'; exit 3\n")
    guest = create(host.spec, Accel("tcg"))
    with pytest.raises(InfraError, match="not enough free memory") as caught:
        guest.start(soon())
    assert "mem-set" in caught.value.hint
    assert not (host.spec.directory / "xen").exists()


OWNER = """
import sys
from pathlib import Path
from dfbuild.deadline import Deadline
from dfbuild.guest import create
from dfbuild.guest.accel import Accel
from dfbuild.guest.protocol import GuestSpec
from dfbuild.model import Disk, GivenXenHost, Media, Shape
state, directory = map(Path, sys.argv[1:])
xen = GivenXenHost("local", state / "tap")
media = Media(disks=(Disk(state / "disk", "raw"),), kernel=state / "kernel", xen=xen)
shape = Shape("pv", hypervisor="xen-pv", disk="xen-blk", nic="xen-net", console="xen")
guest = create(GuestSpec("g", shape, media, directory), Accel("tcg"))
console = guest.start(Deadline.after(30))
print("up", flush=True)
sys.stdin.read()
"""


def test_a_killed_dfbuild_leaves_nothing_on_the_host(host: Host) -> None:
    argv = [sys.executable, "-c", OWNER, str(host.state), str(host.spec.directory)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        watched = os.open(host.spec.directory / "xen" / "console.output", os.O_RDONLY | os.O_NONBLOCK)
        owner.kill()
    try:
        # The last who has it open is the agent: it ends when all is removed.
        limit = soon()
        while True:
            limit.select(watched, what="the agent's end")
            if not os.read(watched, 4096):
                break
    finally:
        os.close(watched)
    assert not (host.spec.directory / "xen").exists()
    assert "destroy dfbuild-" in host.calls()


def test_reach_is_by_the_hosts_word(tmp_path: Path) -> None:
    assert reach(LOCAL, tmp_path, "i").directory.parts[-1] == "xen"
    assert isinstance(reach(GivenXenHost("ssh://h"), tmp_path, "i"), SshReach)
