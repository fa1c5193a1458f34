"""The source tree that a command line names: `--src`, `--rev`, `--release`, `--patch`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from dfbuild.cli.progress import say
from dfbuild.deadline import Deadline
from dfbuild.errors import UsageError
from dfbuild.releases import Release
from dfbuild.source import Tree, named, open_tree, patched, require_apart
from dfbuild.workspace import Workspace


def tree(arguments: argparse.Namespace, workspace: Workspace, deadline: Deadline) -> Tree:
    """That tree, with its patches. Raises `UsageError`."""
    return trees(arguments, workspace, deadline)[0]


def trees(
    arguments: argparse.Namespace, workspace: Workspace, deadline: Deadline, wanted: Release | None = None
) -> tuple[Tree, Tree]:
    """The tree with its patches, and without; of the release `wanted`, if it can be."""
    plain = open_tree(
        arguments.src, workspace, deadline, rev=arguments.rev, release=arguments.release, wanted=wanted
    )
    if not arguments.patch:
        return plain, plain
    return patched(plain, [Path(name) for name in arguments.patch], workspace, deadline, say), plain


def require_work_apart(arguments: argparse.Namespace, workspace: Workspace) -> None:
    """Raise `UsageError` if the work directory lies or would lie in the tree named. A revision is copied first."""
    path = None if arguments.rev else named(arguments.src)
    if path is not None:
        require_apart(path, workspace)


def require_use(arguments: argparse.Namespace, release: Release) -> None:
    """Raise `UsageError` if a tree is named and `release` is made of none."""
    given = [name for name in ("src", "rev", "release", "patch", "keep_world") if getattr(arguments, name)]
    if given and release.source is None:
        words = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(
            f"{words}: {release.title} is not made of a source tree", hint="name a matrix file of another release"
        )


def options(arguments: argparse.Namespace) -> Iterator[str]:
    """The words that name the same tree again, wherever they are typed."""
    path = named(arguments.src)
    if path is not None:
        yield from ("--src", str(path))
    if arguments.rev:
        yield from ("--rev", arguments.rev)
    if arguments.release:
        yield from ("--release", arguments.release)
    for name in arguments.patch:
        yield from ("--patch", name)
    if arguments.keep_world:
        yield "--keep-world"
