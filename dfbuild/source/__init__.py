"""Source trees: which release they are, what is in them, and how they get to where they are built from."""

from dfbuild.source.patch import patched
from dfbuild.source.tree import Tree, detect, open_tree

__all__ = ["Tree", "detect", "open_tree", "patched"]
