"""The matrix as the rest of dfbuild sees it: names resolved, shapes complete, nothing left to check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dfbuild import filter
from dfbuild.model import Shape
from dfbuild.releases import Release


@dataclass(frozen=True, slots=True)
class Axes:
    """A block of cells: the product of its axes, each of which runs `suites`. No value occurs twice."""

    toolchains: tuple[str, ...]
    stack_protectors: tuple[str, ...]
    kernels: tuple[str, ...]
    shapes: tuple[Shape, ...]
    suites: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exclude:
    """Cells that the matrix leaves out. `when` is a filter expression that compiles."""

    when: str
    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What may run at a time; None leaves it to the host. `memory` is in MiB, for all guests together."""

    memory: int | None = None
    boots: int | None = None
    guests: int | None = None


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix file. Its cells are those of `axes` without `exclude`, then those of `include`."""

    name: str
    file: Path
    release: Release
    axes: Axes
    include: tuple[Axes, ...] = ()
    exclude: tuple[Exclude, ...] = ()
    limits: Limits = Limits()
    via: str = "ssh"
    """How the suites reach the guest: `ssh` or `serial`."""
    baseline: str | None = None
    """The run to compare with."""
    attributes: Mapping[str, filter.Attribute] = field(default_factory=lambda: filter.CELL)
    """Those of cells, each axis with all names that the release, the shapes and the file have for it."""
