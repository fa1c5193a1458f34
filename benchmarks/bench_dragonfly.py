"""What a matrix of a DragonFly tree costs: by kind of step, wall time against the sum of its parts, and again.

python benchmarks/bench_dragonfly.py TREE [--work DIR] [--filter EXPR] [FILE]

With a work directory that has everything already only the second half says something.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from timing import seconds

CONFIG = Path(__file__).parents[1] / "configs/dragonfly-1.2.toml"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tree")
    parser.add_argument("file", nargs="?", default=str(CONFIG))
    parser.add_argument("--work")
    parser.add_argument("--filter", default="toolchain=gcc2 and stack_protector=on and kernel=up and shape=up")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=Path.home()) as directory:
        words = [
            sys.executable, "-m", "dfbuild", "matrix", options.file, "--src", options.tree, "--json",
            "--work", options.work or directory, "--filter", options.filter,
        ]  # fmt: skip

        def run() -> dict[str, Any]:
            done = subprocess.run(words, check=False, capture_output=True, text=True)
            found: dict[str, Any] = json.loads(done.stdout)["run"]
            return found

        reports: list[dict[str, Any]] = []
        for title in ("first", "again"):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            wall = seconds(lambda: reports.append(run()))
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            show(title, reports[-1], wall, worked)


def show(title: str, report: dict[str, Any], wall: float, worked: float) -> None:
    """One run: how long its parts took, and what it took of the machine."""
    parts: dict[str, list[float]] = defaultdict(list)
    for step in report["steps"]:
        if not step["cached"]:
            parts[step["kind"]].append(step["seconds"])
    for cell in report["cells"]:
        boot = cell["stages"][-1]["seconds"] if cell["stages"] else 0.0
        parts["boot to login"].append(boot)
        parts["suites and the rest"].append(cell["seconds"] - boot)
    verdicts = sorted({cell["verdict"] for cell in report["cells"]})
    print(f"{title}: {len(report['cells'])} cells ({', '.join(verdicts)}), {os.cpu_count()} CPUs")
    for name, values in parts.items():
        print(f"  {name:20} {len(values):3} x {statistics.median(values):7.1f} s (median)")
    total = sum(map(sum, parts.values()))
    print(f"  {'wall':20} {wall:13.1f} s  {wall / total:.2f} of the sum of its parts")
    print(f"  {'CPU':20} {worked:13.1f} s  {worked / wall:.2f} CPUs")


if __name__ == "__main__":
    main()
