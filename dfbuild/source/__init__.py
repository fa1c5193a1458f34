"""Source trees: which release they are, what is in them, and how they get to where they are built from."""

from dfbuild.source.patch import patched
from dfbuild.source.tree import (
    Tree,
    changed_meanwhile,
    detect,
    memory_beside,
    named,
    open_tree,
    require_apart,
)

__all__ = [
    "Tree",
    "changed_meanwhile",
    "detect",
    "memory_beside",
    "named",
    "open_tree",
    "patched",
    "require_apart",
]
