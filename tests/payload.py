"""What stands in for an operating system: up in 0.1 s, does on the console what it is told.

It is a boot sector with a serial console, or for paravirtual guests of Xen a kernel (`xen_payload.c`).

It prints `BANNER` and then echoes what it reads, but for these letters:

    P  power off
    R  reset (of the boot sector by the keyboard controller)
    T  triple fault (the boot sector)
    H  halt with interrupts off
    W  write the disk's second sector: prints w, or e for an error
    F  print all bytes in turn, for ever
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from dfbuild.guest.firmware import machine_code

BANNER = b"payload up\r\n"

_CODE = """
    # start:
    fa              # cli
    31 c0           # xor %ax,%ax
    8e d8           # mov %ax,%ds
    8e c0           # mov %ax,%es
    8e d0           # mov %ax,%ss
    bc 00 7c        # mov $0x7c00,%sp
    fb              # sti
    be 94 7c        # mov $banner,%si
    ac              # lods %ds:(%si),%al
    84 c0           # test %al,%al
    74 05           # je loop
    e8 66 00        # call put
    eb f6           # jmp (lods)
    # loop:
    e8 53 00        # call get
    3c 50           # cmp $'P',%al
    74 19           # je power
    3c 52           # cmp $'R',%al
    74 20           # je reset
    3c 54           # cmp $'T',%al
    74 22           # je triple
    3c 48           # cmp $'H',%al
    74 14           # je halt
    3c 46           # cmp $'F',%al
    74 20           # je flood
    3c 57           # cmp $'W',%al
    74 23           # je write
    e8 46 00        # call put
    eb e0           # jmp loop
    # power: SLP_EN and S5 to where SeaBIOS puts PM1a_CNT
    ba 04 06        # mov $0x604,%dx
    b8 00 20        # mov $0x2000,%ax
    ef              # out %ax,(%dx)
    # halt:
    fa              # cli
    f4              # hlt
    eb fc           # jmp halt
    # reset:
    b0 fe           # mov $0xfe,%al
    e6 64           # out %al,$0x64
    eb f6           # jmp halt
    # triple:
    0f 01 1e 8e 7c  # lidtw zero
    cc              # int3
    # flood:
    e8 2a 00        # call put
    fe c0           # inc %al
    eb f9           # jmp flood
    # write: BIOS function 3, one sector, cylinder 0, sector 2, the disk booted from
    b8 01 03        # mov $0x301,%ax
    b9 02 00        # mov $0x2,%cx
    30 f6           # xor %dh,%dh
    bb 00 7c        # mov $0x7c00,%bx
    cd 13           # int $0x13
    b0 77           # mov $'w',%al
    73 02           # jae (call put)
    b0 65           # mov $'e',%al
    e8 10 00        # call put
    eb aa           # jmp loop
    # get:
    52              # push %dx
    ba fd 03        # mov $0x3fd,%dx
    ec              # in (%dx),%al
    a8 01           # test $0x1,%al
    74 fb           # je (in)
    b2 f8           # mov $0xf8,%dl
    ec              # in (%dx),%al
    5a              # pop %dx
    c3              # ret
    # put:
    52              # push %dx
    50              # push %ax
    ba fd 03        # mov $0x3fd,%dx
    ec              # in (%dx),%al
    a8 20           # test $0x20,%al
    74 fb           # je (in)
    58              # pop %ax
    b2 f8           # mov $0xf8,%dl
    ee              # out %al,(%dx)
    5a              # pop %dx
    c3              # ret
    # zero:
    00 00 00 00 00 00
"""


def write_disk(path: Path, size: int = 1 << 20) -> Path:
    """Make a raw disk image of `size` bytes that boots into it."""
    code = machine_code(_CODE) + BANNER + b"\0"
    path.write_bytes(code.ljust(510, b"\0") + b"\x55\xaa" + bytes(size - 512))
    return path


def write_kernel(path: Path) -> Path:
    """Make an ELF file that Xen boots as a paravirtual guest."""
    quoted = BANNER.decode().encode("unicode_escape").decode()
    options = [
        "-O1", "-Wall", "-Wextra", "-Werror", f'-DBANNER="{quoted}"',
        "-ffreestanding", "-nostdlib", "-static", "-no-pie", "-fno-pic",
        "-fno-stack-protector", "-mno-red-zone", "-mgeneral-regs-only",
        "-Wl,--build-id=none,-e,start,-Ttext-segment=0x100000",
    ]  # fmt: skip
    subprocess.run(["gcc", *options, "-o", path, Path(__file__).with_name("xen_payload.c")], check=True)
    return path
