"""UFS images: what goes in is read back from the disk's own structures, the same bytes every time."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.errors import BuildFailed
from dfbuild.image import disk, disklabel, mbr, ufs
from dfbuild.image.inodes import Inodes, finish, flags_of
from dfbuild.image.manifest import Entry, Kind, Names, escape, manifest, parse_log, scan, unescape

EPOCH = 1_100_000_000
NAMES = Names.parse(
    "# users\nroot::0:0::0:0:Charlie &:/root:/bin/sh\nuucp:*:66:66:UUCP:/:/nonexistent\n",
    "wheel:*:0:root\noperator:*:5:root\nkmem:*:2:\nbin:*:7:\n",
)
LOG = """\
# written by install(1) and MAKEDEV
./bin/su type=file uname=root gname=wheel mode=4555 flags=schg
./bin/login uname=root gname=bin mode=4555
./bin/login mode=0555
./dev/ad0s1a type=char gname=operator mode=640 device=0x20740000
./dev/fd/0 type=char uid=0 gid=0 mode=666 device=0x1600
./etc/secret mode=600 uid=66 flags=none
"""


def run(argv: Sequence[str | Path], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        [str(word) for word in argv], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout


def plant(tree: Path) -> None:
    for name in ("bin", "dev/fd", "etc", "root", "tmp"):
        (tree / name).mkdir(parents=True)
    (tree / "bin/su").write_bytes(b"\x7fELF")
    (tree / "bin/login").write_bytes(bytes(range(256)) * 2000)
    (tree / "bin/login").chmod(0o700)
    os.link(tree / "bin/login", tree / "bin/other name")
    (tree / "etc/secret").write_text("psst")
    (tree / "etc/#odd*[name]=\\").write_text("kept")
    (tree / "etc/empty").touch()
    (tree / "etc/link").symlink_to("../etc/secret")
    (tree / "etc/long").symlink_to("../" * 40 + "etc/secret")
    (tree / "tmp").chmod(0o1777)


def make(directory: Path, name: str = "root", size: int = 32 << 20) -> tuple[Path, dict[str, Entry]]:
    tree, target = directory / f"{name}.tree", directory / f"{name}.ufs"
    plant(tree)
    entries = scan(tree, parse_log(LOG, NAMES))
    ufs.make(tree, manifest(entries, EPOCH), target, size=size, epoch=EPOCH, run=run)
    finish(target, entries)
    return target, entries


needs_makefs = pytest.mark.skipif(shutil.which("makefs") is None, reason="makefs is not installed")


@needs_makefs
def test_everything_is_on_the_disk(tmp_path: Path) -> None:
    image, entries = make(tmp_path)
    with Inodes(image) as inodes:
        found = inodes.walk()
        assert found.keys() == entries.keys()
        assert {time for inode in found.values() for time in inode.times} == {EPOCH}
        assert stat.S_IMODE(found["bin/su"].mode) == 0o4555 and found["bin/su"].flags == 0x20000
        login = found["bin/login"]
        assert (login.uid, login.gid, stat.S_IMODE(login.mode), login.flags) == (0, 7, 0o555, 0)
        assert inodes.content(login) == bytes(range(256)) * 2000, "through the indirect block"
        assert found["bin/other name"].number == login.number and login.links == 2
        node = found["dev/ad0s1a"]
        assert (node.kind, node.addresses[0], node.gid) == (Kind.CHARACTER, 0x20740000, 5)
        assert (found["etc/secret"].uid, stat.S_IMODE(found["etc/secret"].mode)) == (66, 0o600)
        assert inodes.content(found["etc/#odd*[name]=\\"]) == b"kept"
        assert inodes.content(found["etc/empty"]) == b""
        assert inodes.content(found["etc/link"]) == b"../etc/secret"
        assert inodes.content(found["etc/long"]) == b"../" * 40 + b"etc/secret"
        assert stat.S_IMODE(found["tmp"].mode) == 0o1777
        block = inodes.superblock
    assert (block.inode_format, block.symlink_length, block.clean) == (2, 60, True), "FS_44INODEFMT"


@needs_makefs
def test_the_same_bytes_every_time(tmp_path: Path) -> None:
    first, _ = make(tmp_path, "first")
    second, _ = make(tmp_path, "second")
    assert first.read_bytes() == second.read_bytes()


@needs_makefs
def test_several_groups(tmp_path: Path) -> None:
    """A file system with more than one cylinder group has more than one copy of its superblock."""
    image, _ = make(tmp_path, size=700 << 20)
    with Inodes(image) as inodes:
        block = inodes.superblock
        assert block.groups > 1
        assert inodes.walk()["bin/su"].size == 4
    # fsck(8) of 1.x wants the free blocks counted by cylinder and by position: `struct cg`, sys/vfs/ufs/fs.h.
    with image.open("rb") as file:
        for number in range(block.groups):
            file.seek((block.group(number) + block.group_at) * block.fragment)
            group = file.read(256)
            (cylinders,), (free,) = struct.unpack_from("<H", group, 16), struct.unpack_from("<I", group, 28)
            totals, positions = struct.unpack_from("<II", group, 84)
            assert struct.unpack_from("<I", group, totals) == (free,)
            assert struct.unpack_from("<H", group, positions) == (free & 0xFFFF,)
            assert cylinders == (0 if number == block.groups - 1 else 1)


@needs_makefs
def test_a_disk_of_it(tmp_path: Path) -> None:
    layout = disk.Layout.plan(32, 8)
    image, entries = make(tmp_path, size=layout.root_bytes)
    blocks = disk.BootBlocks(b"one", b"two", b"\x90" * 510 + b"\x55\xaa" + bytes(512) + b"3" * 7168)
    raw, packed = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    disk.write(layout, blocks, image, raw)
    data = raw.read_bytes()
    (only,) = mbr.parse(data[:512])
    label = disklabel.parse(data[(only.start + 1) * 512 :][:512])
    root = label.partitions["a"]
    with Inodes(raw, root.offset * 512) as inodes:
        assert inodes.walk().keys() == entries.keys()
    assert data[root.offset * 512 + 8191 : root.offset * 512 + 8192] == b"3", (
        "boot2 ends where the superblock begins"
    )
    with pytest.raises(BuildFailed, match="33554432 bytes"):
        disk.write(disk.Layout.plan(33), blocks, image, tmp_path / "other.raw")
    disk.convert(raw, packed, run)
    again = tmp_path / "again.qcow2"
    disk.convert(raw, again, run)
    assert packed.read_bytes() == again.read_bytes()


@needs_makefs
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bin/su": Entry(Kind.FILE, 0o555)}, "bin/su: has mode 4555, not 555"),
        ({"bin/su": Entry(Kind.LINK, 0o4555)}, "bin/su: is file, not link"),
        ({"etc/secret": Entry(Kind.FILE, 0o600)}, "etc/secret: belongs to 66:0, not 0:0"),
        ({"dev/fd/0": Entry(Kind.CHARACTER, 0o666, device=1)}, "dev/fd/0: is device 0x1600, not 0x1"),
        ({"etc/link": Entry(Kind.LINK, 0o755, link="x")}, "etc/link: leads to"),
        ({"etc/more": Entry(Kind.FILE, 0o644)}, "etc/more is missing"),
    ],
)
def test_what_differs_from_the_manifest_is_found(tmp_path: Path, change: dict[str, Entry], message: str) -> None:
    image, entries = make(tmp_path)
    with pytest.raises(BuildFailed, match=message):
        finish(image, entries | change)
    del entries["etc/empty"]
    with pytest.raises(BuildFailed, match="etc/empty was not asked for"):
        finish(image, entries)


@needs_makefs
def test_what_is_not_in_the_manifest_is_left_out(tmp_path: Path) -> None:
    tree, target = tmp_path / "tree", tmp_path / "root.ufs"
    plant(tree)
    entries = {name: entry for name, entry in scan(tree, {}).items() if not name.startswith("etc")}
    ufs.make(tree, manifest(entries, EPOCH), target, size=16 << 20, epoch=EPOCH, run=run)
    finish(target, entries)
    with Inodes(target) as inodes:
        assert "etc" not in inodes.walk()


def test_flags() -> None:
    assert flags_of("schg,nodump") == 0x20001
    assert flags_of("uxlink,xlink") == flags_of("xlink")
    with pytest.raises(BuildFailed, match="unknown file flag 'shcg'"):
        flags_of("shcg")


def test_no_file_system() -> None:
    with pytest.raises(ValueError, match="no UFS1 superblock"):
        ufs.parse(bytes(4096))


@given(name=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_names_survive_the_manifest(name: str) -> None:
    escaped = escape(name)
    assert unescape(escaped) == name
    assert escaped.isascii() and not any(c in escaped for c in " \t\n#*?[]=")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("./x uname=nobody", "no user 'nobody'"),
        ("./x mode=rwx", "mode=rwx"),
        ("./x type=socket", "type=socket"),
        ("../../etc/passwd mode=600", "names"),
        ("./x schg", "schg"),
    ],
)
def test_logs_that_make_no_sense(line: str, message: str) -> None:
    with pytest.raises(BuildFailed, match=message):
        parse_log(line, NAMES)


def test_later_lines_win_key_by_key() -> None:
    assert parse_log("./a mode=755 uid=3\n./a mode=700 flags=schg\n", NAMES) == {
        "a": {"mode": 0o700, "uid": 3, "flags": "schg"}
    }
