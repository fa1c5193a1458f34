"""`dfbuild completions`: completion scripts, generated from the parser."""

from __future__ import annotations

import argparse

from dfbuild.cli.parser import build


def run(arguments: argparse.Namespace) -> int:
    """Print the script for one shell."""
    import shtab

    print(shtab.complete(build(), arguments.shell))
    return 0
