"""The source tree that a command line names: `--src`, `--rev`, `--patch`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from dfbuild.deadline import Deadline
from dfbuild.source import Tree, open_tree, patched
from dfbuild.workspace import Workspace


def tree(arguments: argparse.Namespace, workspace: Workspace, deadline: Deadline, *, release: str = "") -> Tree:
    """That tree, with its patches; of `release`, if the user says so. Raises `UsageError`."""
    return trees(arguments, workspace, deadline, release=release)[0]


def trees(
    arguments: argparse.Namespace, workspace: Workspace, deadline: Deadline, *, release: str = ""
) -> tuple[Tree, Tree]:
    """The tree with its patches, and without."""
    plain = open_tree(arguments.src, workspace, deadline, rev=arguments.rev, release=release)
    if not arguments.patch:
        return plain, plain
    return patched(plain, [Path(name) for name in arguments.patch], workspace, deadline), plain


def options(arguments: argparse.Namespace) -> Iterator[str]:
    """The words that name the same tree again, wherever they are typed."""
    source = arguments.src or os.environ.get("DFBUILD_SRC", "")
    if source:
        yield from ("--src", str(Path(source).expanduser().absolute()))
    if arguments.rev:
        yield from ("--rev", arguments.rev)
    for name in arguments.patch:
        yield from ("--patch", name)
    if arguments.keep_world:
        yield "--keep-world"
