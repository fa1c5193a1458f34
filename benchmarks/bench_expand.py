"""100,000 cells: read the file, expand it, filter it, against building as many bare cells in a loop.

python benchmarks/bench_expand.py
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

from timing import median_seconds

from dfbuild.config import load
from dfbuild.matrix.expand import expand, select
from dfbuild.model import Cell, Shape, Variant

TOOLCHAINS, PROTECTORS, KERNELS, SHAPES = 50, 2, 10, 100
FILTER = "toolchain=gcc-1*,gcc-2* and not (shape=s?7 or memory<512) or id='*/k3 @ s1*' and cpus>=4"

RELEASE = """
name = "large"
title = "Many of everything"
target = "reference"
elf_machine = "EM_X86_64"
probes = "/probes"
[console]
stages = [{ name = "login", pattern = "login: ", deadline = 1 }]
crashes = []
[stack_protectors]
on = {}
off = {}
[[refuse]]
when = "toolchain=gcc-7 and stack_protector=on"
reason = "for the benchmark"
[[refuse]]
when = "cpu=486* or hypervisor=xen*"
reason = "for the benchmark"
"""


def write(directory: Path) -> Path:
    """A release and a matrix of TOOLCHAINS x PROTECTORS x KERNELS x SHAPES cells; returns the matrix file."""
    release = [
        RELEASE,
        "[toolchains]",
        *(f'gcc-{n} = {{ cc = "gcc", comment = "GCC" }}' for n in range(TOOLCHAINS)),
    ]
    release += ["[kernels]", *(f"k{n} = {{}}" for n in range(KERNELS))]
    (directory / "large.toml").write_text("\n".join(release))
    axes = {
        "toolchain": [f"gcc-{n}" for n in range(TOOLCHAINS)],
        "stack_protector": ["on", "off"],
        "kernel": [f"k{n}" for n in range(KERNELS)],
        "shape": [f"s{n}" for n in range(SHAPES)],
    }
    matrix = ['release = "./large.toml"', "[axes]", *(f"{axis} = {names}" for axis, names in axes.items())]
    matrix += ["[[exclude]]", 'when = "kernel=k9 and shape=s99"', 'reason = "for the benchmark"', "[shapes]"]
    matrix += [f"s{n} = {{ sockets = {n % 8 + 1}, memory = {128 * (n % 16 + 1)} }}" for n in range(SHAPES)]
    file = directory / "matrix.toml"
    file.write_text("\n".join(matrix))
    return file


def bare() -> list[Cell]:
    """As many cells in one comprehension: nothing can be faster in Python."""
    shapes = [Shape(f"s{n}") for n in range(SHAPES)]
    variants = [
        Variant("large", f"gcc-{t}", p, f"k{k}")
        for t, p, k in itertools.product(range(TOOLCHAINS), ("on", "off"), range(KERNELS))
    ]
    return [Cell(variant, shape) for variant in variants for shape in shapes]


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = write(Path(directory))
        matrix = load(file)
        expansion = expand(matrix)
        selected = select(expansion, FILTER)
        floor = median_seconds(bare)
        steps = {
            "load": median_seconds(lambda: load(file)),
            "expand": median_seconds(lambda: expand(matrix)),
            "filter": median_seconds(lambda: select(expansion, FILTER)),
        }
    total = len(expansion.cells) + len(expansion.refusals) + len(expansion.excluded)
    print(f"{total} cells: {len(expansion.refusals)} refused, {len(expansion.excluded)} excluded")
    print(f"filter selects {len(selected.cells)}")
    print(f"bare cells  {floor * 1000:7.1f} ms")
    for name, seconds in steps.items():
        print(f"{name:10}  {seconds * 1000:7.1f} ms  ratio {seconds / floor:5.2f}")
    both = steps["expand"] + steps["filter"]
    print(f"together    {both * 1000:7.1f} ms  ratio {both / floor:5.2f}  (budget 2000 ms for expand and filter)")


if __name__ == "__main__":
    main()
