"""What a matrix costs when nothing has changed: builds from the cache against builds, for cells that only boot.

python benchmarks/bench_matrix.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from timing import seconds

MATRIX = """
release = "reference"
[axes]
toolchain = ["gcc-12", "clang-14"]
stack_protector = ["on", "off"]
kernel = "smp"
shape = "up"
suites = []
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=Path.home()) as directory:
        file = Path(directory) / "matrix.toml"
        file.write_text(MATRIX)
        words = [sys.executable, "-m", "dfbuild", "matrix", str(file), "--work", str(Path(directory) / "work")]

        def run(*more: str) -> None:
            subprocess.run([*words, *more], check=True, capture_output=True)

        cold, cached = seconds(run), seconds(run)
        plan = seconds(lambda: run("--dry-run"))
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; 4 variants on 1 shape, no suites")
    print(f"first run, downloads and builds {cold:6.1f} s")
    print(f"second run, builds cached       {cached:6.1f} s  ratio {cached / cold:.2f}")
    print(f"--dry-run                       {plan:6.1f} s")


if __name__ == "__main__":
    main()
