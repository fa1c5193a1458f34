"""The initramfs archive, read back by the format's definition."""

from __future__ import annotations

import shutil
import stat
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.image.cpio import Entry, archive

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=12)
ENTRIES = st.lists(
    st.builds(Entry.file, NAMES, st.binary(max_size=50), st.sampled_from([0o644, 0o755]))
    | st.builds(Entry.symlink, NAMES, NAMES)
    | st.builds(Entry.directory, NAMES),
    max_size=8,
)


def read(data: bytes) -> list[tuple[Entry, int]]:
    """Entries and their times up to the trailer, all numbers checked for what newc demands."""
    found: list[tuple[Entry, int]] = []
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        inode, mode, uid, gid, _links, time, size, *_device, name_size, check = fields
        assert (uid, gid, check) == (0, 0, 0)
        name = data[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        start = (at + 110 + name_size + 3) & ~3
        body = data[start : start + size]
        at = (start + size + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert at == len(data)
            return found
        assert inode == len(found) + 1
        found.append((Entry(name[:-1].decode(), mode, body), time))


@given(ENTRIES, st.integers(0, 2**32 - 1))
def test_archives_read_back(entries: list[Entry], epoch: int) -> None:
    assert read(archive(entries, epoch=epoch)) == [(entry, epoch) for entry in entries]


def test_modes() -> None:
    assert stat.filemode(Entry.directory("d").mode) == "drwxr-xr-x"
    assert stat.filemode(Entry.file("f", b"", 0o600).mode) == "-rw-------"
    assert stat.filemode(Entry.symlink("l", "t").mode) == "lrwxrwxrwx"


def test_cpio_itself_reads_it() -> None:
    if shutil.which("cpio") is None:
        pytest.skip("cpio is not installed")
    data = archive([Entry.directory("dir"), Entry.file("dir/file", b"text"), Entry.symlink("link", "dir/file")])
    done = subprocess.run(["cpio", "-itv", "--quiet"], input=data, capture_output=True, check=True)
    assert [line.split(b" 1970 ")[1] for line in done.stdout.splitlines()] == [
        b"dir",
        b"dir/file",
        b"link -> dir/file",
    ]
