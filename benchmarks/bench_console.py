"""How fast a console is watched: recorded, searched for every crash signature, and waited on by a dialogue.

    python benchmarks/bench_console.py [MEGABYTES]

Another process prints kernel-like lines into a socketpair. The measure is a bare `recv` loop over the same bytes in
the same run, so the ratios hold on any machine. Exit status 1 if recording and watching is slower than its budget.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dfbuild.console.dialogue import Dialogue
from dfbuild.console.monitor import Monitor
from dfbuild.console.protocol import ConsoleClosed
from dfbuild.console.reader import ConsoleReader
from dfbuild.deadline import Deadline
from dfbuild.releases import load

BUDGET = 50.0
"""MB/s."""
END = b"the very end\r\n"


def kernel_lines() -> bytes:
    """A megabyte of what kernels print, without a crash in it."""
    line = (
        b"[%5d.%06d] virtio_net virtio0 eth0: some message of the kernel with numbers, %#x, and no crash in it\r\n"
    )
    return b"".join(line % (n // 100, n % 1_000_000, n * 2654435761) for n in range(9_700))


def printing(block: bytes, times: int) -> socket.socket:
    """The reading end of a socketpair into which another process prints `block`, `times` over, and `END`."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        try:
            for _ in range(times):
                theirs.sendall(block)
            theirs.sendall(END)
        finally:
            os._exit(0)
    theirs.close()
    return ours


def bare(stream: socket.socket) -> None:
    while stream.recv(1 << 17):
        pass


def watched(stream: socket.socket) -> None:
    with tempfile.TemporaryDirectory() as directory:
        reader = start(stream, Path(directory))
        try:
            reader.wait(1 << 60, Deadline.after(600))
        except ConsoleClosed:
            reader.close()


def dialogue(stream: socket.socket) -> None:
    """The same, with somebody waiting for the last line."""
    with tempfile.TemporaryDirectory() as directory:
        reader = start(stream, Path(directory))
        Dialogue(reader, 0).expect([r"^the very (\w+)"], Deadline.after(600))
        reader.close()


def start(stream: socket.socket, directory: Path) -> ConsoleReader:
    monitor = Monitor(load("reference").console.crashes)
    reader = ConsoleReader(stream, directory / "console.log", monitor, power_on=time.monotonic())
    reader.start()
    return reader


def rate(work: Callable[[socket.socket], None], block: bytes, times: int) -> float:
    """MB/s, the best of three: what the machine does besides is not the console's."""
    best = 0.0
    for _ in range(3):
        stream = printing(block, times)
        began = time.perf_counter()
        work(stream)
        best = max(best, len(block) * times / 1e6 / (time.perf_counter() - began))
        stream.close()
        os.wait()
    return best


def monitor_alone(block: bytes, times: int) -> float:
    monitor = Monitor(load("reference").console.crashes)
    pieces = [block[at : at + (1 << 17)] for at in range(0, len(block), 1 << 17)]
    began = time.perf_counter()
    offset = 0
    for _ in range(times):
        for piece in pieces:
            monitor.feed(piece, offset)
            offset += len(piece)
    return offset / 1e6 / (time.perf_counter() - began)


def main() -> int:
    block = kernel_lines()
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    signatures = len(load("reference").console.crashes)
    measure = rate(bare, block, times)
    print(f"{times} MB a time, {signatures} crash signatures, best of 3, {os.cpu_count()} CPUs")
    print(f"bare recv loop        {measure:8.0f} MB/s")
    figures = {
        "recorded and watched": (recorded := rate(watched, block, times)),
        "with a dialogue": rate(dialogue, block, times),
        "the monitor alone": monitor_alone(block, times),
    }
    for what, figure in figures.items():
        print(f"{what:21} {figure:8.0f} MB/s, {figure / measure:.2f} of bare")
    print(f"budget                {BUDGET:8.0f} MB/s recorded and watched")
    return int(recorded < BUDGET)


if __name__ == "__main__":
    sys.exit(main())
