"""TOML ▸ `Matrix`: structure by pydantic, then every name and expression against the release's data."""

from __future__ import annotations

from pathlib import Path

from dfbuild import filter, releases
from dfbuild.config.file import AxesTable, MatrixFile
from dfbuild.config.matrix import Axes, Exclude, Limits, Matrix
from dfbuild.config.shapes import MOST_CPUS, Shapes
from dfbuild.errors import UsageError
from dfbuild.model import Shape
from dfbuild.releases import Release
from dfbuild.toml import Document, InvalidFile, Place
from dfbuild.toml.document import nearest

_AXES = ("toolchain", "stack_protector", "kernel", "shape", "suites")


def load(path: Path) -> Matrix:
    """The matrix in the TOML file at `path`. Raises `UsageError`, mostly an `InvalidFile` with all problems."""
    document = Document.read(path)
    file = document.validate(MatrixFile)
    return _Check(document, file, _release(document, file.release)).matrix()


def _release(document: Document, name: str) -> Release:
    try:
        return releases.load(name, document.file.parent)
    except InvalidFile:
        raise
    except UsageError as error:
        raise InvalidFile([document.problem(("release",), error.message, hint=error.hint)]) from error


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
        axes = self._block(file.axes, file.defaults, ("axes",))
        include = tuple(self._block(t, file.defaults, ("include", i), axes) for i, t in enumerate(file.include))
        exclude = tuple(Exclude(e.when, e.reason) for e in file.exclude)
        self._excludes()
        for shape in self._composed.values():
            self._plausible(shape)
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
            exclude=exclude,
            limits=Limits(**file.limits.model_dump()),
            via=file.via or ("serial" if self._release.shell.ssh is None else "ssh"),
            baseline=file.baseline,
        )

    def _problem(self, place: Place, message: str, *, hint: str = "") -> None:
        self._problems.append(self._document.problem(place, message, hint=hint))

    def _tables(self) -> list[tuple[AxesTable, Place]]:
        includes = [(table, ("include", index)) for index, table in enumerate(self._file.include)]
        return [(self._file.axes, ("axes",)), (self._file.defaults, ("defaults",)), *includes]

    def _names(self, table: AxesTable, place: Place) -> None:
        """Every name on every axis is known, or known to be impossible, and stands there once."""
        for axis in _AXES:
            names: tuple[str, ...] = getattr(table, axis) or ()
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
        return any(filter.compile(rule.when)({**blank, axis: name}) for rule in self._release.refuse)

    def _block(self, table: AxesTable, defaults: AxesTable, place: Place, otherwise: Axes | None = None) -> Axes:
        def names(axis: str) -> tuple[str, ...]:
            found: tuple[str, ...] | None = getattr(table, axis)
            found = getattr(defaults, axis) if found is None else found
            if found is not None:
                if not found and axis != "suites":
                    self._problem(
                        (*place, axis), "this axis is empty", hint=f"known: {', '.join(self._known[axis])}"
                    )
                return found
            if axis == "suites":
                return otherwise.suites if otherwise else self._release.suites
            if otherwise is not None:
                return {
                    "toolchain": otherwise.toolchains,
                    "stack_protector": otherwise.stack_protectors,
                    "kernel": otherwise.kernels,
                    "shape": tuple(shape.name for shape in otherwise.shapes),
                }[axis]
            self._problem((*place, axis), "this axis is missing", hint=f"known: {', '.join(self._known[axis])}")
            return ()

        shapes = tuple(self._shape(name) for name in names("shape") if name in self._known["shape"])
        return Axes(names("toolchain"), names("stack_protector"), names("kernel"), shapes, names("suites"))

    def _shape(self, name: str) -> Shape:
        """The shape called `name`: one object for all cells that have it."""
        if name not in self._composed:
            self._composed[name] = self._shapes.compose(name)
        return self._composed[name]

    def _excludes(self) -> None:
        names = dict(filter.CELL)
        for axis in ("toolchain", "stack_protector", "kernel", "shape"):
            names[axis] = filter.Attribute(values=self._known[axis])
        for index, entry in enumerate(self._file.exclude):
            try:
                filter.compile(entry.when, names)
            except UsageError as error:
                self._problem(("exclude", index, "when"), error.message, hint=error.hint)

    def _plausible(self, shape: Shape) -> None:
        place: Place = ("shapes", shape.name) if shape.name in self._file.shapes else ("axes", "shape")
        if shape.cpus > MOST_CPUS:
            self._problem(
                place,
                f"{shape.sockets} sockets x {shape.cores} cores x {shape.threads} threads are {shape.cpus} CPUs",
                hint=f"at most {MOST_CPUS}",
            )
        memory = self._file.limits.memory
        if memory is not None and shape.memory > memory:
            self._problem(
                ("limits", "memory"),
                f"shape {shape.name} alone has {shape.memory} MiB, more than all guests may have together",
                hint=f"{shape.memory} or more",
            )
