"""xl's configuration and the Xen host's command line say what was asked for, and the agent keeps its turns."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, InfraError, UsageError
from dfbuild.guest import create
from dfbuild.guest.accel import Accel
from dfbuild.guest.argv import mac
from dfbuild.guest.process import HypervisorGone
from dfbuild.guest.protocol import GuestSpec
from dfbuild.guest.xen.agent import Agent
from dfbuild.guest.xen.argv import DOM0_MEMORY, PORTS, host_argv, host_memory, plugs
from dfbuild.guest.xen.domain import KINDS, configuration, console
from dfbuild.model import Disk, Media, Shape, XenHost

HOST = XenHost(Path("/h/xen"), Path("/h/a vm,linux"), Path("/h/initrd"), 768, state=Path("/h/state"))
MEDIA = Media(
    disks=(Disk(Path("/i/disk, 1.qcow2")),), kernel=Path("/i/vmlinux"), initrd=Path("/i/initrd"),
    append="root=/dev/xvda", xen=HOST,
)  # fmt: skip


def shape(hypervisor: str, **more: object) -> Shape:
    fields = {"disk": "xen-blk", "nic": "xen-net", "console": "xen", **more}
    return Shape("x", hypervisor=hypervisor, **fields)  # type: ignore[arg-type]


def spec(hypervisor: str = "xen-pv", media: Media = MEDIA, **more: object) -> GuestSpec:
    return GuestSpec("g", shape(hypervisor, **more), media, Path("/tmp/g"))


def read(text: str) -> dict[str, object]:
    """An xl configuration as Python reads it: its strings, numbers and lists are written alike."""
    found: dict[str, object] = {}
    exec(text, {"__builtins__": {}}, found)
    return found


# ── the domain ────────────────────────────────────────────────────────────────────────────────────────────────────
@given(
    hypervisor=st.sampled_from(sorted(KINDS)),
    sockets=st.integers(1, 4),
    cores=st.integers(1, 4),
    memory=st.integers(16, 4096),
    nx=st.booleans(),
    ssh=st.booleans(),
    wire=st.booleans(),
    disks=st.integers(0, 3),
)
def test_a_domain_has_what_its_shape_says(
    hypervisor: str, sockets: int, cores: int, memory: int, nx: bool, ssh: bool, wire: bool, disks: int
) -> None:
    media = replace(MEDIA, disks=MEDIA.disks * disks)
    it = GuestSpec(
        "g", shape(hypervisor, sockets=sockets, cores=cores, memory=memory, nx=nx), media, Path("/tmp/g"),
        ssh_port=22 if ssh else None, wire=wire,
    )  # fmt: skip
    said = read(configuration(it))
    assert (said["type"], said["vcpus"], said["memory"]) == (KINDS[hypervisor].type, sockets * cores, memory)
    assert said["cpuid"] == f"host,nx={int(nx)}"
    hvm = hypervisor == "xen-hvm"
    assert said.get("cmdline") == (None if hvm else "root=/dev/xvda")
    bridges = [bridge for bridge, wanted in (("xenbr0", ssh), ("xenbr1", wire)) if wanted]
    vifs = said["vif"]
    assert isinstance(vifs, list)
    assert vifs == [f"mac={mac('g', n)},bridge={bridge},type=vif" for n, bridge in enumerate(bridges)]
    boot = ["format=raw,vdev=hda,access=rw,target=/run/disk.102"] if hvm else []
    assert said["disk"] == boot + [
        f"format=raw,vdev=xvd{'abcd'[n + hvm]},access=rw,target=/run/disk.{n}" for n in range(disks)
    ]
    assert (said["on_poweroff"], said["on_reboot"], said["on_crash"]) == ("preserve",) * 3


def test_only_what_has_its_own_clock_is_given_it() -> None:
    assert "tsc_mode" not in read(configuration(spec("xen-pv")))
    assert read(configuration(spec("xen-pvh")))["tsc_mode"] == "native"


@pytest.mark.parametrize(("disk", "vdev"), [("ahci", "hda"), ("ide", "hda"), ("lsi53c895a", "sda")])
def test_an_hvm_guest_has_emulated_devices_and_boots_from_its_disk(disk: str, vdev: str) -> None:
    it = spec("xen-hvm", replace(MEDIA, kernel=None, initrd=None), disk=disk, nic="e1000", console="serial")
    said = read(configuration(it))
    assert "kernel" not in said and "cmdline" not in said
    assert said["disk"] == [f"format=raw,vdev={vdev},access=rw,target=/run/disk.0"]
    assert said["hdtype"] == ("ide" if disk == "ide" else "ahci")
    assert (said["serial"], console(it.shape)) == ("pty", "serial/0")
    vifs = said["vif"]
    assert isinstance(vifs, list) and all(vif.endswith(",model=e1000") for vif in vifs)


@pytest.mark.parametrize("hypervisor", ["xen-pv", "xen-pvh"])
def test_what_has_no_firmware_needs_a_kernel(hypervisor: str) -> None:
    with pytest.raises(UsageError, match="kernel"):
        configuration(spec(hypervisor, replace(MEDIA, kernel=None)))


@pytest.mark.parametrize(
    ("hypervisor", "field", "value"),
    [
        ("xen-pv", "disk", "virtio-blk"),
        ("xen-pvh", "nic", "e1000"),
        ("xen-pv", "console", "serial"),
        ("xen-hvm", "disk", "nvme"),
        ("xen-hvm", "console", "virtio"),
    ],
)
def test_devices_that_a_kind_cannot_have_are_refused(hypervisor: str, field: str, value: str) -> None:
    with pytest.raises(UsageError, match=value) as caught:
        configuration(spec(hypervisor, **{field: value}))
    assert caught.value.key == field


@pytest.mark.parametrize("bad", ['a"b', "a\\b", "a\nb", "a\x00b", "a\x7f"])
def test_words_that_would_end_a_string_are_refused(bad: str) -> None:
    with pytest.raises(UsageError, match="command line"):
        configuration(spec(media=replace(MEDIA, append=bad)))


def test_a_guest_says_before_it_starts_what_it_cannot_be() -> None:
    for it in (spec(disk="nvme"), spec(accel="kvm")):
        with pytest.raises(UsageError):
            create(it, Accel("tcg"))
    with pytest.raises(InfraError, match="no Xen host"):
        create(spec(media=replace(MEDIA, xen=None)), Accel("tcg"))


# ── the host ──────────────────────────────────────────────────────────────────────────────────────────────────────
def values(line: list[str], flag: str) -> list[str]:
    return [line[i + 1] for i, word in enumerate(line) if word == flag]


@given(ssh=st.booleans(), wire=st.booleans())
def test_a_hosts_devices_are_those_of_its_state_whatever_runs_on_it(ssh: bool, wire: bool) -> None:
    bare = GuestSpec("xen", Shape("xen"), Media(xen=HOST), Path("/tmp/x"), ssh_port=None, wire=False)
    it = replace(spec(), ssh_port=22 if ssh else None, wire=wire)
    devices = [values(host_argv(one, {}, restored=False), "-device") for one in (bare, it)]
    assert devices[0] == devices[1]
    assert len(values(host_argv(it, {}, restored=False), "-netdev")) == 2


def test_nothing_of_a_host_listens_beyond_this_machine() -> None:
    line = host_argv(spec(), dict.fromkeys(PORTS, 7), restored=True)
    assert values(line, "-incoming") == ["defer"]
    assert "user,id=mgmt,restrict=on,hostfwd=tcp:127.0.0.1:0-:22" in values(line, "-netdev")
    assert values(line, "-sandbox") and "spawn=deny" in values(line, "-sandbox")[0]


def test_a_modules_path_has_no_spaces_whatever_the_work_directory_has() -> None:
    (modules,) = values(host_argv(spec(), {}, restored=True), "-initrd")
    kernel, initrd = modules.split(",")
    assert kernel.split(" ")[0] == "/tmp/g/dom0" and initrd == "/tmp/g/dom0.initrd"


def test_what_a_domain_gets_is_plugged_in_once_the_host_is_up() -> None:
    assert {(plug["scsi-id"], plug["drive"]) for plug in plugs(spec())} == {
        (0, "disk0"), (100, "kernel"), (101, "initrd"),
    }  # fmt: skip


@given(st.integers(16, 1 << 16))
def test_a_host_has_room_for_its_guest(memory: int) -> None:
    assert host_memory(memory) >= memory + DOM0_MEMORY
    assert host_memory(memory) % 256 == 0


# ── the agent ─────────────────────────────────────────────────────────────────────────────────────────────────────
class Dom0:
    """The other end of an agent: answers what it is told to answer."""

    def __init__(self) -> None:
        ours, self.wire = socket.socketpair()
        self.agent = Agent(ours)

    def answer(self, data: bytes) -> None:
        """Answer the next command, from another thread."""

        def serve() -> None:
            self.wire.recv(4096)
            self.wire.sendall(data)

        threading.Thread(target=serve, daemon=True).start()


def soon() -> Deadline:
    return Deadline.after(10)


@pytest.mark.parametrize("said", [b"Welcome\nready\n", b"read", b"x" * 100000])
def test_a_host_that_says_something_else_first_is_told_at_once(said: bytes) -> None:
    dom0 = Dom0()
    dom0.wire.sendall(said)
    if said == b"read":
        dom0.wire.sendall(b"y\n")
        dom0.agent.await_ready(soon())
    else:
        with pytest.raises(InfraError, match="the shell there says") as caught:
            dom0.agent.await_ready(soon())
        assert "without a word" in caught.value.hint


def test_an_agent_returns_what_a_command_printed() -> None:
    dom0 = Dom0()
    dom0.answer(b"0 12\n0 3\nand more")
    assert dom0.agent.run("true", soon()) == "0 3\nand more"


def test_a_failure_carries_the_commands_words() -> None:
    dom0 = Dom0()
    dom0.answer(b"3 9\nno domain")
    with pytest.raises(InfraError, match="status 3: no domain"):
        dom0.agent.run("xl pause guest", soon())


def test_an_answer_that_comes_too_late_is_not_the_next_ones() -> None:
    dom0 = Dom0()
    with pytest.raises(DeadlineExceeded):
        dom0.agent.run("first", Deadline.after(0.05))
    dom0.wire.sendall(b"0 4\nla")
    dom0.answer(b"te0 2\nok")
    assert dom0.agent.run("second", soon()) == "ok"


def test_a_host_that_hangs_up_is_gone() -> None:
    dom0 = Dom0()
    dom0.wire.close()
    with pytest.raises(HypervisorGone):
        dom0.agent.run("true", soon())


def test_an_agent_takes_one_line() -> None:
    with pytest.raises(InfraError, match="one line"):
        Dom0().agent.run("a\nb", soon())


@pytest.mark.parametrize("nonsense", [b"hello\n", b"-1 3\n", b"0 99999999\n"])
def test_nonsense_for_an_answer_is_our_own_failure(nonsense: bytes) -> None:
    dom0 = Dom0()
    dom0.answer(nonsense)
    with pytest.raises(InfraError, match="answer"):
        dom0.agent.run("true", soon())
