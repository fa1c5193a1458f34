"""The programs that busybox can be."""

from __future__ import annotations

from pathlib import Path

from dfbuild import process
from dfbuild.build.recipe import Kitchen
from dfbuild.errors import BuildFailed
from dfbuild.sandbox import Sandbox


def applets(kitchen: Kitchen, busybox: Path) -> list[str]:
    """The paths of all applets of the program `busybox`, as it would install them: `usr/bin/awk`."""
    sandbox = Sandbox(writable=(kitchen.directory,))
    listed = process.run(sandbox.argv([busybox, "--list-full"]), kitchen.deadline)
    names = listed.output.split()
    if listed.status != 0 or "bin/sh" not in names:
        raise BuildFailed("busybox does not list its applets", component="busybox", tail=listed.output[-1000:])
    return names
