"""Disks for UEFI firmware: the table, the label and the file systems, as others than ourselves read them."""

from __future__ import annotations

import itertools
import json
import os
import struct
import subprocess
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.errors import BuildFailed
from dfbuild.image import disk64, disklabel64, efidisk, esp, gpt, mbr
from dfbuild.image.disklabel64 import BadLabel, Label, Partition
from dfbuild.image.gpt import BadTable, Entry

ONE, TWO = UUID(int=1), UUID(int=2)
MIB = 1 << 20


def run(argv: Sequence[str | Path], environment: Mapping[str, str] = {}) -> str:
    # The administrator's programs are not on everybody's path.
    names = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", **environment}
    return subprocess.run(argv, env=names, check=True, capture_output=True, text=True).stdout


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Header:
    """UEFI 2.8, table 21, as firmware reads it."""

    here: int
    other: int
    first: int
    last: int
    disk: UUID
    entries: int
    table: int
    digest: int

    @classmethod
    def read(cls, sector: bytes) -> Header:
        assert sector[:12] == b"EFI PART\0\0\1\0" and len(sector) == 512
        size, crc, zero = struct.unpack_from("<III", sector, 12)
        assert zlib.crc32(sector[:16] + bytes(4) + sector[20:size]) == crc
        assert (size, zero, any(sector[size:])) == (92, 0, False)
        here, other, first, last, disk, entries, count, each, digest = struct.unpack_from("<4Q16sQ3I", sector, 24)
        assert (count, each) == (128, 128)
        return cls(here, other, first, last, UUID(bytes_le=disk), entries, count * each, digest)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, list[Entry]]:
    size = draw(st.integers(gpt.FIRST + gpt.BEHIND + 1, 1 << 40))
    cuts = sorted(draw(st.lists(st.integers(gpt.FIRST, size - gpt.BEHIND), max_size=20, unique=True)))
    pairs = list(zip(cuts[::2], cuts[1::2], strict=False))
    ids = draw(st.lists(st.uuids(), min_size=len(pairs), max_size=len(pairs), unique=True))
    name = st.text(st.characters(codec="utf-8", exclude_characters="\0", max_codepoint=0xFFFF), max_size=36)
    made = [
        Entry(low, high - low, draw(st.uuids(allow_nil=False)), id, draw(name))
        for (low, high), id in zip(pairs, ids, strict=True)
    ]
    return size, draw(st.permutations(made))


