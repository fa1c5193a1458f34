"""Who called whom in a guest, out of what the human monitor prints."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dfbuild.guest.backtrace import MOST, Cpu, backtrace, cpus

RECORDED = Path(__file__).parents[1] / "recorded" / "guest"
HERE = Cpu(0, True, 0xFFFFFFFF80300030, 0xFFFFFFFF81001000, 0xFFFFFFFF81000FE0, kernel=True, halted=False)


def test_where_the_cpus_are() -> None:
    (only,) = cpus((RECORDED / "registers-smp1.txt").read_text())
    assert (only.number, only.wide) == (0, True)
    assert f"RIP={only.instruction:016x}" in (RECORDED / "registers-smp1.txt").read_text()


def test_two_cpus_one_of_them_in_32_bits() -> None:
    text = (
        "\nCPU#0\nRAX=0000000000000001 RBP=ffffffff81001000 RSP=ffffffff81000fe0\n"
        "RIP=ffffffff80300030 RFL=00000202 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0\n"
        "\nCPU#1\nESI=00000000 EDI=00000000 EBP=bfbff000 ESP=bfbfefe0\n"
        "EIP=08048000 EFL=00000246 [---Z-P-] CPL=3 II=0 A20=1 SMM=0 HLT=1\n"
    )
    one, two = cpus(text)
    assert one == HERE
    assert (two.wide, two.instruction, two.kernel, two.halted) == (False, 0x8048000, False, True)
    assert list(backtrace(two, lambda cpu, command: "")) == ["at 08048000, in user mode, halted"]


def test_the_frames_lead_out() -> None:
    frames = {
        "x /2gx 0xffffffff81001000": "ffffffff81001000: 0xffffffff81001080 0xffffffff80400012\r\n",
        "x /2gx 0xffffffff81001080": "ffffffff81001080: 0x0000000000000000 0xffffffff80500034\r\n",
    }
    assert list(backtrace(HERE, lambda cpu, command: frames[command])) == [
        "at ffffffff80300030",
        "from ffffffff80400012",
        "from ffffffff80500034",
    ]


def test_32_bits_have_words_of_their_own() -> None:
    cpu = Cpu(3, False, 0xC0300030, 0xC1001000, 0xC1000FE0, kernel=True, halted=False)
    asked = []

    def read(number: int, command: str) -> str:
        asked.append((number, command))
        return "c1001000: 0x00000000 0xc0400012\r\n"

    assert list(backtrace(cpu, read)) == ["at c0300030", "from c0400012"]
    assert asked == [(3, "x /2wx 0xc1001000")]


def test_what_is_not_a_stack_is_not_followed() -> None:
    for answer in ("Cannot access memory\r\n", "", "ffffffff81001000: 0xffffffff81001080 0x0\r\n"):
        assert list(backtrace(HERE, lambda cpu, command, answer=answer: answer)) == ["at ffffffff80300030"]


@given(st.data())
def test_no_guest_keeps_it_reading(data: st.DataObject) -> None:
    word = st.integers(0, 2**64 - 1) | st.integers(HERE.frame, HERE.frame + 4096)

    def read(number: int, command: str) -> str:
        return f"0: {data.draw(word):#x} {data.draw(word):#x}"

    assert len(list(backtrace(HERE, read))) <= MOST + 1


@given(st.text())
def test_any_text_has_cpus_or_none(text: str) -> None:
    for cpu in cpus(f"CPU#0\n{text}"):
        assert cpu.number >= 0
