"""Debian packages as material: which versions there are, and what is in them.

In: names of packages. Out: recipes of fetched packages, and of the Linux kernel that is in some.
"""
