"""What `make buildworld` costs in an emulated guest: the tree's own way, beside the cross build of the same world.

python benchmarks/bench_native.py TREE [--work DIR] [--toolchain gcc2] [--stack-protector on]

Builds what is missing of the guest into the work directory first. Takes hours; progress goes to standard error.
"""

from __future__ import annotations

import argparse
import sys

from dfbuild import releases
from dfbuild.build.dragonfly import Target
from dfbuild.build.store import ArtefactStore, build_all
from dfbuild.deadline import Deadline
from dfbuild.matrix.machine import machine
from dfbuild.model import Variant
from dfbuild.source import open_tree
from dfbuild.workspace import Workspace

_SECONDS = 36 * 3600.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tree")
    parser.add_argument("--work")
    parser.add_argument("--toolchain", default="gcc2")
    parser.add_argument("--stack-protector", default="on")
    options = parser.parse_args()
    workspace = Workspace.locate(options.work)
    deadline = Deadline.after(_SECONDS)
    tree = open_tree(options.tree, workspace, deadline)
    release = releases.load(tree.release)
    variant = Variant(release.name, options.toolchain, options.stack_protector, "up")
    recipe = Target(tree, tree).buildworld(release, variant, workspace, machine)
    found = build_all(recipe, ArtefactStore(workspace), deadline, _say)
    print(f"make buildworld in the guest: {found.facts['seconds'] / 60:.0f} min")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
