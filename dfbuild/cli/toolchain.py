"""`dfbuild toolchain`: bootstrap a compiler of a source tree, and say where it is."""

from __future__ import annotations

import argparse
import json
import sys
import time

from dfbuild import releases
from dfbuild.build.dragonfly import toolchain
from dfbuild.build.store import BUILD_SECONDS, ArtefactStore, build_all
from dfbuild.cli import source
from dfbuild.cli.progress import say
from dfbuild.deadline import Deadline
from dfbuild.workspace import Workspace


def run(arguments: argparse.Namespace) -> int:
    """Make the toolchain unless it is made already; its prefix goes to standard output."""
    workspace = Workspace.locate(arguments.work)
    deadline = Deadline.after(BUILD_SECONDS, what=f"toolchain {arguments.name}")
    tree = source.tree(arguments, workspace, deadline)
    started = time.monotonic()
    recipe = toolchain.recipe(releases.load(tree.release), tree, arguments.name)
    made = build_all(recipe, ArtefactStore(workspace), deadline, say)
    if arguments.json:
        report = {
            "name": made.name,
            "release": tree.release,
            "prefix": str(made.path),
            "key": made.key,
            "seconds": round(time.monotonic() - started, 3),
            "facts": made.facts,
        }
        json.dump(report, sys.stdout, indent=2)
        print()
    else:
        print(made.path)
    return 0
