"""The world: process 1 and the suites' programs, compiled by the cell's compiler with the cell's protector."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dfbuild.build import probes, proof, step
from dfbuild.build.debian import apt
from dfbuild.build.recipe import Kitchen, Recipe
from dfbuild.build.reference import data
from dfbuild.model import StepKind, Variant
from dfbuild.releases import Release
from dfbuild.sandbox import Sandbox

INIT = "init"


def recipe(release: Release, variant: Variant, sources: Mapping[str, bytes]) -> Recipe:
    """`objects/*.o` and `programs/*` of the C files in `sources` (file name ▸ text; headers come with them).

    Every object is compiled and every program linked in a sandbox of its own; the same sources and compiler give
    the same bytes wherever that happens. The facts are those of `proof.prove`.
    """
    build = data.of(release)
    toolchain = release.toolchains[variant.toolchain]
    protector = release.stack_protectors[variant.stack_protector]
    cc = [toolchain.cc, *toolchain.flags]
    compile_line = [*cc, *build.compile.object_flags, *protector.flags]

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        root = kitchen.directory
        for directory in ("source", "objects", "programs"):
            (root / directory).mkdir()
        for name, text in sources.items():
            (root / "source" / name).write_bytes(text)
        names = probes.names(sources)
        kitchen.say(f"compiling {len(names)} programs with {variant.toolchain}")
        # One directory for all: relative paths keep the place out of what the compiler writes.
        sandbox = Sandbox(
            writable=(root,), cwd=root, environment={"SOURCE_DATE_EPOCH": str(build.epoch), "TMPDIR": "/tmp"}
        )

        def program(name: str) -> None:
            link = build.compile.init_flags if name == INIT else build.compile.program_flags
            compiled = f"objects/{name}.o"
            prefix = f"-ffile-prefix-map={root}=."
            step.run(kitchen, sandbox, [*compile_line, prefix, "-c", f"source/{name}.c", "-o", compiled], name)
            step.run(
                kitchen, sandbox, [*cc, *link, compiled, "-o", f"programs/{name}", *build.compile.libraries], name
            )

        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            for finished in [pool.submit(program, name) for name in names]:
                finished.result()
        made = [*sorted(root.glob("objects/*.o")), *sorted(root.glob("programs/*"))]
        return proof.prove(made, toolchain, protector, release.elf_machine)

    inputs = {
        "compile": compile_line,
        "link": build.compile.model_dump(),
        "host": apt.installed(toolchain.packages),
        "epoch": build.epoch,
        "sources": probes.digests(sources),
        "proof": [toolchain.comment, protector.model_dump(), release.elf_machine],
    }
    return Recipe(StepKind.WORLD, variant.compiled, inputs, make, minutes=10)
