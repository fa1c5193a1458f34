"""`dfbuild --help` against a bare interpreter: what the command line costs before it does anything.

    python benchmarks/bench_cli.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 20


def median_seconds(argv: list[str]) -> float:
    """Median wall time of `argv` over ROUNDS runs, in seconds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    bare = median_seconds([sys.executable, "-c", "pass"])
    help_ = median_seconds([sys.executable, "-m", "dfbuild", "--help"])
    print(f"bare interpreter  {bare * 1000:6.1f} ms")
    print(f"dfbuild --help    {help_ * 1000:6.1f} ms  ratio {help_ / bare:.2f}  (budget 150 ms)")


if __name__ == "__main__":
    main()
