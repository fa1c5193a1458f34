"""DragonFly BSD on i386, built from its own source tree on a Linux host.

In: a source tree, the release's data (`data.py` reads its `[build]` table) and the host. Out: recipes
host kit ▸ binary utilities, compiler ▸ toolchain. Everything is built in a sandbox by the tree's own makefiles, at
fixed places (`layout.py`), from the parts that a recipe names and no other (`within.py`).
"""
