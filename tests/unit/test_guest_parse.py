"""What QEMU's human monitor prints, and what is made of it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.errors import InfraError, UsageError
from dfbuild.guest import create
from dfbuild.guest.accel import Accel, for_shape
from dfbuild.guest.directory import prepare_directory
from dfbuild.guest.firmware import PROGRESS, STAGES, probe_rom
from dfbuild.guest.monitor import ResetWatch, compact_registers, forwarded_port, shutdown_cause
from dfbuild.guest.protocol import GuestSpec, State
from dfbuild.model import Media, Shape

RECORDED = Path(__file__).parents[1] / "recorded" / "guest"


@pytest.mark.parametrize(("file", "port"), [("usernet-idle.txt", 45763), ("usernet-connected.txt", 43903)])
def test_the_forwarded_port_is_the_hosts(file: str, port: int) -> None:
    assert forwarded_port((RECORDED / file).read_text()) == port


@pytest.mark.parametrize(
    "text", ["", "Hub -1 (mgmt):\n", "  TCP[ESTABLISHED]  23  127.0.0.1 43903  10.0.2.15  22  0  0\n"]
)
def test_no_forward_is_an_error(text: str) -> None:
    with pytest.raises(InfraError, match="forwards no port"):
        forwarded_port(text)


@given(st.text())
def test_any_text_gives_a_port_or_an_error(text: str) -> None:
    with contextlib.suppress(InfraError):
        assert forwarded_port(text) >= 0


def test_registers_are_cut_to_what_says_where_a_cpu_is() -> None:
    text = (RECORDED / "registers-smp1.txt").read_text()
    lines = compact_registers(text)
    assert lines[0] == "CPU#0"
    assert any(line.startswith("RIP=") for line in lines)
    assert not any(line.startswith(("FPR", "XMM", "YMM", "FCW")) for line in lines)
    assert len(lines) < 12 < len(text.splitlines())


def test_the_last_shutdown_is_the_cause() -> None:
    events = [
        {"event": "RESUME"},
        {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-reset"}},
        {"event": "SHUTDOWN", "data": {"guest": False, "reason": "host-qmp-quit"}},
    ]
    assert shutdown_cause(events) == "host-qmp-quit"
    assert shutdown_cause(events[:1]) == ""


def own_resets(*seen: tuple[str, float]) -> list[bool]:
    """What a watch says of RESET events from here (H) and from inside (G), each at its time."""
    watch = ResetWatch()
    return [
        watch.feed(
            {
                "event": "RESET",
                "data": {"guest": who == "G"},
                "timestamp": {"seconds": int(at), "microseconds": int(at % 1 * 1e6)},
            }
        )
        for who, at in seen
    ]


def test_the_firmwares_resets_after_one_from_here_are_not_the_guests() -> None:
    recorded = [("H", 874.680), ("G", 874.736), ("G", 874.736), ("H", 875.049), ("G", 875.098), ("G", 875.117)]
    assert not any(own_resets(*recorded))
    close = [("H", 1.459), ("H", 1.462), ("H", 1.467), ("G", 1.526), ("G", 1.528)]
    assert not any(own_resets(*close))


def test_a_guests_own_reset_is_seen_at_once_or_after_the_firmwares_time() -> None:
    assert own_resets(("G", 5.0)) == [True]
    assert own_resets(("H", 5.0), ("G", 5.1), ("G", 20.0)) == [False, False, True]
    assert not ResetWatch().feed({"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 0}})


@pytest.mark.parametrize("hypervisor", ["xen", "", "QEMU"])
def test_other_hypervisors_are_refused(hypervisor: str) -> None:
    spec = GuestSpec("g", Shape("pv", hypervisor=hypervisor), Media(), Path("/tmp/g"))
    with pytest.raises(UsageError, match="pv") as caught:
        create(spec, Accel("tcg"))
    assert "qemu" in caught.value.hint


def test_creating_touches_nothing(tmp_path: Path) -> None:
    guest = create(GuestSpec("g", Shape("up"), Media(), tmp_path / "none"), Accel("tcg"))
    assert guest.state is State.NEW and guest.command()[0] == "qemu-system-x86_64"
    assert not (tmp_path / "none").exists()


def test_the_shape_may_name_its_accelerator() -> None:
    found = Accel("kvm", "it ran")
    assert for_shape(Shape("x"), found) is found
    assert for_shape(Shape("x", accel="tcg"), found).name == "tcg"
    with pytest.raises(UsageError, match="hvf"):
        for_shape(Shape("x", accel="hvf"), found)


def test_a_directory_others_can_enter_is_refused(tmp_path: Path) -> None:
    made = tmp_path / "new"
    prepare_directory(made)
    assert made.stat().st_mode & 0o777 == 0o700
    prepare_directory(made)
    for mode in (0o750, 0o701, 0o777):
        made.chmod(mode)
        with pytest.raises(InfraError, match="only its owner"):
            prepare_directory(made)


def test_a_link_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(InfraError, match="only its owner"):
        prepare_directory(tmp_path / "link")


def test_a_path_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match=r"too long a path for sockets by \d+ bytes"):
        prepare_directory(tmp_path / ("d" * 110))
    with pytest.raises(InfraError, match="absolute"):
        prepare_directory(Path("relative"))


def test_the_probe_rom_begins_where_the_cpu_does() -> None:
    rom = probe_rom()
    assert len(rom) == 64 << 10
    assert rom[-16:-11] == bytes.fromhex("ea 00 fe 00 f0")  # jmp f000:fe00
    assert rom[0xFE00] == 0xFA and not any(rom[:0xFE00])  # cli


def test_every_early_end_of_the_probe_has_its_meaning() -> None:
    assert set(STAGES) == {PROGRESS[:n] for n in range(len(PROGRESS))}
