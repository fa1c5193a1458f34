"""Boots that a build step needs to see: a guest is started, followed to its last stage, and ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dfbuild.build.recipe import Kitchen
from dfbuild.matrix.stepguest import step_guest
from dfbuild.model import Cell, Media, Variant
from dfbuild.releases import Release


def follow(
    release: Release, media: Media, kitchen: Kitchen, what: str, kept: Path | None = None
) -> Mapping[str, float]:
    """Implements `build.bench.Boot`. The console is in the directory `what` beside the step's log."""
    cell = Cell(Variant(release.name, "none", "off", "own"), replace(release.own_shape, name=what))
    with step_guest(
        release,
        cell,
        media,
        kitchen,
        kitchen.log.with_name(what),
        kitchen.deadline,
        ssh=False,
        kept=kept,
        reached=lambda at: kitchen.say(f"{what}: {at.stage}"),
    ) as (_, session):
        return {reached.stage: round(reached.seconds, 1) for reached in session.stages}