@given(table=tables(), disk=st.uuids())
def test_a_table_is_read_back_from_either_end(table: tuple[int, list[Entry]], disk: UUID) -> None:
    size, entries = table
    written = gpt.sectors(disk, size, entries)
    first, last = Header.read(written[1]), Header.read(written[size - 1])
    assert (first.here, first.other, last.here, last.other) == (1, size - 1, size - 1, 1)
    for header in (first, last):
        assert (header.disk, header.first, header.last) == (disk, 34, size - 34)
        data = written[header.entries]
        assert len(data) == header.table and zlib.crc32(data) == header.digest
        found = []
        for type, id, low, high, attributes, name in struct.iter_unpack("<16s16sQQQ72s", data):
            if any(type):
                assert header.first <= low <= high <= header.last and attributes == 0
                text = name.decode("utf-16-le").rstrip("\0")
                found.append(Entry(low, high - low + 1, UUID(bytes_le=type), UUID(bytes_le=id), text))
        assert found == entries
    # Nothing of it lies on anything else of it, nor where a partition may.
    taken = sorted((at, at + len(data) // 512) for at, data in written.items())
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(taken))
    assert all(end <= first.first or begin > first.last for begin, end in taken)
    assert taken[-1][1] == size


@given(table=tables())
def test_the_old_table_protects_the_whole_disk(table: tuple[int, list[Entry]]) -> None:
    size, entries = table
    (only,) = mbr.parse(gpt.sectors(ONE, size, entries)[0])
    assert (only.start, only.type, only.active) == (1, 0xEE, False)
    assert only.size == min(size - 1, 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("size", "entries", "message"),
    [
        (67, [], "no table fits"),
        (1 << 64, [], "no table fits"),
        (1000, [Entry(33, 5, ONE, ONE)], "not a partition"),
        (1000, [Entry(34, 0, ONE, ONE)], "not a partition"),
        (1000, [Entry(34, 934, ONE, ONE)], "not a partition"),
        (1000, [Entry(34, 10, ONE, ONE), Entry(43, 1, ONE, TWO)], "overlap"),
        (1000, [Entry(34, 10, ONE, ONE), Entry(44, 1, ONE, ONE)], "one GUID"),
        (1000, [Entry(34, 10, UUID(int=0), ONE)], "without a type"),
        (1000, [Entry(34, 10, ONE, ONE, "x" * 37)], "36 characters"),
        (1000, [Entry(34 + n, 1, ONE, UUID(int=n)) for n in range(129)], "129 partitions"),
    ],
)
def test_tables_that_cannot_be(size: int, entries: list[Entry], message: str) -> None:
    with pytest.raises(BadTable, match=message):
        gpt.sectors(ONE, size, entries)


# ── the label ───────────────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def labels(draw: st.DrawFn) -> Label:
    size = draw(st.integers(6, 1 << 32)) * 512 + 2 * MIB
    stop = Label(size, ONE, {}).stop
    grid = st.integers(disklabel64.RESERVED // 512, stop // 512)
    cuts = sorted(draw(st.lists(grid, max_size=10, unique=True)))
    pairs = list(zip(cuts[::2], cuts[1::2], strict=False))
    letters = draw(st.lists(st.sampled_from("abcdefghijklmnop"), min_size=5, max_size=5, unique=True))
    partitions = {
        letter: Partition(low * 512, (high - low) * 512, draw(st.integers(1, 255)), draw(st.uuids()))
        for letter, (low, high) in zip(letters, pairs, strict=False)
    }
    name = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=64)
    return Label(size, draw(st.uuids()), partitions, draw(name))


@given(label=labels())
def test_the_kernel_takes_a_label(label: Label) -> None:
    """`l64_readdisklabel` and `l64_setdisklabel` of sys/kern/subr_disklabel64.c; what boot1.efi looks at, too."""
    data = disklabel64.pack(label)
    magic, crc, align, count = struct.unpack_from("<4I", data)
    assert (magic, align, count, len(data)) == (0xC4464C59, 4096, 16, 200 + 16 * 64)
    assert zlib.crc32(data[:4] + bytes(4) + data[8:]) == crc
    total, boot2, base, stop, copy = struct.unpack_from("<5Q", data, 32)
    assert total == label.size and all(number % 512 == 0 for number in (total, boot2, base, stop, copy))
    assert boot2 >= disklabel64.AT + 200 + 32 * 64 and boot2 + (32 << 10) <= base
    assert base % MIB == 0 and base <= stop <= copy < total and total - copy >= 512 + len(data)
    found = {}
    for letter, (at, size, kind, zeros, id) in zip(
        "abcdefghijklmnop", struct.iter_unpack("<QQB31s16s", data[200:]), strict=True
    ):
        assert not any(zeros)
        if size:
            assert base <= at and at + size <= stop
            found[letter] = Partition(at, size, kind, UUID(bytes_le=id))
    assert found == label.partitions
    assert UUID(bytes_le=data[16:32]) == label.id
    assert data[72:136].rstrip(b"\0").decode() == label.packname


@pytest.mark.parametrize(
    ("size", "partitions", "message"),
    [
        (4 * MIB + 1, {}, "number of sectors"),
        (4 * MIB, {"q": Partition(MIB, 512, 7, ONE)}, "letter"),
        (4 * MIB, {"a": Partition(MIB, 0, 7, ONE)}, "number of sectors"),
        (4 * MIB, {"a": Partition(MIB + 1, 512, 7, ONE)}, "number of sectors"),
        (4 * MIB, {"a": Partition(MIB - 512, 512, 7, ONE)}, "not between"),
        (4 * MIB, {"a": Partition(MIB, 2 * MIB + 512, 7, ONE)}, "not between"),
        (4 * MIB, {"a": Partition(MIB, 1024, 7, ONE), "b": Partition(MIB + 512, 512, 1, ONE)}, "a and b overlap"),
    ],
)
def test_labels_that_cannot_be(size: int, partitions: dict[str, Partition], message: str) -> None:
    with pytest.raises(BadLabel, match=message):
        disklabel64.pack(Label(size, ONE, partitions))


def test_a_name_that_is_too_long() -> None:
    with pytest.raises(BadLabel, match="name"):
        disklabel64.pack(Label(4 * MIB, ONE, {}, "x" * 65))


# ── what a disk is made of ──────────────────────────────────────────────────────────────────────────────────────


@given(root=st.integers(8, 1900), swap=st.integers(0, 4096))
def test_everything_has_its_place(root: int, swap: int) -> None:
    layout = efidisk.Layout.plan(root, swap)
    slice = layout.slice
    assert slice.ufs_at % MIB == layout.sectors * 512 % MIB == 0
    assert slice.start == layout.esp + esp.SIZE // 512
    assert slice.ufs_at + slice.ufs_bytes + swap * MIB < slice.end * 512
    written = layout.pieces("content")
    assert written[slice.start + 1][:4] == struct.pack("<I", disklabel64.MAGIC), "at byte 512 of the slice"
    assert layout.pieces("content") == written != layout.pieces("other")


def types(label: bytes) -> dict[str, tuple[int, int]]:
    """By letter, in MiB where a partition of the label ends, and its type."""
    found = zip("abcdefghijklmnop", struct.iter_unpack("<QQB47x", label[200:]), strict=True)
    return {letter: ((at + size) // MIB, type) for letter, (at, size, type) in found if size}


@given(boot=st.integers(8, 1900), swap=st.integers(1, 4096), root=st.integers(1, 1 << 20))
def test_a_root_in_hammer2_has_a_partition_of_its_own(boot: int, swap: int, root: int) -> None:
    slice = disk64.plan(boot, swap, root)
    ends = [(boot + 1, 7), (boot + swap + 1, 1), (boot + swap + root + 1, 23)]
    assert types(slice.label("content")) == dict(zip("abd", ends, strict=True))
    assert slice.ufs_bytes == boot * MIB and slice.sectors * 512 > (boot + swap + root + 2) * MIB
    assert slice.numbers[2:] == [boot, swap, root]
    plain = disk64.plan(boot, swap)
    assert types(plain.label("content")) == dict(zip("ab", ends[:2], strict=True)) and len(plain.numbers) == 4


BLOCKS = disk64.BootBlocks(b"first", b"\xfc", b"\xeb".ljust(510, b"1") + b"\x55\xaa", b"2" * 14848)


@given(root=st.integers(8, 1900), swap=st.integers(0, 4096))
def test_everything_has_its_place_for_a_bios(root: int, swap: int) -> None:
    slice = disk64.plan(root, swap)
    assert slice.end % mbr.BIOS.cylinder == 0, "the kernel guesses the geometry from it"
    assert slice.ufs_at % MIB == 0 and slice.ufs_at + slice.ufs_bytes + swap * MIB < slice.end * 512
    written = disk64.sectors(slice, BLOCKS, "content")
    for at in (0, 1):
        assert mbr.parse(written[at]) == (mbr.Slice(slice.start, slice.sectors, active=True),)
    assert written[slice.start] == BLOCKS.boot1
    assert written[slice.start + 1][:4] == struct.pack("<I", disklabel64.MAGIC)
    assert written[slice.start + 8] == BLOCKS.boot2, (
        "boot1_64 adds 7 to the second sector (sys/boot/pc32/boot2/boot1.S)"
    )
    taken = sorted((at, at + -(-len(data) // 512)) for at, data in written.items())
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(taken))
    assert taken[-1][1] * 512 <= slice.ufs_at


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boot1": bytes(512)}, "boot1_64 is no boot sector"),
        ({"boot1": BLOCKS.boot1 + b"x"}, "boot1_64 is no boot sector"),
        ({"boot2": bytes(32769)}, "32769 bytes, 32768 fit"),
        ({"mbr": b"\x90" * 512}, "boot code"),
    ],
)
def test_boot_blocks_that_do_not_fit(change: dict[str, bytes], message: str) -> None:
    with pytest.raises(BuildFailed, match=message):
        disk64.sectors(disk64.plan(8, 0), replace(BLOCKS, **change), "content")


def system(directory: Path, program: bytes = b"MZ" * 3000) -> Path:
    file, target = directory / "program", directory / "system"
    file.write_bytes(program)
    esp.make(file, target, start=2048, epoch=1595548800, run=run)
    return target


def test_a_file_system_with_one_program(tmp_path: Path) -> None:
    image = system(tmp_path)
    assert image.stat().st_size == esp.SIZE
    assert image.read_bytes()[512 + 0x1EC :][:4] == b"\xff" * 4
    assert [image.read_bytes()[512 * sector :][510:512] for sector in range(3)] == [b"\x55\xaa"] * 3
    assert "4 files" in run(["fsck.fat", "-n", image]), "the label, two directories, the program"
    run(["mcopy", "-i", image, f"::/{esp.PROGRAM}", tmp_path / "copy"])
    assert (tmp_path / "copy").read_bytes() == b"MZ" * 3000
    start = image.read_bytes()[:512]
    assert struct.unpack_from("<I", start, 28) == (2048,), "sectors before it"
    assert start[82:90] == b"FAT32   "
    for n, program in enumerate((b"MZ" * 3000, b"ZM" * 3000)):
        (tmp_path / str(n)).mkdir()
        assert (system(tmp_path / str(n), program).read_bytes() == image.read_bytes()) == (n == 0)


@pytest.mark.parametrize("size", [1, 40_000, 239_630, 3_000_000])
def test_a_small_file_system_for_a_cd(size: int, tmp_path: Path) -> None:
    program, made = tmp_path / "program", [tmp_path / "one", tmp_path / "other"]
    program.write_bytes(os.urandom(size))
    for target in made:
        esp.make_small(program, target, epoch=1595548800, run=run)
    image = made[0].read_bytes()
    assert image == made[1].read_bytes()
    assert len(image) % 2048 == 0 and len(image) < size + 82_000
    assert image[54:62] == b"FAT12   "
    assert image[510:512] == b"\x55\xaa" and mbr.parse(image[:512]) == (), "no partitions within it"
    assert "4 files" in run(["fsck.fat", "-n", made[0]])
    run(["mcopy", "-i", made[0], f"::/{esp.PROGRAM}", tmp_path / "copy"])
    assert (tmp_path / "copy").read_bytes() == program.read_bytes()


def test_others_read_the_disk(tmp_path: Path) -> None:
    layout = efidisk.Layout.plan(8, 4)
    size, slice = layout.sectors, layout.slice
    root, raw = tmp_path / "root", tmp_path / "disk.raw"
    root.write_bytes(b"root".ljust(slice.ufs_bytes, b"."))
    made = system(tmp_path)
    efidisk.write(layout, made, root, raw)
    assert "No errors detected" in run(["sfdisk", "--verify", raw])
    table = json.loads(run(["sfdisk", "--json", raw]))["partitiontable"]
    assert (table["label"], table["firstlba"], table["lastlba"]) == ("gpt", 34, size - 34)
    assert [(one["start"], one["size"], one["type"], one["name"]) for one in table["partitions"]] == [
        (2048, 262144, str(gpt.EFI_SYSTEM).upper(), "EFI"),
        (264192, slice.sectors, str(efidisk.LABEL64).upper(), "DragonFly"),
    ]
    data = raw.read_bytes()
    assert data[slice.ufs_at : slice.ufs_at + slice.ufs_bytes] == root.read_bytes()
    assert data[2048 * 512 :][: esp.SIZE] == made.read_bytes()
    again = tmp_path / "again.raw"
    efidisk.write(layout, made, root, again)
    assert again.read_bytes() == data
    root.write_bytes(b"toor".ljust(slice.ufs_bytes, b"."))
    efidisk.write(layout, made, root, tmp_path / "other.raw")
    other = json.loads(run(["sfdisk", "--json", tmp_path / "other.raw"]))["partitiontable"]
    assert {other["id"], *(one["uuid"] for one in other["partitions"])}.isdisjoint(
        {table["id"], *(one["uuid"] for one in table["partitions"])}
    )


def test_file_systems_of_another_size(tmp_path: Path) -> None:
    made, root = system(tmp_path), tmp_path / "root"
    root.write_bytes(bytes(8 * MIB))
    with pytest.raises(BuildFailed, match="8388608 bytes, not 9437184"):
        efidisk.write(efidisk.Layout.plan(9, 0), made, root, tmp_path / "disk.raw")
    with pytest.raises(BuildFailed, match=f"8388608 bytes, not {esp.SIZE}"):
        efidisk.write(efidisk.Layout.plan(8, 0), root, root, tmp_path / "disk.raw")
