"""Where a guest's CPUs are, and who called whom: the frames that code with frame pointers leaves on its stack.

In: what QEMU's human monitor prints. Pure but for `read`, which asks the monitor for two words of a CPU's memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MOST = 24
"""Frames."""
_STACK = 64 << 10
"""Bytes that a kernel's stack is no larger than."""

_CPU = re.compile(r"^CPU#(\d+)\s*$", re.MULTILINE)
_POINTER = re.compile(r"\b([ER])(IP|BP|SP)\s*=([0-9a-f]{8,16})\b")
_STATE = re.compile(r"\bCPL=(\d).*\bHLT=(\d)")
_WORDS = re.compile(r"^[0-9a-f]+: 0x([0-9a-f]+) 0x([0-9a-f]+)\s*$", re.MULTILINE)

Read = Callable[[int, str], str]
"""The number of a CPU and a command of the human monitor to what that prints."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """One CPU's registers, as far as they say where it is. `wide` is 64 bits."""

    number: int
    wide: bool
    instruction: int
    frame: int
    stack: int
    kernel: bool
    halted: bool


def cpus(registers: str) -> list[Cpu]:
    """The CPUs in what `info registers -a` prints; without those that it says too little of."""
    _, *parts = _CPU.split(registers)
    found = []
    for number, text in zip(parts[::2], parts[1::2], strict=True):
        pointers = {name: (width, int(value, 16)) for width, name, value in _POINTER.findall(text)}
        state = _STATE.search(text)
        if state is None or len(pointers) < 3:
            continue
        (width, instruction), (_, frame), (_, stack) = pointers["IP"], pointers["BP"], pointers["SP"]
        found.append(Cpu(int(number), width == "R", instruction, frame, stack, state[1] == "0", state[2] == "1"))
    return found


def backtrace(cpu: Cpu, read: Read) -> Iterator[str]:
    """Lines with the address where `cpu` is, and from where that was called: innermost first.

    Nothing is said of a user program's stack, nor of one that no frame pointer leads through.
    """
    digits, size = (16, "g") if cpu.wide else (8, "w")
    state = "" if cpu.kernel else ", in user mode"
    yield f"at {cpu.instruction:0{digits}x}{state}{', halted' if cpu.halted else ''}"
    below, frame = cpu.stack, cpu.frame
    for _ in range(MOST if cpu.kernel else 0):
        # Frames lie one above the other. A guest can write there what it likes.
        if not below <= frame <= below + _STACK:
            return
        words = _WORDS.search(read(cpu.number, f"x /2{size}x 0x{frame:x}"))
        if words is None:
            return
        below, (frame, caller) = frame + 1, (int(word, 16) for word in words.groups())
        if not caller:
            return
        yield f"from {caller:0{digits}x}"
