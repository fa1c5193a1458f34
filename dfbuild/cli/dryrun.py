"""`dfbuild matrix --dry-run`: cells, steps and command lines, with nothing built or booted."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dfbuild.build.recipe import Artefact
from dfbuild.build.store import ArtefactStore
from dfbuild.cli.choice import Chosen
from dfbuild.deadline import Deadline
from dfbuild.guest import create
from dfbuild.guest.accel import Accel, probe
from dfbuild.guest.protocol import GuestSpec
from dfbuild.matrix import xen
from dfbuild.matrix.run import label
from dfbuild.model import Cell, Refusal
from dfbuild.report.text import plural, safe_line

_PROBE_SECONDS = 60.0
_REASON = 2000
"""Characters of a reason that are shown."""


def dry_run(chosen: Chosen, *, as_json: bool) -> int:
    """List cells, steps and the exact command lines."""
    store = ArtefactStore(chosen.workspace)
    release, planned = chosen.matrix.release, chosen.plan
    accel = probe(chosen.workspace, Deadline.after(_PROBE_SECONDS))
    steps = [
        {"id": recipe.id, "step": label(recipe), "key": recipe.key, "cached": store.find(recipe) is not None}
        for recipe in planned.recipes.values()
    ]
    cells = [
        {"id": cell.id, "suites": list(cell.suites), "command": _command(chosen, cell, store, accel)}
        for cell in planned.cells
    ]
    refusals, excluded = _reasons(planned.refusals), _reasons(chosen.excluded)
    if as_json:
        report: dict[str, Any] = {
            "release": release.name, "steps": steps, "cells": cells, "refused": refusals, "excluded": excluded,
        }  # fmt: skip
        json.dump(report, sys.stdout, indent=2)
        print()
        return 0
    print(f"{plural(len(steps), 'build step')}:")
    for step in steps:
        print(f"  {'cached' if step['cached'] else 'make  '}  {step['step']}  {step['key']}")
    print(f"\n{plural(len(cells), 'cell')}:")
    for described in cells:
        print(f"  {safe_line(str(described['id']))}  ({', '.join(described['suites'])})")
        print(f"    {shlex.join(described['command'])}")
    if refusals:
        print(f"\n{len(refusals)} refused:")
        for refusal in refusals:
            print(f"  {safe_line(refusal['id'])}: {safe_line(refusal['reason'], _REASON)}")
    if excluded:
        # They may be most of the product: what tells is why.
        print(f"\n{len(excluded)} left out by {chosen.matrix.file} (--json lists them):")
        for reason, count in Counter(refusal["reason"] for refusal in excluded).items():
            print(f"  {count}: {safe_line(reason, _REASON)}")
    return 0


def _reasons(refusals: Iterable[Refusal]) -> list[dict[str, str]]:
    return [{"id": refusal.cell.id, "reason": refusal.reason} for refusal in refusals]


def _command(chosen: Chosen, cell: Cell, store: ArtefactStore, accel: Accel) -> list[str]:
    """The hypervisor's command line for `cell`, whether its image is made already or not."""
    recipe = chosen.plan.images[cell.id]
    image = Artefact(recipe.kind, recipe.name, recipe.key, store.path(recipe))
    host = chosen.plan.hosts.get(cell.id)
    media = xen.media(chosen.target, chosen.matrix.release, cell, image, chosen.workspace, host, chosen.xen_host)
    # The directory is made anew for every guest; this stands for it.
    return create(GuestSpec(cell.id, cell.shape, media, Path("/tmp/dfbuild-g")), accel).command()
