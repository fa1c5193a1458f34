"""A CD's file system: owners and modes without root, a boot program, the same bytes every time."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed
from dfbuild.image import iso
from dfbuild.image.manifest import Entry, Kind, Names, parse_log, scan

EPOCH = 1595548800
SECTOR = 2048
VOLUME = iso.Volume("LIVE_1", "boot/cdboot", epoch=EPOCH)


def run(argv: Sequence[str | Path], environment: Mapping[str, str]) -> str:
    done = subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tree(place: Path) -> Path:
    for name, content in {
        "boot/cdboot": b"\xfa" * 1183,
        "bin/su": b"su",
        "bin/[": b"test",
        "etc/it's": b"!",
    }.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (place / "bin/link").symlink_to("su")
    return place


def entries(place: Path) -> dict[str, Entry]:
    log = "./bin/su uname=root gname=mail mode=4555 flags=schg\n./bin/[ mode=0500\n./var type=dir mode=1777 uid=7\n"
    return scan(place, parse_log(log, Names({"root": 0}, {"mail": 6})))


def listed(medium: Path) -> dict[str, str]:
    """Path ▸ mode, owner and group, as another program reads them."""
    out = run(["xorriso", "-no_rc", "-indev", medium, "-find", "/", "-exec", "lsdl"], {})
    lines = [line.split(None, 8) for line in out.splitlines() if line[:1] in "d-le"]
    return {words[8].partition(" -> ")[0].strip("'\""): " ".join(words[i] for i in (0, 2, 3)) for words in lines}


def test_owners_modes_and_the_boot_program(tmp_path: Path) -> None:
    place, medium = tree(tmp_path / "tree"), tmp_path / "live.iso"
    iso.make(VOLUME, place, medium, entries(place), run)
    data = medium.read_bytes()
    assert data[16 * SECTOR + 1 : 16 * SECTOR + 6] == b"CD001"
    assert data[16 * SECTOR + 40 :][:32].strip() == b"LIVE_1"
    (catalog,) = struct.unpack_from("<I", data, 17 * SECTOR + 71)
    bootable, kind, segment, system, _, sectors, at = struct.unpack_from("<BBHBBHI", data, catalog * SECTOR + 32)
    assert (bootable, kind, segment, system) == (0x88, 0, 0, 0), "no emulation, at the BIOS's own place"
    assert data[at * SECTOR :][: sectors * 512].startswith(b"\xfa" * 1183), "all of it is loaded"
    found = listed(medium)
    assert found["/bin/su"] == "-r-sr-xr-x 0 6"
    assert found["/bin/["] == "-r-x------ 0 0", "a name, not a pattern"
    assert found["/var"] == "drwxrwxrwt 7 0", "the log alone knows it"
    assert found["/bin/link"].startswith("l") and any(name.startswith("/etc/it") for name in found)
    assert [path.name for path in tmp_path.iterdir()].count("live.iso.commands") == 0


@pytest.mark.parametrize("boot", ["boot/cdboot", ""])
def test_firmware_of_both_kinds_finds_its_own(boot: str, tmp_path: Path) -> None:
    """El Torito 1.0, 2: a validation entry, the default entry, and a section for each further platform."""
    place, medium, content = tree(tmp_path / "tree"), tmp_path / "live.iso", os.urandom(5 * SECTOR + 512)
    (place / "boot/efiboot.img").write_bytes(content)
    iso.make(iso.Volume("LIVE_1", boot, "boot/efiboot.img", EPOCH), place, medium, entries(place), run)
    data = medium.read_bytes()
    (catalog,) = struct.unpack_from("<I", data, 17 * SECTOR + 71)
    records = [data[catalog * SECTOR + 32 * n :][:32] for n in range(4)]
    assert records[0][0] == 1
    if boot:
        assert records[0][1] == 0 and records[1][0] == 0x88, "the BIOS's comes first"
        assert records[2][:4] == b"\x91\xef\x01\x00", "the last section, for EFI, with one entry"
    else:
        assert records[0][1] == 0xEF
    bootable, kind, _, _, _, sectors, at = struct.unpack_from("<BBHBBHI", records[3 if boot else 1])
    assert (bootable, kind) == (0x88, 0)
    assert data[at * SECTOR :][: sectors * 512].startswith(content)
    assert sectors * 512 < len(content) + SECTOR


def test_the_same_bytes_elsewhere_and_later(tmp_path: Path) -> None:
    made = []
    for name in ("a", "another place"):
        (tmp_path / name).mkdir()
        place = tree(tmp_path / name / "tree")
        os.utime(place / "bin/su", (len(made), len(made)))
        iso.make(VOLUME, place, tmp_path / name / "live.iso", entries(place), run)
        made.append((tmp_path / name / "live.iso").read_bytes())
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("volume", "more", "message"),
    [
        (iso.Volume("no lower case"), {}, "cannot be a volume's label"),
        (iso.Volume("X"), {"dev/null": Entry(Kind.CHARACTER, 0o666)}, "dev/null is a device node"),
        (iso.Volume("X"), {"a'\"": Entry(Kind.FILE, 0o644)}, "has no words for"),
        (iso.Volume("X"), {"a\n-exec": Entry(Kind.FILE, 0o644)}, "has no words for"),
    ],
)
def test_what_cannot_be_said(volume: iso.Volume, more: dict[str, Entry], message: str, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=message):
        iso.commands(volume, tmp_path, tmp_path / "x.iso", more)


def test_a_file_is_taken_out_and_what_is_no_medium_has_none(tmp_path: Path) -> None:
    place, medium = tree(tmp_path / "tree"), tmp_path / "live.iso"
    iso.make(iso.Volume("X"), place, medium, entries(place), run)
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "su"
    assert iso.extract(medium, "bin/su", target, Deadline.after(60)) and target.read_bytes() == b"su"
    assert not iso.extract(medium, "bin/none", tmp_path / "out" / "none", Deadline.after(60))
    assert not iso.extract(medium, "bin/link", tmp_path / "out" / "link", Deadline.after(60)), "it leads elsewhere"
    (tmp_path / "rubbish.iso").write_bytes(bytes(100000))
    assert not iso.extract(tmp_path / "rubbish.iso", "bin/su", tmp_path / "out" / "su2", Deadline.after(60))
