"""TOML files that people write: read strictly, with every error at its file, line and dotted key.

In: a path or a text, and a pydantic model. Out: the model, or one `InvalidFile` that tells all problems in the
order of the file.
"""

from dfbuild.toml.document import Document, InvalidFile
from dfbuild.toml.lines import Place, find_lines

__all__ = ["Document", "InvalidFile", "Place", "find_lines"]
