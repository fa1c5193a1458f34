"""Matrix files: what to build, on which hardware to boot it, and what to run there.

In: a TOML file. Out: a frozen `Matrix`, checked against its release's data, or one error that tells every problem
with file, line, key and a hint. Also the JSON Schema of such files, for editors.
"""

from dfbuild.config.file import schema
from dfbuild.config.load import load
from dfbuild.config.matrix import Axes, Exclude, Limits, Matrix

__all__ = ["Axes", "Exclude", "Limits", "Matrix", "load", "schema"]
