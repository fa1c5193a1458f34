"""Shells in the reference guest: a command's round trip over serial and SSH, and copying.

    python benchmarks/bench_shell.py [ROUNDS] [MEGABYTES]

`DFBUILD_WORK` names the work directory; the guest's image is built first if it is not there. Under emulation the
guest's own work (fork, exec, ciphers) is most of each figure, so `sh -c true` is timed there by itself, too.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from shell_guest import ShellGuest, booted

from dfbuild.build.store import ArtefactStore, build_all
from dfbuild.build.targets import target
from dfbuild.deadline import Deadline
from dfbuild.model import Cell, Shape, Variant
from dfbuild.releases import load
from dfbuild.shell import Shell
from dfbuild.workspace import Workspace

CELL = Cell(Variant("reference", "gcc-12", "on", "smp"), Shape("up"))


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def later() -> Deadline:
    return Deadline.after(600)


def trips(shell: Shell, command: str, rounds: int) -> None:
    shell.run(command, later())
    took = [1000 * seconds(lambda: shell.run(command, later())) for _ in range(rounds)]
    print(f"{shell.via:6}  {command:12}  median {statistics.median(took):7.1f} ms  best {min(took):7.1f} ms")


def copies(shell: Shell, size: int, directory: Path) -> None:
    source, back = directory / "source", directory / "back"
    source.write_bytes(os.urandom(size))
    put = seconds(lambda: shell.put(source, "/root/bench", later()))
    get = seconds(lambda: shell.get("/root/bench", back, later()))
    assert back.read_bytes() == source.read_bytes()
    rate = size / 1e6
    print(f"{shell.via:6}  {rate:.2f} MB  put {rate / put:7.3f} MB/s  get {rate / get:7.3f} MB/s")


def alone(shell: Shell, times: int = 100) -> float:
    """Milliseconds that the guest itself needs for `sh -c true`."""
    loop = f"i=0; while [ $i -lt {times} ]; do sh -c true; i=$((i+1)); done"
    empty = seconds(lambda: shell.run("true", later()))
    return 1000 * (seconds(lambda: shell.run(loop, later())) - empty) / times


def measure(guest: ShellGuest, via: str, rounds: int, size: int, directory: Path) -> None:
    began = time.perf_counter()
    shell = guest.open(via)
    print(f"{via:6}  open          {1000 * (time.perf_counter() - began):14.1f} ms")
    trips(shell, "true", rounds)
    trips(shell, "echo hello", rounds)
    print(f"guest   sh -c true    {alone(shell):14.1f} ms")
    copies(shell, size, directory)
    shell.close()


def main(rounds: int = 30, megabytes: int = 30) -> None:
    workspace = Workspace.locate()
    release = load("reference")
    image = build_all(target(release).image(release, CELL, workspace), ArtefactStore(workspace), later(), print)
    media = target(release).media(release, CELL, image, workspace)
    with tempfile.TemporaryDirectory() as scratch, booted(CELL, media, workspace, Path(scratch) / "log") as guest:
        measure(guest, "serial", rounds, 100_000, Path(scratch))
        measure(guest, "ssh", rounds, megabytes * 1_000_000, Path(scratch))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
