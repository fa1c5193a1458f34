"""The guest that proves an accelerator: a ROM that does in 330 bytes what a kernel's first second does.

A host may let a few instructions of real mode through and then crawl or hang (nested virtualisation without
hardware support emulates instruction by instruction). So this one enters long mode with paging, does a piece of
real work, and takes timer interrupts. It says on COM1 how far it came and leaves through QEMU's isa-debug-exit.
"""

from __future__ import annotations

PROGRESS = "RLWT"
"""What it prints: real mode, long mode, work done, timer interrupts taken."""

STAGES = {
    "": "never ran an instruction",
    "R": "never reached long mode",
    "RL": "did not get through 20 million rounds of a loop",
    "RLW": "got no timer interrupts",
}
"""What it means where the output ends early."""

DEBUG_EXIT = "isa-debug-exit,iobase=0xf4,iosize=1"

STATUS = 99
"""QEMU's exit status after it: isa-debug-exit makes 2 n + 1 of the 0x31 that is written."""

_ROM_SIZE = 64 << 10
_ENTRY = 0xFE00

# Runs at f000:fe00, in the ROM's copy below 1 MiB: with paging on, there is nothing above.
_CODE = """
    # real mode: say R
    fa                                # cli
    b0 52                             # mov $0x52,%al
    ba f8 03                          # mov $0x3f8,%dx
    ee                                # out %al,(%dx)
    # clear 0x1000-0x5fff: page tables, IDT
    31 c0                             # xor %ax,%ax
    8e d8                             # mov %ax,%ds
    8e c0                             # mov %ax,%es
    8e d0                             # mov %ax,%ss
    bc 00 70                          # mov $0x7000,%sp
    fc                                # cld
    bf 00 10                          # mov $0x1000,%di
    b9 00 28                          # mov $0x2800,%cx
    f3 ab                             # rep stos %ax,%es:(%di)
    # map 0-2 MiB to itself, and the local APIC to 2 MiB
    c7 06 00 10 03 20                 # movw $0x2003,0x1000
    c7 06 00 20 03 30                 # movw $0x3003,0x2000
    c7 06 00 30 83 00                 # movw $0x83,0x3000
    c7 06 08 30 93 00                 # movw $0x93,0x3008
    c7 06 0a 30 e0 fe                 # movw $0xfee0,0x300a
    # straight into long mode: PAE, CR3, EFER.LME, PG and PE
    2e 66 0f 01 16 74 fe              # lgdtl %cs:-0x18c
    0f 20 e0                          # mov %cr4,%eax
    66 83 c8 20                       # or $0x20,%eax
    0f 22 e0                          # mov %eax,%cr4
    66 b8 00 10 00 00                 # mov $0x1000,%eax
    0f 22 d8                          # mov %eax,%cr3
    66 b9 80 00 00 c0                 # mov $0xc0000080,%ecx
    0f 32                             # rdmsr
    80 cc 01                          # or $0x1,%ah
    0f 30                             # wrmsr
    0f 20 c0                          # mov %cr0,%eax
    66 0d 01 00 00 80                 # or $0x80000001,%eax
    0f 22 c0                          # mov %eax,%cr0
    66 ea 92 fe 0f 00 08 00           # ljmpl $0x8,$0xffe92
    # data
    17 00 7a fe 0f 00                 # GDTR: limit, and where the next line is
    00 00 00 00 00 00 00 00           # GDT: null
    ff ff 00 00 00 9b af 00           # 64-bit code
    ff ff 00 00 00 93 cf 00           # data
    # long mode: say L
    66 b8 10 00                       # mov $0x10,%ax
    8e d8                             # mov %eax,%ds
    8e c0                             # mov %eax,%es
    8e d0                             # mov %eax,%ss
    bc 00 70 00 00                    # mov $0x7000,%esp
    b0 4c                             # mov $0x4c,%al
    66 ba f8 03                       # mov $0x3f8,%dx
    ee                                # out %al,(%dx)
    # IDT: vector 0x20 to the timer's handler
    48 8d 05 91 00 00 00              # lea 0x91(%rip),%rax
    bf 00 42 00 00                    # mov $0x4200,%edi
    66 89 07                          # mov %ax,(%rdi)
    66 c7 47 02 08 00                 # movw $0x8,0x2(%rdi)
    66 c7 47 04 00 8e                 # movw $0x8e00,0x4(%rdi)
    c1 e8 10                          # shr $0x10,%eax
    66 89 47 06                       # mov %ax,0x6(%rdi)
    66 c7 04 25 00 50 00 00 0f 02     # movw $0x20f,0x5000
    66 c7 04 25 02 50 00 00 00 40     # movw $0x4000,0x5002
    0f 01 1c 25 00 50 00 00           # lidt 0x5000
    # local APIC on, its LINT0 passes the PIC's interrupts
    c7 04 25 f0 00 20 00 ff 01 00 00  # movl $0x1ff,0x2000f0
    c7 04 25 50 03 20 00 00 07 00 00  # movl $0x700,0x200350
    # PIC: vectors from 0x20, only the timer unmasked; timer at 1 kHz
    b0 11                             # mov $0x11,%al
    e6 20                             # out %al,$0x20
    b0 20                             # mov $0x20,%al
    e6 21                             # out %al,$0x21
    b0 04                             # mov $0x4,%al
    e6 21                             # out %al,$0x21
    b0 01                             # mov $0x1,%al
    e6 21                             # out %al,$0x21
    b0 fe                             # mov $0xfe,%al
    e6 21                             # out %al,$0x21
    b0 34                             # mov $0x34,%al
    e6 43                             # out %al,$0x43
    b0 a9                             # mov $0xa9,%al
    e6 40                             # out %al,$0x40
    b0 04                             # mov $0x4,%al
    e6 40                             # out %al,$0x40
    # a piece of work of 20 million rounds, then say W
    b9 00 2d 31 01                    # mov $0x1312d00,%ecx
    ff c9                             # dec %ecx
    75 fc                             # jne 121
    b0 57                             # mov $0x57,%al
    66 ba f8 03                       # mov $0x3f8,%dx
    ee                                # out %al,(%dx)
    # wait for ten ticks of the timer, then say T
    31 db                             # xor %ebx,%ebx
    fb                                # sti
    f4                                # hlt
    83 fb 0a                          # cmp $0xa,%ebx
    72 fa                             # jb 12f
    fa                                # cli
    b0 54                             # mov $0x54,%al
    ee                                # out %al,(%dx)
    # leave with STATUS
    b0 31                             # mov $0x31,%al
    e6 f4                             # out %al,$0xf4
    f4                                # hlt
    eb fd                             # jmp 13d
    # the timer's handler
    50                                # push %rax
    b0 20                             # mov $0x20,%al
    e6 20                             # out %al,$0x20
    ff c3                             # inc %ebx
    58                                # pop %rax
    48 cf                             # iretq
"""

# jmp f000:fe00, where the CPU begins: 16 bytes before the ROM's end.
_RESET = bytes.fromhex("ea 00 fe 00 f0")


def machine_code(listing: str) -> bytes:
    """The bytes of a listing: hexadecimal, comments from `#` on."""
    return bytes.fromhex("".join(line.partition("#")[0] for line in listing.splitlines()))


def probe_rom() -> bytes:
    """A 64 KiB image for `-bios`."""
    rom = bytearray(_ROM_SIZE)
    code = machine_code(_CODE)
    rom[_ENTRY : _ENTRY + len(code)] = code
    rom[-16 : -16 + len(_RESET)] = _RESET
    return bytes(rom)
