"""A TOML file with its lines, and pydantic's complaints in the words of the file."""

from __future__ import annotations

import codecs
import datetime
import inspect
import json
import re
import tomllib
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dfbuild.errors import UsageError, nearest
from dfbuild.toml.lines import Place, find_lines, find_repetition

Model = TypeVar("Model", bound=BaseModel)

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_REPEATED = ("Cannot overwrite", "Cannot declare", "Cannot mutate", "Cannot redefine")
"""What `tomllib` says of a key or table that is there already, where it has come to the end of that."""
_SYNTAX = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)")


class InvalidFile(UsageError):
    """A file that cannot be used. `problems` are in the order of the file; the first gives file, line and key."""

    def __init__(self, problems: Iterable[UsageError]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        first = self.problems[0]
        super().__init__(first.message, hint=first.hint, file=first.file, line=first.line, key=first.key)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed TOML file. `file` is what errors call it."""

    file: Path
    data: dict[str, Any]
    lines: dict[Place, int]
    parts: dict[Place, tuple[Document, Place]] = field(default_factory=dict)
    """What is written elsewhere, in another file or at another place ▸ where; see `toml.inherit`."""

    @classmethod
    def read(cls, path: Path) -> Document:
        """Raises `UsageError` if there is no such file, and `InvalidFile` if it is not TOML."""
        try:
            raw = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", file=path) from error
        except ValueError as error:  # A null byte.
            raise UsageError(f"cannot be read: {error}", file=path) from error
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise InvalidFile([UsageError("not UTF-8", hint="save it as UTF-8", file=path, line=line)]) from error
        return cls.parse(text, path)

    @classmethod
    def parse(cls, text: str, file: Path) -> Document:
        """`text` as the content of `file`; raises `InvalidFile` with the line where it stops being TOML."""
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidFile([_syntax_error(str(error), text, file)]) from error
        except RecursionError as error:
            raise InvalidFile([UsageError("nested too deeply", file=file)]) from error
        except ValueError as error:
            raise InvalidFile([UsageError(f"not TOML: {error}", file=file)]) from error  # int() has its own limits
        return cls(file, data, find_lines(text))

    def line(self, place: Place) -> int:
        """The line of `place`, or of the nearest table around it that the file has."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def value(self, place: Place) -> Any:
        """What stands at `place`; raises LookupError."""
        found: Any = self.data
        for step in place:
            found = found[step]
        return found

    def _written(self, place: Place) -> Place:
        """`place`, without the index where one value was written for a list of one."""
        if place and place[-1] == 0 and place not in self.lines and place[:-1] in self.lines:
            return place[:-1]
        return place

    def problem(self, place: Place, message: str, *, hint: str = "") -> UsageError:
        """An error at `place`, to be raised or collected."""
        document, place = self.source(place)
        place = document._written(place)
        return UsageError(message, hint=hint, file=document.file, line=document.line(place), key=dotted(place))

    def source(self, place: Place) -> tuple[Document, Place]:
        """The document in which `place` is written, and where there."""
        for depth in range(len(place), 0, -1):
            document, start = self.parts.get(place[:depth], (self, place[:depth]))
            if document is not self:
                return document.source((*start, *place[depth:]))
        return self, place

    def validate(self, model: type[Model]) -> Model:
        """The document as a `model`; raises `InvalidFile` with everything that is wrong.

        Goes through JSON, where pydantic can be strict: a quoted number is no number, yet a list may be a tuple.
        """
        try:
            return model.model_validate_json(json.dumps(self.data, default=_foreign), strict=True)
        except ValidationError as error:
            raise self.invalid(model, error) from error
        except RecursionError as error:
            raise InvalidFile([UsageError("nested too deeply", file=self.file)]) from error
        except ValueError as error:
            raise InvalidFile([UsageError(f"has a number that is none: {error}", file=self.file)]) from error

    def invalid(self, model: type[BaseModel], error: ValidationError, at: Place = ()) -> InvalidFile:
        """What pydantic has against the table at `at` as a `model`, in the words of the file."""
        return InvalidFile(self._translate(model, detail, at) for detail in error.errors(include_url=False))

    def _translate(self, model: type[BaseModel], detail: ErrorDetails, at: Place) -> UsageError:
        place, kind = self._written((*at, *detail["loc"])), detail["type"]
        if place[-1:] == ("[key]",):
            expected = _expected(kind, detail)
            return self.problem(place[:-1], f"expected a name that is {expected}, found {_shown(place[-2])}")
        known = _fields(model, place[len(at) : -1])
        if kind == "extra_forbidden":
            return self.problem(place, "unknown key", hint=nearest(str(place[-1]), known))
        if kind == "missing":
            description = known.get(str(place[-1]), "")
            return self.problem(place, "this key is missing", hint=description)
        expected = _expected(kind, detail)
        found = self.value(place)
        hint = ""
        if kind in ("literal_error", "enum") and isinstance(found, str):
            choices = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
            hint = nearest(found, choices, otherwise="")
        elif kind.startswith(("int", "float", "bool")) and isinstance(found, str):
            fits = isinstance(_unquoted(found), bool if kind.startswith("bool") else int | float)
            hint = "write it without quotation marks" if fits else f"{expected}, without quotation marks"
        elif kind in ("string_type", "tuple_type") and isinstance(found, bool):
            hint = f'write "{"on" if found else "off"}", with quotation marks'
        elif kind == "string_type" and isinstance(found, int | float):
            hint = f'write "{found}", with quotation marks'
        return self.problem(place, f"expected {expected}, found {_shown(found)}", hint=hint)


def dotted(place: Sequence[str | int]) -> str:
    """`place` as a person writes it: `exclude[0].when`."""
    text = ""
    for step in place:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (
                step if _BARE.fullmatch(step) else json.dumps(step, ensure_ascii=False)
            )
    return text


def _syntax_error(message: str, text: str, file: Path) -> UsageError:
    match = _SYNTAX.fullmatch(message)
    if match is None:
        return UsageError(f"not TOML: {message}", file=file)
    if match["what"].startswith(_REPEATED):
        lines = text.replace("\r\n", "\n").split("\n")
        if match["line"]:
            lines = [*lines[: int(match["line"]) - 1], lines[int(match["line"]) - 1][: int(match["column"]) - 1]]
        if (repeated := find_repetition("\n".join(lines))) is not None:
            place, line, first = repeated
            told = f"this key is there already, in line {first}"
            return UsageError(told, hint="leave one of them out", file=file, line=line, key=dotted(place))
    line = int(match["line"]) if match["line"] else text.count("\n") + (0 if text.endswith("\n") else 1)
    what = match["what"][:1].lower() + match["what"][1:]
    source = text.split("\n")[line - 1].rstrip("\r") if match["line"] else ""
    shown = "".join(c if c.isprintable() else " " for c in source)
    mark = f"\n    {shown}\n    {' ' * (int(match['column']) - 1)}^" if match["line"] and len(shown) < 200 else ""
    return UsageError(f"not TOML: {what}{mark}", file=file, line=max(1, line))


def _unquoted(text: str) -> object:
    """What `text` is where it stands for itself; None if that is nothing."""
    try:
        return tomllib.loads(f"it = {text}")["it"]
    except ValueError:
        return None


def _foreign(value: object) -> object:
    """TOML's dates and times, which JSON lacks and no model wants: something that no field accepts."""
    assert isinstance(value, datetime.date | datetime.time)
    return {"date": str(value)}


def _shown(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            text = json.dumps(value, ensure_ascii=False)
            return text if len(text) < 60 else f'{text[:56]}…"'
        case dict():
            return "a table"
        case list():
            return "a list"
    return str(value)[:60]


def _expected(kind: str, detail: ErrorDetails) -> str:
    """What pydantic wanted, by its error type: https://docs.pydantic.dev/latest/errors/validation_errors/"""
    context = detail.get("ctx", {})
    if kind.startswith("int"):
        return "a whole number"
    if kind.startswith("float") or kind == "finite_number":
        return "a number"
    if kind.startswith("bool"):
        return "true or false"
    if kind in ("tuple_type", "list_type", "set_type"):
        return "a list"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return "a table"
    match kind:
        case "string_type":
            return "text in quotation marks"
        case "string_too_short" | "too_short":
            return "something that is not empty"
        case "string_pattern_mismatch":
            return f"text that matches {context['pattern']}"
        case "literal_error" | "enum":
            return f"{context['expected']}"
        case "greater_than_equal":
            return f"{context['ge']} or more"
        case "greater_than":
            return f"more than {context['gt']:g}"
        case "less_than_equal":
            return f"{context['le']} or less"
    return detail["msg"]


def _is_model(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, BaseModel)


def _into(annotation: Any, step: str | int) -> list[Any]:
    """What an annotation says of the thing inside it that `step` leads to; several where it has alternatives."""
    if _is_model(annotation):
        field = annotation.model_fields.get(step)
        return [field.annotation] if field is not None else []
    arguments = [argument for argument in typing.get_args(annotation) if argument is not Ellipsis]
    if typing.get_origin(annotation) is dict:
        return arguments[1:]
    if typing.get_origin(annotation) in (tuple, list):
        return arguments
    return [found for argument in arguments for found in _into(argument, step)]


def _fields(model: type[BaseModel], place: Place) -> dict[str, str]:
    """The keys that the table at `place` may have, with their descriptions."""
    annotations: list[Any] = [model]
    for step in place:
        annotations = [found for annotation in annotations for found in _into(annotation, step)]
    alternatives = [a for annotation in annotations for a in (annotation, *typing.get_args(annotation))]
    return {
        field.alias or name: (field.description or "").split("\n")[0]
        for found in alternatives
        if _is_model(found)
        for name, field in found.model_fields.items()
    }
