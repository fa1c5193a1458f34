"""What a matrix file may say, key by key, and its JSON Schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from dfbuild.releases.schema import Name, ShapeFields, Strict
from dfbuild.toml import json_schema


def _listed(value: object) -> object:
    """One name stands for a list of one."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


_NAME = {"type": "string"}
Names = Annotated[
    tuple[Name, ...],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [_NAME, {"type": "array", "items": _NAME, "uniqueItems": True}]}),
]
"""A name or a list of names."""
Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(ge=1)]


class AxesTable(Strict):
    """Names on each axis. An axis that is left out has the value of `[defaults]`."""

    toolchain: Names | None = None
    """Compilers, by the names of the release's data."""
    stack_protector: Names | None = None
    """Stack protector settings, by the names of the release's data: mostly "on" and "off"."""
    kernel: Names | None = None
    """Kernel configurations, by the names of the release's data."""
    shape: Names | None = None
    """Virtual hardware: one of [shapes], or a common one: up, smp2, smp4, ht2, nx-off, uefi …"""
    suites: Names | None = None
    """The suites that every cell runs, in this order; an empty list only boots. Left out: all of the release."""


class IncludeTable(AxesTable):
    """More cells: the product of the axes named. One that is left out has the value of `[defaults]`, or else all
    of `[axes]`. A cell that is there already gets this entry's suites."""


class ExcludeTable(Strict):
    """Cells of `[axes]` that are left out."""

    when: Text
    """Filter expression: toolchain=gcc* and shape!=up"""
    reason: Text
    """Why, for whoever reads the list of cells."""


class LimitsTable(Strict):
    """What may run at a time. What is left out is decided by the host."""

    memory: Positive | None = None
    """MiB for all guests together."""
    boots: Positive | None = None
    """Guests that may be booting at a time: emulated ones that starve can hang while they calibrate timers."""
    guests: Positive | None = None
    """Guests that may be up at a time."""


class Like(Strict):
    """Another matrix, which this one is like but for what its own file says. See `toml.inherit`."""

    matrix: Text
    """The path of its file, from this file's directory."""
    without: tuple[Text, ...] = ()
    """What it says that is not so here: dotted keys. An entry in a list is named by its first value, or itself."""


class MatrixFile(Strict):
    """A matrix: which variants to build, on which shapes to boot them, which suites to run there."""

    like: Like | None = None
    """The matrix that it is like, but for what follows."""
    release: Text
    """A release that dfbuild knows, or the path of a release's TOML, from this file's directory: ./mine.toml"""
    axes: AxesTable
    """What the cells are the product of."""
    defaults: AxesTable = AxesTable()
    """Values for axes that [axes] or an [[include]] leave out."""
    include: tuple[IncludeTable, ...] = ()
    """More cells, or other suites for cells that are there."""
    exclude: tuple[ExcludeTable, ...] = ()
    """Cells that are left out."""
    shape: ShapeFields = ShapeFields()
    """Hardware of all shapes of this file, where a shape itself says nothing."""
    shapes: dict[Name, ShapeFields] = Field(default_factory=dict)
    """Shapes of this file by name. The name of a common shape changes only what is said here."""
    limits: LimitsTable = LimitsTable()
    """What may run at a time."""
    via: Literal["serial", "ssh"] | None = None
    """How the suites reach the guest. Left out: SSH, where the release has it."""
    baseline: Text | None = None
    """The run that reports compare with."""


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of matrix files."""
    return json_schema(MatrixFile)
