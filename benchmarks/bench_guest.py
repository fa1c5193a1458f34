"""What dfbuild adds to a guest: start to first console byte, and stop to reaped, against bare QEMU.

    python benchmarks/bench_guest.py [ROUNDS]

Both boot the same boot sector with the same command line, in turns. The bare one is a `Popen` without sandbox, QMP
or a fresh overlay, ended with SIGTERM. Exit status 1 if dfbuild adds more than its budget.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from payload import BANNER, write_disk

from dfbuild.deadline import Deadline
from dfbuild.guest import create
from dfbuild.guest.accel import Accel, qemu_version
from dfbuild.guest.argv import Paths
from dfbuild.guest.protocol import GuestSpec
from dfbuild.model import Disk, Media, Shape
from dfbuild.runtime import runtime_directory

BUDGET = 0.2


def soon() -> Deadline:
    return Deadline.after(60)


def first_byte(console: socket.socket) -> float:
    """When the first byte came."""
    assert console.recv(1) == BANNER[:1]
    return time.perf_counter()


def ours(spec: GuestSpec) -> tuple[float, float]:
    """Seconds from `start` to the first byte, and from `stop` to its return."""
    guest = create(spec, Accel("tcg"))
    began = time.perf_counter()
    with guest.start(soon()) as console:
        up = first_byte(console) - began
        began = time.perf_counter()
        guest.stop(soon())
    return up, time.perf_counter() - began


def bare(spec: GuestSpec) -> tuple[float, float]:
    """The same of QEMU alone."""
    paths = Paths(spec.directory)
    base = spec.media.disks[0]
    overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base.path, "-F", base.format, paths.overlay(0)]
    subprocess.run(overlay, check=True)
    with contextlib.ExitStack() as stack:
        listeners = {}
        for path in (paths.console, paths.qmp):
            path.unlink(missing_ok=True)
            listeners[path] = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listeners[path].bind(os.fspath(path))
            listeners[path].listen(1)
        argv = [word for word in create(spec, Accel("tcg")).command() if word != "-S"]
        began = time.perf_counter()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        console = stack.enter_context(listeners[paths.console].accept()[0])
        up = first_byte(console) - began
        began = time.perf_counter()
        process.terminate()
        process.wait()
        return up, time.perf_counter() - began


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    times: dict[str, list[tuple[float, float]]] = {"dfbuild": [], "bare": []}
    with tempfile.TemporaryDirectory() as scratch:
        disk = write_disk(Path(scratch) / "disk.img")
        # The first of each is thrown away: it loads QEMU and Python's libraries from disk.
        for number in range(rounds + 1):
            for name, run in (("bare", bare), ("dfbuild", ours)):
                directory = runtime_directory("b")
                spec = GuestSpec("bench", Shape("up"), Media(disks=(Disk(disk, "raw"),)), directory)
                measured = run(spec)
                shutil.rmtree(directory)
                if number == 0:
                    print(f"first {name:8s} up {measured[0] * 1000:6.1f} ms  down {measured[1] * 1000:6.1f} ms")
                else:
                    times[name].append(measured)
    print(f"QEMU {qemu_version()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {rounds} rounds, medians:")
    added = 0.0
    for index, phase in enumerate(("start to first byte", "stop to reaped")):
        harness, alone = (statistics.median(pair[index] for pair in times[name]) for name in ("dfbuild", "bare"))
        added += harness - alone
        print(
            f"{phase:20s} dfbuild {harness * 1000:6.1f} ms  bare {alone * 1000:6.1f} ms  "
            f"ratio {harness / alone:5.2f}  adds {(harness - alone) * 1000:+6.1f} ms"
        )
    print(f"{'added to a guest':20s} {added * 1000:6.1f} ms (budget {BUDGET * 1000:.0f} ms)")
    return int(added > BUDGET)


if __name__ == "__main__":
    sys.exit(main())
