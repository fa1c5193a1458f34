"""Device nodes by a MAKEDEV script, without making one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.errors import BuildFailed
from dfbuild.image import devices
from dfbuild.image.manifest import Entry, Kind, Names, parse_log, scan

NAMES = Names({"root": 0, "uucp": 66}, {"wheel": 0, "operator": 5, "dialer": 68})

# How scripts of the two kinds go about it: by a function around /sbin/mknod, and by mknod and the umask alone.
WRAPPED = """\
mknod=/sbin/mknod
PATH=$MAKEDEVPATH
mknod() {
    local name=$1
    rm -f "$name"
    $mknod $name $2 $3 $4 $5
    chmod $6 $name
}
for i in $*; do
case $i in
all)
    sh MAKEDEV std ad0
    ;;
std)
    mknod null c 2 2 root:wheel 666
    mkdir -p fd
    (cd fd && mknod 0 c 22 0 root:wheel 666)
    chmod 555 fd
    ln -sf null zero
    ;;
ad0)
    mknod ad0s1a c 116 0x00020000 root:operator 640
    mknod ad0 c 116 $((1 << 16 | 2)) root:operator 640
    mknod last c 37 037777600001 uucp:dialer 660
    ;;
esac
done
"""
PLAIN = """\
PATH=$MAKEDEVPATH
umask 37
mknod cuaa0 c 28 128 uucp:dialer
umask 77
mknod console c 0 0
"""


def run(argv: Sequence[str | Path], environment: Mapping[str, str]) -> str:
    return subprocess.run(
        [str(word) for word in argv], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    ).stdout


def entries(directory: Path, script: str, prefix: str = "dev") -> dict[str, Entry]:
    """What becomes of the nodes of a script in an image with nothing else."""
    made, tree = directory / "made", directory / "tree"
    made.mkdir()
    (tree / prefix).mkdir(parents=True)
    devices.make(script, made, run)
    found = scan(tree, parse_log(devices.log(made, prefix), NAMES))
    assert found.pop(".").kind is Kind.DIRECTORY
    return found


def test_a_script_of_1_2(tmp_path: Path) -> None:
    assert entries(tmp_path, WRAPPED) == {
        "dev": Entry(Kind.DIRECTORY, 0o755),
        "dev/null": Entry(Kind.CHARACTER, 0o666, device=0x202),
        "dev/fd": Entry(Kind.DIRECTORY, 0o555),
        "dev/fd/0": Entry(Kind.CHARACTER, 0o666, device=0x1600),
        "dev/zero": Entry(Kind.LINK, 0o755, link="null"),
        "dev/ad0s1a": Entry(Kind.CHARACTER, 0o640, 0, 5, device=0x27400),
        "dev/ad0": Entry(Kind.CHARACTER, 0o640, 0, 5, device=0x17402),
        "dev/last": Entry(Kind.CHARACTER, 0o660, 66, 68, device=0xFFFF2501),
    }


def test_a_script_of_1_0(tmp_path: Path) -> None:
    assert entries(tmp_path, PLAIN, "elsewhere") == {
        "elsewhere": Entry(Kind.DIRECTORY, 0o755),
        "elsewhere/cuaa0": Entry(Kind.CHARACTER, 0o640, 66, 68, device=0x1C80),
        "elsewhere/console": Entry(Kind.CHARACTER, 0o600, device=0),
    }


def test_what_is_no_node(tmp_path: Path) -> None:
    devices.make("echo hello > nonsense\n", tmp_path, run)
    with pytest.raises(BuildFailed, match="dev/nonsense is no device: 'hello"):
        devices.log(tmp_path)


def test_numbers_and_names_are_as_the_shell_of_the_day_has_them(tmp_path: Path) -> None:
    """MAKEDEV is the tree's text, in the character set of its author."""
    devices.make("# S\xf8ren\n/sbin/mknod x c 010 0x1\n", tmp_path, run)
    assert "device=0x801" in devices.log(tmp_path)


def test_numbers_that_are_none(tmp_path: Path) -> None:
    devices.make("/sbin/mknod x c zz 1\n", tmp_path, run)
    with pytest.raises(BuildFailed, match="dev/x is no device"):
        devices.log(tmp_path)


@given(major=st.integers(0, 255), low=st.integers(0, 255), high=st.integers(0, 0xFFFF))
def test_numbers_come_apart_again(major: int, low: int, high: int) -> None:
    """`umajor` and `uminor` of sys/kern/kern_conf.c."""
    minor = high << 16 | low
    packed = devices.number(major, minor)
    assert (packed & 0xFF00) >> 8 == major and packed & 0xFFFF00FF == minor


@pytest.mark.parametrize(("major", "minor"), [(256, 0), (-1, 0), (5, 0x100)])
def test_numbers_that_cannot_be(major: int, minor: int) -> None:
    with pytest.raises(BuildFailed, match="no device number"):
        devices.number(major, minor)
