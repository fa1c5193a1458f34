"""Boot sectors and disk labels: what is written is read back, and the kernel's own rules hold."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.errors import BuildFailed
from dfbuild.image import disk, disklabel, mbr, ufs
from dfbuild.image.disklabel import BadLabel, Label, Partition
from dfbuild.image.mbr import BadTable, Geometry, Slice

# ── the table of slices ─────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def tables(draw: st.DrawFn) -> list[Slice]:
    ends = sorted(draw(st.lists(st.integers(1, (1 << 32) - 1), min_size=2, max_size=8, unique=True)))
    pairs = list(zip(ends[::2], ends[1::2], strict=False))
    made = [Slice(low, high - low, draw(st.integers(1, 255)), draw(st.booleans())) for low, high in pairs]
    return draw(st.permutations(made))


@given(slices=tables(), code=st.binary(max_size=mbr.CODE))
def test_a_boot_sector_is_read_back(slices: list[Slice], code: bytes) -> None:
    sector = mbr.sector(code, slices)
    assert len(sector) == 512
    assert sector.startswith(code)
    assert list(mbr.parse(sector)) == slices


@given(sector=st.integers(0, (1 << 32) - 1), heads=st.integers(1, 255), sectors=st.integers(1, 63))
def test_cylinders_heads_and_sectors(sector: int, heads: int, sectors: int) -> None:
    geometry = Geometry(heads, sectors)
    cylinder, head, low = geometry.chs(sector)
    assert 0 <= cylinder < 1024 and 0 <= head < heads and 1 <= low <= sectors
    at = cylinder * geometry.cylinder + head * sectors + low - 1
    assert at == sector or (sector >= 1024 * geometry.cylinder and at == 1024 * geometry.cylinder - 1)


@pytest.mark.parametrize(
    ("code", "slices", "message"),
    [
        (b"", [Slice(at, 1) for at in range(1, 6)], "5 slices"),
        (b"", [Slice(63, 100), Slice(162, 5)], "overlap"),
        (b"", [Slice(0, 5)], "not a slice"),
        (b"", [Slice(5, 0)], "not a slice"),
        (bytes(446) + b"\x01", [], "boot code"),
        (bytes(513), [], "boot code"),
    ],
)
def test_tables_that_cannot_be(code: bytes, slices: list[Slice], message: str) -> None:
    with pytest.raises(BadTable, match=message):
        mbr.sector(code, slices)


def test_sectors_that_are_none() -> None:
    with pytest.raises(BadTable, match="0xAA55"):
        mbr.parse(bytes(512))
    wrong = bytearray(mbr.sector(b"", [Slice(63, 5)]))
    wrong[mbr.CODE] = 0x7F
    with pytest.raises(BadTable, match="flag"):
        mbr.parse(bytes(wrong))


# ── labels ──────────────────────────────────────────────────────────────────────────────────────────────────────

U16, U8 = st.integers(0, 0xFFFF), st.integers(0, 0xFF)


@st.composite
def labels(draw: st.DrawFn) -> Label:
    start, size = draw(st.integers(0, 1 << 20)), draw(st.integers(100, 1 << 30))
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=8, unique=True)))
    letters = [letter for letter in "abdefghijklmnop" if draw(st.booleans())]
    partitions = {"c": Partition(start, size)}
    for letter, low, high in zip(letters, cuts, cuts[1:], strict=False):
        partitions[letter] = Partition(
            start + low, high - low, draw(U8), draw(st.integers(0, 1 << 16)), draw(U8), draw(U16)
        )
    name = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=16)
    return Label(partitions, draw(st.integers(1, 255)), draw(st.integers(1, 63)), draw(U16), draw(name), draw(name))


@given(label=labels())
def test_a_label_is_read_back(label: Label) -> None:
    data = disklabel.pack(label)
    assert disklabel.parse(data) == label
    assert disklabel.parse(data.ljust(512, b"\0")) == label
    assert len(data) <= 512 - disklabel.SECTOR_NUMBER, "it fits in its sector"


@given(label=labels(), data=st.data())
def test_a_label_with_a_hurt_bit_is_noticed(label: Label, data: st.DataObject) -> None:
    packed = bytearray(disklabel.pack(label))
    bit = data.draw(st.integers(0, len(packed) * 8 - 1))
    packed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadLabel):
        disklabel.parse(bytes(packed))


@given(data=st.binary(max_size=600))
def test_what_is_no_label_is_refused(data: bytes) -> None:
    with pytest.raises(BadLabel):
        disklabel.parse(data)


def test_where_the_kernel_and_boot_blocks_look() -> None:
    """Offsets that are fixed in sys/sys/disklabel.h of DragonFly 1.2 (`LOCORE`, and the structure's own)."""
    label = Label({"c": Partition(63, 16002), "a": Partition(63, 8000, disklabel.FFS, 2048, 8, 16)})
    data = disklabel.pack(label)
    words = {at: struct.unpack_from("<I", data, at)[0] for at in (0, 40, 44, 48, 52, 56, 60, 132)}
    assert words == {
        0: 0x82564557, 40: 512, 44: 63, 48: 255, 52: 0, 56: 16065, 60: 16002, 132: 0x82564557,
    }  # fmt: skip
    assert len(data) == 276, "d_end_: eight partitions"
    assert struct.unpack_from("<IIIBBH", data, 148) == (8000, 63, 2048, 7, 8, 16)
    assert struct.unpack_from("<HHII", data, 136)[1:] == (8, 8192, 8192)


@pytest.mark.parametrize(
    ("partitions", "message"),
    [
        ({"a": Partition(63, 5)}, "partition c"),
        ({"c": Partition(63, 50), "a": Partition(62, 5)}, "not within"),
        ({"c": Partition(63, 50), "a": Partition(63, 51)}, "not within"),
        ({"c": Partition(63, 50), "a": Partition(63, 5), "b": Partition(67, 5)}, "a and b overlap"),
        ({"c": Partition(63, 50), "q": Partition(63, 5)}, "letter"),
        ({"c": Partition(63, (1 << 32) - 63)}, "2 TB"),
    ],
)
def test_labels_that_cannot_be(partitions: dict[str, Partition], message: str) -> None:
    with pytest.raises(BadLabel, match=message):
        disklabel.pack(Label(partitions))


# ── what a disk is made of ──────────────────────────────────────────────────────────────────────────────────────

BOOT = disk.BootBlocks(
    b"\xfa\xfc", b"\x31\xc0", b"\xeb\x3c".ljust(510, b"\x90") + b"\x55\xaa" + bytes(512) + b"2" * 7168
)


@given(root=st.integers(1, 1900), swap=st.integers(0, 512))
def test_a_layout_holds_what_was_asked_for(root: int, swap: int) -> None:
    layout = disk.Layout.plan(root, swap)
    assert layout.root_bytes == root << 20
    assert (layout.swap.size * 512 >= swap << 20) if layout.swap else not swap
    end = layout.slice.start + layout.slice.size
    assert end % mbr.BIOS.cylinder == 0, "the kernel takes the geometry from the slice's last sector"
    assert mbr.BIOS.chs(end - 1)[1:] == (254, 63)
    assert 0 <= layout.bytes // 512 - end < 1008 and layout.bytes % (1008 * 512) == 0, "seen by the ata driver"
    assert disklabel.parse(disklabel.pack(layout.label())) == layout.label()


@given(root=st.integers(1, 1900))
def test_boot_blocks_where_they_belong(root: int) -> None:
    layout = disk.Layout.plan(root, 16)
    pieces = disk.sectors(layout, BOOT)
    assert list(pieces) == [0, 1, 63]
    assert pieces[0].startswith(BOOT.first) and pieces[1].startswith(BOOT.mbr)
    # boot1 reads the first sector's table, the release's MBR the one it carries itself.
    assert mbr.parse(pieces[0]) == mbr.parse(pieces[1]) == (layout.slice,)
    area = pieces[63]
    assert len(area) <= ufs.SUPERBLOCK and layout.root.offset == layout.slice.start
    assert disklabel.parse(area[512:1024]) == layout.label()
    assert area[:512] == BOOT.slice[:512] and area[1024:] == BOOT.slice[1024:]


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (disk.BootBlocks(b"", b"", BOOT.slice + b"x"), "8193 bytes"),
        (disk.BootBlocks(b"", b"", bytes(8192)), "boot1 is no boot sector"),
        (disk.BootBlocks(b"", b"", BOOT.slice[:512] + b"\x01" * 512), "no room for the label"),
        (disk.BootBlocks(b"", b"\x90" * 512, BOOT.slice), "boot code"),
    ],
)
def test_boot_blocks_that_do_not_fit(blocks: disk.BootBlocks, message: str) -> None:
    with pytest.raises(BuildFailed, match=message):
        disk.sectors(disk.Layout.plan(8), blocks)
