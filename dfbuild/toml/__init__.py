"""TOML files that people write: read strictly, with every error at its file, line and dotted key.

In: a path or a text, and a pydantic model. Out: the model, or one `InvalidFile` that tells all problems in the
order of the file. Also the model's JSON Schema.
"""

from dfbuild.toml.document import Document, InvalidFile
from dfbuild.toml.inherit import Kind, inherit, read
from dfbuild.toml.lines import Place, find_lines
from dfbuild.toml.schema import json_schema

__all__ = ["Document", "InvalidFile", "Kind", "Place", "find_lines", "inherit", "json_schema", "read"]
