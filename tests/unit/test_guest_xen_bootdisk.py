"""The disk that boots a kernel for HVM guests: where what lies, and what the kernel's header then says of it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.errors import InfraError, UsageError
from dfbuild.guest.xen.bootdisk import boot_disk

SECTOR, CHUNK = 512, 64 * 512
REAL_SECTORS = (0xE000 + 2048) // SECTOR


def bz_image(setup_sectors: int, rest: bytes) -> bytes:
    head = bytearray((setup_sectors + 1) * SECTOR)
    head[0x1F1] = setup_sectors
    head[0x202:0x206] = b"HdrS"
    head[0x211] = 1
    return bytes(head) + rest


@given(
    setup=st.integers(1, 40),
    rest=st.integers(1, 3 * CHUNK).map(lambda size: b"k" * size),
    initrd=st.integers(0, 2 * CHUNK).map(lambda size: b"i" * size),
    append=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300),
    memory=st.integers(64, 2048),
)
def test_everything_is_where_the_boot_sector_and_the_header_say(
    setup: int, rest: bytes, initrd: bytes, append: str, memory: int
) -> None:
    disk = boot_disk(bz_image(setup, rest), initrd, append, memory)
    assert disk[510:512] == b"\x55\xaa" and len(disk) % SECTOR == 0
    packet = struct.unpack_from("<BBHHHQ", disk, 0xA0)
    assert packet == (16, 0, REAL_SECTORS, 0, 0x9000, 1)
    target, first, kernel, chunks, place = struct.unpack_from("<IIHHI", disk, 0xE0)
    assert (target, first) == (0x100000, 1 + REAL_SECTORS)
    start = first * SECTOR
    assert disk[start : start + len(rest)] == rest
    assert disk[start + kernel * CHUNK :][: len(initrd)] == initrd
    assert len(disk) == start + chunks * CHUNK
    real = disk[SECTOR:start]
    assert struct.unpack_from("<I", real, 0x21C)[0] == len(initrd)
    assert struct.unpack_from("<I", real, 0x218)[0] == (place if initrd else 0)
    assert place + len(initrd) <= memory << 20
    (line,) = struct.unpack_from("<I", real, 0x228)
    assert real[line - 0x90000 :].partition(b"\0")[0].decode() == append
    assert real[0x211] == 0x81 and real[0x210] == 0xFF


@pytest.mark.parametrize(("memory", "highest"), [(512, 0x1FFFFFFF), (3072, 0x7FFFFFFF), (65536, 0x7FFFFFFF)])
def test_the_initrd_is_no_higher_than_the_kernel_can_reach(memory: int, highest: int) -> None:
    kernel = bytearray(bz_image(4, b"k"))
    struct.pack_into("<I", kernel, 0x22C, 0x7FFFFFFF)
    disk = boot_disk(bytes(kernel), b"i" * 5000, "", memory)
    (place,) = struct.unpack_from("<I", disk, SECTOR + 0x218)
    assert highest - (16 << 20) < place + 5000 <= highest


def test_what_cannot_be_booted_is_refused() -> None:
    with pytest.raises(InfraError, match="bzImage"):
        boot_disk(b"\x7fELF" + bytes(9000), b"", "", 256)
    with pytest.raises(UsageError, match="command line"):
        boot_disk(bz_image(4, b"k"), b"", "x" * 2048, 256)
    with pytest.raises(UsageError, match="do not fit into the 16 MiB"):
        boot_disk(bz_image(4, b"k"), bytes(20 << 20), "", 16)
    with pytest.raises(UsageError, match="do not fit"):
        boot_disk(bz_image(4, bytes(6 << 20)), bytes(2 << 20), "", 16)
