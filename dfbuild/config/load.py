"""TOML ▸ `Matrix`: structure by pydantic, then every name and expression against the release's data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dfbuild import filter, releases, toml
from dfbuild.config.file import AxesTable, MatrixFile
from dfbuild.config.matrix import Axes, Exclude, Limits, Matrix
from dfbuild.config.shapes import Shapes, objections
from dfbuild.errors import UsageError, nearest
from dfbuild.model import Shape
from dfbuild.releases import Release
from dfbuild.toml import Document, InvalidFile, Place
from dfbuild.workspace import expanded

_Names = tuple[str, ...]
_KIND = toml.Kind("matrix", lambda name, directory: directory / expanded(name))
_AXES = ("toolchain", "stack_protector", "kernel", "shape", "suites")


def load(path: Path) -> Matrix:
    """The matrix in the TOML file at `path`. Raises `UsageError`, mostly an `InvalidFile` with all problems."""
    document = toml.read(path, _KIND)
    try:
        file = document.validate(MatrixFile)
    except InvalidFile as error:
        raise InvalidFile([*error.problems, *_of_release(document)]) from error
    return _Check(document, file, _release(document, file.release)).matrix()


def _of_release(document: Document) -> tuple[UsageError, ...]:
    """What is wrong with the release of a file that is wrong anyway, as far as it names one."""
    name = document.data.get("release")
    try:
        if isinstance(name, str) and name:
            _release(document, name)
    except InvalidFile as error:
        return error.problems
    return ()


def _release(document: Document, name: str) -> Release:
    try:
        return releases.load(name, document.source(("release",))[0].file.parent)
    except InvalidFile:
        raise
    except UsageError as error:
        message = error.message if error.file is None else f"{error.file} {error.message}"
        raise InvalidFile([document.problem(("release",), message, hint=error.hint)]) from error


class _Check:
    """Builds the matrix and collects what is wrong on the way."""

    def __init__(self, document: Document, file: MatrixFile, release: Release) -> None:
        self._document, self._file, self._release = document, file, release
        self._shapes = Shapes(release.shape, file.shape, file.shapes)
        self._composed: dict[str, Shape] = {}
        self._problems: list[UsageError] = []
        self._known = {
            "toolchain": tuple(release.toolchains),
            "stack_protector": tuple(release.stack_protectors),
            "kernel": tuple(release.kernels),
            "shape": self._shapes.names(),
            "suites": release.suites,
        }

    def matrix(self) -> Matrix:
        """Raises `InvalidFile`."""
        file = self._file
        for table, place in self._tables():
            self._names(table, place)
        names = self._resolve(file.axes, ("axes",), {"suites": self._release.suites})
        axes = self._axes(names)
        include = tuple(self._axes(self._resolve(t, ("include", i), names)) for i, t in enumerate(file.include))
        attributes = self._attributes()
        self._excludes(attributes)
        self._hardware()
        if file.via == "ssh" and self._release.shell.ssh is None:
            self._problem(("via",), f"{self._release.name} guests have no SSH", hint='via = "serial"')
        if self._problems:
            raise InvalidFile(self._problems)
        return Matrix(
            name=self._document.file.stem,
            file=self._document.file,
            release=self._release,
            axes=axes,
            include=include,
            exclude=tuple(Exclude(entry.when, entry.reason) for entry in file.exclude),
            limits=Limits(**file.limits.model_dump()),
            via=file.via or ("serial" if self._release.shell.ssh is None else "ssh"),
            baseline=file.baseline,
            attributes=attributes,
        )

    def _problem(self, place: Place, message: str, *, hint: str = "") -> None:
        self._problems.append(self._document.problem(place, message, hint=hint))

    def _tables(self) -> list[tuple[AxesTable, Place]]:
        includes = [(table, ("include", index)) for index, table in enumerate(self._file.include)]
        return [(self._file.axes, ("axes",)), (self._file.defaults, ("defaults",)), *includes]

    def _names(self, table: AxesTable, place: Place) -> None:
        """Every name on every axis is known, or known to be impossible, and stands there once."""
        if place[0] == "include" and not table.model_fields_set:
            self._problem(place, "names no axis", hint='for example shape = "smp4"')
        for axis in _AXES:
            names: _Names = getattr(table, axis) or ()
            if not names and axis in table.model_fields_set and axis != "suites":
                known = ", ".join(self._known[axis])
                self._problem((*place, axis), "expected at least one name, found none", hint=f"known: {known}")
            for index, name in enumerate(names):
                here = (*place, axis, index)
                if name in names[:index]:
                    self._problem(here, f"{name!r} stands here twice", hint="leave one of them out")
                elif name not in self._known[axis] and not self._refused(axis, name):
                    what = {"suites": "suite"}.get(axis, axis.replace("_", " "))
                    where = "" if axis == "shape" else f" of {self._release.name}"
                    self._problem(
                        here, f"no {what}{where} is called {name!r}", hint=nearest(name, self._known[axis])
                    )

    def _refused(self, axis: str, name: str) -> bool:
        """Whether the release says itself that this name is impossible: then its cells are refusals, not errors."""
        blank: dict[str, str | int] = {n: 0 if a.numeric else "" for n, a in filter.CELL.items()}
        if axis not in blank or axis == "shape":
            return False
        rules = [filter.compile(rule.when) for rule in self._release.refuse]
        return any(rule({**blank, axis: name}) and not rule(blank) for rule in rules)

    def _resolve(self, table: AxesTable, place: Place, otherwise: Mapping[str, _Names]) -> dict[str, _Names]:
        """The names on every axis: from `table`, else from `[defaults]`, else `otherwise`."""
        found = {}
        for axis in _AXES:
            layers = (getattr(table, axis), getattr(self._file.defaults, axis), otherwise.get(axis))
            names: _Names | None = next((layer for layer in layers if layer is not None), None)
            if names is None:
                self._problem((*place, axis), "this axis is missing", hint=f"known: {', '.join(self._known[axis])}")
            found[axis] = names or ()
        return found

    def _axes(self, names: Mapping[str, _Names]) -> Axes:
        shapes = tuple(self._shape(name) for name in names["shape"] if name in self._known["shape"])
        return Axes(names["toolchain"], names["stack_protector"], names["kernel"], shapes, names["suites"])

    def _shape(self, name: str) -> Shape:
        """The shape called `name`: one object for all cells that have it."""
        if name not in self._composed:
            self._composed[name] = self._shapes.compose(name)
        return self._composed[name]

    def _attributes(self) -> dict[str, filter.Attribute]:
        """Those of cells, with what can be on an axis: names of the release and, refused or not, of the file."""
        names = dict(filter.CELL)
        for axis in ("toolchain", "stack_protector", "kernel", "shape"):
            used = [name for table, _ in self._tables() for name in getattr(table, axis) or ()]
            names[axis] = filter.Attribute(values=tuple(dict.fromkeys([*self._known[axis], *used])))
        return names

    def _excludes(self, names: Mapping[str, filter.Attribute]) -> None:
        """What is excluded can be there."""
        for index, entry in enumerate(self._file.exclude):
            try:
                filter.compile(entry.when, names)
            except UsageError as error:
                self._problem(("exclude", index, "when"), error.message, hint=error.hint)

    def _hardware(self) -> None:
        """No shape that is used or defined here is impossible, and each that is used fits into the limits."""
        memory = self._file.limits.memory
        large = [shape for shape in self._composed.values() if memory is not None and shape.memory > memory]
        if large:
            names, most = ", ".join(shape.name for shape in large), max(shape.memory for shape in large)
            message = f"less than one guest alone has: shape {names}, {most} MiB"
            self._problem(("limits", "memory"), message, hint=f"memory = {most}, or more")
        for name in self._file.shapes:
            self._shape(name)
        for shape in self._composed.values():
            for objection in objections(shape):
                place = self._at_fault(shape.name, objection.field)
                self._problem(place, f"shape {shape.name!r}: {objection.message}", hint=objection.hint)

    def _at_fault(self, shape: str, field: str) -> Place:
        """Where the file says `field` of `shape`, or else where it first speaks of the shape."""
        own = self._file.shapes.get(shape)
        if own is not None and field in own.given():
            return ("shapes", shape, field)
        if field in self._file.shape.given():
            return ("shape", field)
        if own is not None:
            return ("shapes", shape)
        for table, place in self._tables():
            if table.shape and shape in table.shape:
                return (*place, "shape", table.shape.index(shape))
        return ("axes", "shape")
