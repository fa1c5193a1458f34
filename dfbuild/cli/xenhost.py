"""The Xen host that a command line names: `--xen-host`, else `DFBUILD_XEN_HOST`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator

from dfbuild.deadline import Deadline
from dfbuild.guest.xen.examine import examine
from dfbuild.guest.xen.reach import given
from dfbuild.model import Cell, GivenXenHost


def _named(arguments: argparse.Namespace) -> str:
    return str(arguments.xen_host or os.environ.get("DFBUILD_XEN_HOST", ""))


def where(arguments: argparse.Namespace) -> GivenXenHost | None:
    """That host; None where each guest gets one made for it. Raises `UsageError` for a word that names none."""
    return given(_named(arguments))


def require(host: GivenXenHost | None, cells: Iterable[Cell], deadline: Deadline) -> None:
    """Raise `UsageError` if `cells` have guests of Xen and `host` is given and can run none."""
    shapes = [cell.shape for cell in cells if cell.shape.on_xen]
    if host is not None and shapes:
        examine(host, shapes, deadline)


def options(arguments: argparse.Namespace) -> Iterator[str]:
    """The words that name the same host again."""
    if named := _named(arguments):
        yield from ("--xen-host", named)
