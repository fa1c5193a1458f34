"""A disk that boots a Linux kernel for HVM guests: the pure function from the files to its bytes.

xl can give the kernel to the QEMU in dom0 (`kernel=` in xl.cfg), whose option ROM then reads it byte by byte from a
port. Under emulation that takes many minutes; from a disk the firmware reads it by DMA, in seconds.

Layout: in sector 0 the code below, from sector 1 the kernel's real-mode part with the command line behind it, then
the kernel and the initrd, each in whole chunks. See Linux, Documentation/x86/boot.rst.
"""

from __future__ import annotations

import struct

from dfbuild.errors import InfraError, UsageError
from dfbuild.guest.firmware import machine_code
from dfbuild.guest.protocol import GuestSpec
from dfbuild.guest.xen.argv import BOOT_ADDRESS, boots_from_disk, files

_SECTOR = 512
_CHUNK = 64 * _SECTOR
_COMMAND_LINE = 0xE000
"""Where the command line is in the real-mode segment, and where its heap ends."""
_COMMAND_LINE_SIZE = 2048
_SEGMENT = 0x90000
_KEPT_FREE = 8 << 20
"""At the end of memory, for what Xen and the firmware keep there."""

_CODE = """
    fa                  # cli
    31 c0               # xor %ax,%ax
    8e d8               # mov %ax,%ds
    8e c0               # mov %ax,%es
    8e d0               # mov %ax,%ss
    bc 00 7c            # mov $0x7c00,%sp
    fb                  # sti
    88 16 9e 7c         # mov %dl,drive
    be a0 7c            # mov $packet,%si
    e8 74 00            # call read
    c7 06 a6 7c 00 10   # movw $0x1000,packet+6
    c7 06 a2 7c 40 00   # movw $0x40,packet+2
    66 a1 e4 7c         # mov lba,%eax
    66 a3 a8 7c         # mov %eax,packet+8
    # next:
    be a0 7c            # mov $packet,%si
    e8 5a 00            # call read
    66 83 06 a8 7c 40   # addl $0x40,packet+8
    be b0 7c            # mov $table,%si
    b9 00 40            # mov $0x4000,%cx
    b4 87               # mov $0x87,%ah
    cd 15               # int $0x15
    72 53               # jb failed
    66 a1 e0 7c         # mov target,%eax
    66 05 00 80 00 00   # add $0x8000,%eax
    ff 0e e8 7c         # decw kernel
    75 04               # jne to
    66 a1 ec 7c         # mov initrd,%eax
    # to:
    66 a3 e0 7c         # mov %eax,target
    66 89 c3            # mov %eax,%ebx
    89 1e ca 7c         # mov %bx,table+26
    66 c1 eb 10         # shr $0x10,%ebx
    88 1e cc 7c         # mov %bl,table+28
    88 3e cf 7c         # mov %bh,table+31
    ff 0e ea 7c         # decw chunks
    75 b7               # jne next
    fa                  # cli
    b8 00 90            # mov $0x9000,%ax
    8e d8               # mov %ax,%ds
    8e c0               # mov %ax,%es
    8e e0               # mov %ax,%fs
    8e e8               # mov %ax,%gs
    8e d0               # mov %ax,%ss
    bc 00 e0            # mov $0xe000,%sp
    fb                  # sti
    ea 00 00 20 90      # ljmp $0x9020,$0x0
    # read:
    b4 42               # mov $0x42,%ah
    8a 16 9e 7c         # mov drive,%dl
    cd 13               # int $0x13
    72 01               # jb failed
    c3                  # ret
    # failed:
    b8 45 0e            # mov $0xe45,%ax
    cd 10               # int $0x10
    # halt:
    f4                  # hlt
    eb fd               # jmp halt
"""
_PLACES = 0x9E
"""Where the data behind the code begin."""

_HIGHEST = 0x37FFFFFF
_KERNEL = 0x100000
"""Where a bzImage's kernel is loaded, and begins to unpack itself."""


def boot_disk(kernel: bytes, initrd: bytes, append: str, memory: int) -> bytes:
    """A raw disk image that boots the bzImage `kernel` in a guest with `memory` MiB.

    Raises `InfraError` for what is no bzImage, `UsageError` for a command line that is too long, and
    for memory that is too small.
    """
    if len(kernel) < 0x250 or kernel[0x202:0x206] != b"HdrS":
        raise InfraError("an HVM guest boots a bzImage, and this kernel is none")
    line = append.encode()
    if len(line) >= _COMMAND_LINE_SIZE:
        raise UsageError(f"a kernel command line of {len(line)} bytes: an HVM guest's has {_COMMAND_LINE_SIZE - 1}")
    setup = bytearray(kernel[: ((kernel[0x1F1] or 4) + 1) * _SECTOR])
    rest = _chunks(kernel[len(setup) :])
    # initrd_addr_max (Documentation/x86/boot.rst); headers before 2.03 have none.
    highest = struct.unpack_from("<I", kernel, 0x22C)[0] or _HIGHEST
    place = (min(memory << 20, highest + 1) - _KEPT_FREE - len(initrd)) & ~0xFFF
    if place < _KERNEL + len(rest):
        raise UsageError(f"kernel and initrd do not fit into the {memory} MiB of an HVM guest", key="memory")
    setup[0x210] = 0xFF  # type_of_loader: one without a number
    setup[0x211] |= 0x80  # loadflags: CAN_USE_HEAP
    struct.pack_into("<II", setup, 0x218, place if initrd else 0, len(initrd))
    struct.pack_into("<H", setup, 0x224, _COMMAND_LINE - 0x200)  # heap_end_ptr
    struct.pack_into("<I", setup, 0x228, _SEGMENT + _COMMAND_LINE)  # cmd_line_ptr
    real = bytes(setup).ljust(_COMMAND_LINE, b"\0") + line.ljust(_COMMAND_LINE_SIZE, b"\0")
    tail = _chunks(initrd)
    sectors = len(real) // _SECTOR
    data = _data(sectors, len(rest) // _CHUNK, len(rest + tail) // _CHUNK, place)
    code = machine_code(_CODE).ljust(_PLACES, b"\0") + data
    return code.ljust(510, b"\0") + b"\x55\xaa" + real + rest + tail


def write_boot_disk(spec: GuestSpec) -> None:
    """Put the boot disk of the guest `spec` where `argv.files` has it, if it needs one. Raises as `boot_disk`."""
    kernel, initrd = spec.media.kernel, spec.media.initrd
    if boots_from_disk(spec) and kernel is not None:
        image = boot_disk(
            kernel.read_bytes(), initrd.read_bytes() if initrd else b"", spec.media.append, spec.shape.memory
        )
        files(spec)[BOOT_ADDRESS][1].write_bytes(image)


def _chunks(data: bytes) -> bytes:
    return data + bytes(-len(data) % _CHUNK)


def _data(sectors: int, kernel: int, chunks: int, initrd: int) -> bytes:
    """What the code reads and writes: the drive, a disk address packet, a descriptor table, and what to load."""
    packet = struct.pack("<BBHHHQ", 16, 0, sectors, 0, _SEGMENT >> 4, 1)
    source = struct.pack("<HHBBH", 0xFFFF, 0x0000, 0x01, 0x93, 0)
    target = struct.pack("<HHBBH", 0xFFFF, 0x0000, 0x10, 0x93, 0)
    table = bytes(16) + source + target + bytes(16)
    counts = struct.pack("<IIHHI", _KERNEL, 1 + sectors, kernel, chunks, initrd)
    return b"\0\0" + packet + table + counts
