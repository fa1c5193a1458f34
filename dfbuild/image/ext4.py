"""An ext4 file system from a directory tree: no mount, no root, and the same bytes from the same tree.

mke2fs(8) copies the tree; debugfs(8) then makes root the owner of everything and sets the inodes' times, of which
the change time cannot be set on the host. `E2FSPROGS_FAKE_TIME` stops the clock of both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dfbuild.errors import BuildFailed
from dfbuild.image.ufs import Run

_TIMES = ("atime", "ctime", "mtime")


def make(tree: Path, target: Path, *, size: int, uuid: str, label: str, epoch: int, run: Run) -> None:
    """Write the file system of `size` MiB with the content of `tree` to the sparse file `target`.

    `uuid` names the file system and seeds its directory hashes. Raises `BuildFailed` if a tool complains.
    """
    environment = {"E2FSPROGS_FAKE_TIME": str(epoch)}
    with target.open("xb") as file:
        file.truncate(size << 20)
    # No journal: what a guest writes is thrown away with its overlay.
    run(
        [
            "mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-L", label, "-U", uuid,
            "-E", f"hash_seed={uuid},root_owner=0:0,lazy_itable_init=0", "-d", tree, target,
        ],
        environment,
    )  # fmt: skip
    script = target.with_name(target.name + ".debugfs")
    script.write_text("".join(f"{line}\n" for line in inode_commands(tree, epoch)), encoding="utf-8")
    printed = run(["debugfs", "-w", "-f", script, target], environment)
    # debugfs ends with status 0 whatever happens, but prints nothing beside the echoed commands where all is well.
    complaints = [line for line in printed.splitlines() if line and not line.startswith("debugfs")]
    if complaints:
        raise BuildFailed(f"debugfs: {complaints[0]}", component="file system", tail="\n".join(complaints[:20]))
    script.unlink()


def inode_commands(tree: Path, epoch: int) -> Iterator[str]:
    """debugfs commands that give every file of `tree` to root and the date `epoch`."""
    paths = ["/", "/lost+found"]
    for directory, names, files in os.walk(tree):
        names.sort()
        paths += [f"/{Path(directory, name).relative_to(tree).as_posix()}" for name in [*names, *files]]
    for path in sorted(paths):
        if any(character.isspace() or character == '"' for character in path):
            raise BuildFailed(f"a file for the image has a blank in its name: {path!r}", component="file system")
        for owner in ("uid", "gid"):
            yield f"set_inode_field {path} {owner} 0"
        for time in _TIMES:
            yield f"set_inode_field {path} {time} @{epoch}"
