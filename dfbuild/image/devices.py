"""The device nodes of /dev, by the release's own MAKEDEV script, where nobody may make one.

The script runs as it stands but for the path of mknod(8): a stand-in writes a regular file that says which node it
would have been; the script's own umask, chmod and ln do the rest. What the directory then holds is told as an
installation log (see `manifest.parse_log`).
"""

from __future__ import annotations

import re
import shlex
import shutil
import stat
from pathlib import Path

from dfbuild.errors import BuildFailed
from dfbuild.image.manifest import Kind, escape
from dfbuild.image.ufs import Run

_COMPONENT = "MAKEDEV"
_MKNOD_PATH = re.compile(r"/sbin/mknod\b")
_MARK = "device-node"
# mknod name c|b major minor owner:group
_MKNOD = f"""#!/bin/sh
echo "{_MARK} $2 $3 $4 $5" > "$1"
"""
_KINDS = {"c": Kind.CHARACTER, "b": Kind.BLOCK}


def make(script: str, directory: Path, run: Run, names: tuple[str, ...] = ("all",)) -> None:
    """Run the text of MAKEDEV in `directory`, which has to be empty, for the nodes or groups of nodes `names`."""
    tool = directory / ".tools" / "mknod"
    tool.parent.mkdir()
    tool.write_text(_MKNOD)
    tool.chmod(0o755)
    copy = directory / "MAKEDEV"
    copy.write_text(_MKNOD_PATH.sub(lambda _: shlex.quote(str(tool.absolute())), script), encoding="latin-1")
    run(
        ["sh", "-c", 'cd "$1" && shift && exec sh MAKEDEV "$@"', "sh", directory, *names],
        {"MAKEDEVPATH": f"{tool.parent.absolute()}:/usr/bin:/bin"},
    )
    copy.unlink()
    shutil.rmtree(tool.parent)


def log(directory: Path, prefix: str = "dev") -> str:
    """What `make` left in `directory`, by path in the image. Raises `BuildFailed` for what is no node."""
    lines = []
    for path in sorted(directory.rglob("*")):
        name = f"{prefix}/{path.relative_to(directory).as_posix()}"
        if path.is_symlink():
            words = f"type={Kind.LINK} link={escape(str(path.readlink()))}"
        else:
            mode = f"mode={stat.S_IMODE(path.stat().st_mode):04o}"
            words = f"type={Kind.DIRECTORY}" if path.is_dir() else _node(name, path.read_text(encoding="latin-1"))
            words = f"{words} {mode}"
        lines.append(f"./{escape(name)} {words}\n")
    return "".join(lines)


def number(major: int, minor: int) -> int:
    """A device's number as the kernel packs it (`makeudev`, sys/kern/kern_conf.c): 32 bits, the major in 15-8."""
    if not 0 <= major < 256 or minor & 0xFF00 or not -(1 << 31) <= minor < 1 << 32:
        raise BuildFailed(f"no device number: {major}, {minor}", component=_COMPONENT)
    return (major << 8 | minor) & 0xFFFFFFFF


def _node(name: str, text: str) -> str:
    words = text.split()
    if len(words) not in (4, 5) or words[0] != _MARK or words[1] not in _KINDS:
        raise BuildFailed(f"{name} is no device: {text[:80]!r}", component=_COMPONENT)
    try:
        device = number(_integer(words[2]), _integer(words[3]))
    except ValueError as error:
        raise BuildFailed(f"{name} is no device: {text[:80]!r}", component=_COMPONENT) from error
    user, _, group = (words[4] if len(words) == 5 else "root:wheel").partition(":")
    return f"type={_KINDS[words[1]]} uname={escape(user)} gname={escape(group or 'wheel')} device={device:#x}"


def _integer(text: str) -> int:
    """As sh(1) and mknod(8) read numbers: a leading 0 means octal."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
    return sign * (int(digits, 8) if octal else int(digits, 0))
