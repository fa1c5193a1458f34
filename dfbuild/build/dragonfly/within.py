"""The sandbox that parts of a tree are built in, and the tree's own make(1) in it."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfbuild.build import step
from dfbuild.build.dragonfly import edits
from dfbuild.build.dragonfly.data import Build, Edit
from dfbuild.build.dragonfly.layout import OBJ, SRC
from dfbuild.build.recipe import Kitchen, Make
from dfbuild.errors import BuildFailed
from dfbuild.sandbox import Mount, Sandbox
from dfbuild.source import Tree

_BANNER = re.compile(rb"(?:===>|>>>) *(\S.*)")
_QUIET = frozenset({"obj", "depend", "install"})
"""Targets that go through the same directories as `all`, only faster."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of a tree, with the release's edits to them. What is not named is not there when it is built."""

    tree: Tree
    build: Build
    names: tuple[str, ...]

    @property
    def edits(self) -> tuple[Edit, ...]:
        return edits.within(self.build.edits, self.names)

    def inputs(self) -> dict[str, Any]:
        """What the content key of a recipe that builds them has to hold."""
        return {
            "tree": self.tree.hash_of(self.names),
            "edits": edits.words(self.edits),
            "epoch": self.build.epoch,
        }

    def steady(self, make: Make) -> Make:
        """As `steady`."""
        return steady(self.tree, self.names, make)

    def mounts(self, copies: Path) -> tuple[Mount, ...]:
        """The parts, read-only, in their places below `SRC`; edited files are copied to `copies`."""
        outer = outermost(self.names)
        return (
            Mount(SRC),
            *(Mount(SRC / name, self.tree.path / name) for name in outer),
            *edits.overlays(self.edits, self.tree.path, copies),
        )


def steady(tree: Tree, names: Sequence[str], make: Make) -> Make:
    """`make`, for as long as `names` of `tree` are what they are now, when the content key is made: see
    `Tree.unchanged`."""
    was = tree.hash_of(names)

    def watched(kitchen: Kitchen) -> Mapping[str, Any]:
        with tree.unchanged(names, was):
            return make(kitchen)

    return watched


def outermost(names: Iterable[str]) -> list[str]:
    """`names` without those that lie below another one."""
    found: list[str] = []
    for name in sorted(set(names), key=lambda name: name.split("/")):
        if not (found and name.startswith(f"{found[-1]}/")):
            found.append(name)
    return found


def sandbox(
    kitchen: Kitchen,
    parts: Parts,
    kit: Mount,
    *,
    tools: Iterable[Mount] = (),
    ccver: str = "",
    objects: Path | None = None,
) -> Sandbox:
    """A sandbox with `parts` at `SRC`, the host kit and `tools` in their places, and an object tree.

    The object tree is `objects`, or `obj` in the kitchen's directory; edited files lie in `edited` there. Whoever
    calls removes what is not to stay.
    """
    objects = objects or kitchen.directory / "obj"
    objects.mkdir(exist_ok=True)
    return Sandbox(
        mounts=(
            *parts.mounts(kitchen.directory / "edited"),
            Mount(OBJ, objects, writable=True),
            kit,
            *tools,
        ),
        environment=parts.build.environment(ccver),
    )


def make(
    kitchen: Kitchen,
    sandbox: Sandbox,
    directory: str,
    targets: Sequence[str],
    *,
    flags: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    jobs: int = 1,
    component: str = "",
    prefix: str | None = None,
) -> bool:
    """Run the tree's make(1) in `directory` of the tree for each of `targets` in turn; `all` with `jobs` at a time.

    `variables` go into its environment. What fails with several jobs is tried once more with one: these makefiles
    name their dependencies as well as they had to. Returns whether that was needed; progress says so. The log is
    that of `component`, else of the directory; banners call the directory `prefix`, if that is given.
    """
    inside = dataclasses.replace(
        sandbox, cwd=SRC / directory, environment={**sandbox.environment, **(variables or {})}
    )
    argv = ["make", "-m", str(SRC / "share/mk"), *flags, f"DIRPRFX={f'{directory}/' if prefix is None else prefix}"]
    retried = False
    for target in targets:
        banner = None if target in _QUIET else _BANNER
        several = ["-j", str(jobs)] if jobs > 1 and target == "all" else []
        try:
            step.run(kitchen, inside, [*argv, *several, target], component or directory, banner)
        except BuildFailed:
            if not several:
                raise
            kitchen.say(f"{component or directory}: failed with {jobs} jobs at a time, once more with one")
            retried = True
            step.run(kitchen, inside, [*argv, target], component or directory, banner)
    return retried


def jobs() -> int:
    """How many jobs at a time: one for every CPU that we may use."""
    return len(os.sched_getaffinity(0))
