"""`dfbuild clean`: room in the work directory."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from dfbuild.build.clean import Cleaning, Item, clean
from dfbuild.errors import UsageError
from dfbuild.report.text import plural, safe_line
from dfbuild.workspace import Workspace

_DAYS = 14.0
_MIB, _GIB = 1 << 20, 1 << 30


def run(arguments: argparse.Namespace) -> int:
    """Remove what was not used lately, or say what would go."""
    unused: float | None = arguments.unused
    if unused is None and arguments.below is None:
        unused = _DAYS
    for option, value in (("--unused", unused), ("--below", arguments.below)):
        if value is not None and not 0 <= value < math.inf:
            raise UsageError(f"{option} {value:g} is no amount", hint=f"{option} 0 is for all of it")
    below = None if arguments.below is None else int(arguments.below * _GIB)
    done = clean(Workspace.existing(arguments.work), unused, below, really=not arguments.dry_run)
    if arguments.json:
        json.dump(_report(done), sys.stdout, indent=2)
        print()
    else:
        _show(done, "would go" if arguments.dry_run else "gone")
    return 0


def _show(done: Cleaning, how: str) -> None:
    for item in done.gone:
        print(f"{_date(item)}  {_amount(item.bytes):>10}  {item.kind:<9}  {safe_line(item.name)}")
    print(f"{how}: {_sum(done.gone)}; left: {_sum(done.left)}, and the runs with their results")


def _report(done: Cleaning) -> dict[str, object]:
    gone = [
        {
            "kind": item.kind,
            "name": item.name,
            "paths": [str(place) for place in item.places],
            "bytes": item.bytes,
            "used": datetime.fromtimestamp(item.used, UTC).isoformat(timespec="seconds"),
        }
        for item in done.gone
    ]
    left = {"count": len(done.left), "bytes": sum(item.bytes for item in done.left)}
    return {"gone": gone, "bytes": sum(item.bytes for item in done.gone), "left": left}


def _date(item: Item) -> str:
    return datetime.fromtimestamp(item.used).astimezone().strftime("%Y-%m-%d %H:%M")


def _sum(items: Sequence[Item]) -> str:
    return f"{plural(len(items), 'thing')} of {_amount(sum(item.bytes for item in items))}"


def _amount(bytes: int) -> str:
    return f"{bytes / _GIB:.1f} GiB" if bytes >= _GIB else f"{bytes / _MIB:.1f} MiB"
