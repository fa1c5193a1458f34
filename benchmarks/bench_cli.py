"""`dfbuild --help` against a bare interpreter: what the command line costs before it does anything.

python benchmarks/bench_cli.py
"""

from __future__ import annotations

import subprocess
import sys

from timing import median_seconds

ROUNDS = 20


def run(*words: str) -> None:
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    bare = median_seconds(lambda: run("-c", "pass"), ROUNDS)
    help_ = median_seconds(lambda: run("-m", "dfbuild", "--help"), ROUNDS)
    print(f"bare interpreter  {bare * 1000:6.1f} ms")
    print(f"dfbuild --help    {help_ * 1000:6.1f} ms  ratio {help_ / bare:.2f}  (budget 150 ms)")


if __name__ == "__main__":
    main()
