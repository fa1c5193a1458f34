"""`dfbuild schema`: the JSON Schemas of what users write and what dfbuild writes."""

from __future__ import annotations

import argparse
import json
import sys


def run(arguments: argparse.Namespace) -> int:
    """Print one schema."""
    match arguments.what:
        case "matrix":
            from dfbuild.config import schema
        case "release":
            from dfbuild.releases import json_schema as schema
        case _:
            from dfbuild.report.json import schema
    json.dump(schema(), sys.stdout, indent=2)
    print()
    return 0
