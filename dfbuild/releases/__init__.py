"""The knowledge base: one TOML a release line says what it carries, how it boots, and what its checks show.

In: a release's name. Out: a validated, frozen `Release`. Nothing here acts; code elsewhere asks the data
instead of asking which release it is.
"""

from dfbuild.releases.load import available, build_table, json_schema, load
from dfbuild.releases.schema import Release

__all__ = ["Release", "available", "build_table", "json_schema", "load"]
