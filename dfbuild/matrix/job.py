"""What every step of a run needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass

from dfbuild.build.store import ArtefactStore
from dfbuild.build.targets import Target
from dfbuild.deadline import Cancel
from dfbuild.guest.accel import Accel
from dfbuild.matrix.events import Listener
from dfbuild.model import GivenXenHost
from dfbuild.releases import Release
from dfbuild.results.store import Store
from dfbuild.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a matrix. `check` is a glob over `suite/name`, empty for all; `via` is how suites get in."""

    run: str
    release: Release
    target: Target
    workspace: Workspace
    artefacts: ArtefactStore
    results: Store
    accel: Accel
    cancel: Cancel
    listener: Listener
    via: str
    check: str = ""
    xen_host: GivenXenHost | None = None
    """Where guests of Xen run; None for hosts that are made for them."""
