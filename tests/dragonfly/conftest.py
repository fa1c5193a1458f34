"""The source tree that these tests build from."""

from __future__ import annotations

import os

import pytest

from dfbuild import releases
from dfbuild.deadline import Deadline
from dfbuild.releases import Release
from dfbuild.source import Tree, open_tree
from dfbuild.workspace import Workspace


@pytest.fixture(scope="session")
def tree(workspace: Workspace) -> Tree:
    """The tree in `DFBUILD_SRC`, or of revision `DFBUILD_REV` in the repository there."""
    if not os.environ.get("DFBUILD_SRC"):
        pytest.skip("DFBUILD_SRC names no DragonFly source tree")
    return open_tree(None, workspace, Deadline.after(300), rev=os.environ.get("DFBUILD_REV", ""))


@pytest.fixture(scope="session")
def release(tree: Tree) -> Release:
    """The release that the tree is of."""
    return releases.load(tree.release)
