"""Shapes by name, composed from layers, and why hardware like that cannot be."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from dfbuild import filter
from dfbuild.errors import nearest
from dfbuild.model import Cell, Shape, Variant
from dfbuild.releases.schema import ShapeFields, Strict
from dfbuild.toml import Document

MOST_CPUS = 64


class Impossible(Strict):
    """Shapes that the hypervisor cannot give."""

    when: str
    """Filter expression on the shape's attributes."""
    reason: str
    hint: str


class Hardware(Strict):
    """The file `hardware.toml`."""

    shapes: dict[str, ShapeFields]
    models: dict[str, tuple[str, ...]]
    """Field of a shape ▸ globs of the names that it may have."""
    impossible: tuple[Impossible, ...]


@functools.cache
def hardware() -> Hardware:
    """The common shapes, the models there are, and what no shape can be."""
    file = resources.files(__package__).joinpath("hardware.toml")
    return Document.parse(file.read_text(encoding="utf-8"), Path("hardware.toml")).validate(Hardware)


@dataclass(frozen=True, slots=True)
class Shapes:
    """All shapes that a matrix can name. Each later layer wins: model, release, `common`, library, `own`."""

    release: ShapeFields
    common: ShapeFields
    own: Mapping[str, ShapeFields]

    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.own, *hardware().shapes]))

    def compose(self, name: str) -> Shape:
        """The shape called `name`, complete; raises KeyError."""
        library = hardware().shapes
        if name not in self.own and name not in library:
            raise KeyError(name)
        layers = [self.release, self.common, library.get(name), self.own.get(name)]
        fields: dict[str, object] = {"hypervisor": Shape(name).hypervisor}
        for layer in layers:
            given = layer.given() if layer is not None else {}
            if given.get("hypervisor", fields["hypervisor"]) != fields["hypervisor"]:
                fields.pop("cpu", None)  # the models of one hypervisor are not another's
            fields |= given
        return Shape(name, **fields)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a shape cannot be. `field` is the one at fault, or empty where it is how they go together."""

    field: str
    message: str
    hint: str


def objections(shape: Shape) -> list[Objection]:
    """Why `shape` cannot be; empty if it can."""
    found = []
    if shape.cpus > MOST_CPUS:
        size = f"{shape.sockets} sockets x {shape.cores} cores x {shape.threads} threads"
        found.append(Objection("", f"{size} are {shape.cpus} CPUs", f"at most {MOST_CPUS} together"))
    attributes = Cell(Variant("", "", "", ""), shape).attributes()
    for field, globs in hardware().models.items():
        name = str(attributes[field])
        if not any(fnmatch.fnmatchcase(name, glob) for glob in globs):
            found.append(Objection(field, f"no {field} is called {name!r}", nearest(name, globs)))
    for rule in hardware().impossible:
        if filter.compile(rule.when)(attributes):
            found.append(Objection("", rule.reason, rule.hint))
    return found
