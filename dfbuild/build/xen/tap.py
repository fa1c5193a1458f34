"""The program that joins a bridge of a Xen host that dfbuild did not make with a network on this machine.

In: `images/xen/given/tap.c`. Out: the recipe of `tap`, linked statically, since that host has libraries of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from dfbuild.build import step
from dfbuild.build.debian import apt
from dfbuild.build.recipe import Kitchen, Recipe
from dfbuild.image import templates
from dfbuild.model import StepKind
from dfbuild.sandbox import Sandbox

TAP = "tap"
_COMPILE = ("gcc-12", "-O2", "-static", "-s", "-o", TAP, "tap.c")
PACKAGES = ("gcc-12", "libc6-dev")


def recipe() -> Recipe:
    """The recipe of the program."""
    source = templates.images("xen") / "given" / "tap.c"

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        shutil.copyfile(source, kitchen.directory / "tap.c")
        step.run(kitchen, Sandbox(writable=(kitchen.directory,), cwd=kitchen.directory), _COMPILE, "tap")
        return {}

    inputs = {"source": source.read_text(encoding="utf-8"), "compile": _COMPILE, "host": apt.installed(PACKAGES)}
    return Recipe(StepKind.TOOLS, "Xen host tap", inputs, make)
