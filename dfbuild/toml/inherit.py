"""A document that is like another one but for what it says itself."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from dfbuild.errors import UsageError, nearest
from dfbuild.toml.document import Document, InvalidFile, dotted
from dfbuild.toml.lines import Place


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of files that can be like another: `[like]` with the other's name at `key`, and `without`."""

    key: str
    find: Callable[[str, Path], Path]
    """Name and the directory of the file that has it ▸ path; raises `UsageError`."""


def read(path: Path, kind: Kind) -> Document:
    """The document at `path`, with what it has from the one that it is like, and so on. Raises as `inherit` does.

    What `[like]` says is left in it, for the model of the whole to check.
    """
    return _read(path, kind, ())


class _Like(BaseModel):
    model_config = ConfigDict(extra="allow")

    without: tuple[str, ...] = ()


class _Heir(BaseModel):
    like: _Like | None = None


def _read(path: Path, kind: Kind, heirs: tuple[Path, ...]) -> Document:
    """`heirs` have from this one what they are."""
    own = Document.read(path)
    like = own.validate(_Heir).like
    name = own.data.get("like", {}).get(kind.key)
    if like is None or not isinstance(name, str):
        return own
    heirs = (*heirs, path.resolve())
    place = ("like", kind.key)
    try:
        other = kind.find(name, path.parent)
    except UsageError as error:
        raise InvalidFile([own.problem(place, error.message, hint=error.hint)]) from error
    if other.resolve() in heirs:
        raise InvalidFile([own.problem(place, f"{name} is like {path.name}", hint="one is the first")])
    if not other.is_file():
        hint = f"paths count from {path.parent.resolve()}"
        raise InvalidFile([own.problem(place, f"there is no file {other}", hint=hint)])
    return inherit(own, _read(other, kind, heirs), like.without, ("like", "without"))


def inherit(own: Document, base: Document, without: Sequence[str], place: Place) -> Document:
    """What `own` says, over what `base` says without the things that `without` names.

    Tables are merged, lists of tables are joined, `base`'s first, and any other value of `own` stands for `base`'s.
    A name is a dotted TOML key; an entry in a list of tables is named by the value of its first key,
    `expect."security/nx-*"`, which is every one that has it, and one in any other list by itself. Problems are
    told where the thing in question is written. Raises `InvalidFile` for names of nothing; `place` is where `own`
    has them.
    """
    dropped: set[Place] = set()
    problems = []
    for index, name in enumerate(without):
        try:
            found = set(_named(base.data, (), _keys(name)))
        except tomllib.TOMLDecodeError:
            problems.append(own.problem((*place, index), f"expected a dotted key, found {name!r}", hint=_HINT))
            continue
        if not found:
            problems.append(_nothing(own, base, (*place, index), _keys(name)))
        dropped |= found
    if problems:
        raise InvalidFile(problems)
    parts: dict[Place, tuple[Document, Place]] = {}
    data = _merged(own, base, (), dropped, parts)
    return Document(own.file, data, own.lines, parts)


_HINT = "a key with other characters than letters, digits, - and _ is quoted: 'refuse.\"nx=on\"'"


def _keys(name: str) -> list[str]:
    """The parts of a dotted key. Raises `TOMLDecodeError`."""
    keys: list[str] = []
    found: Any = tomllib.loads(f"{name} = 0")
    while isinstance(found, dict):
        if len(found) != 1:
            raise tomllib.TOMLDecodeError("more than one key")
        ((key, found),) = found.items()
        keys.append(key)
    return keys


def _named(value: Any, place: Place, keys: Sequence[str]) -> Iterator[Place]:
    """The places in `value`, which is at `place`, that `keys` lead to."""
    if not keys:
        yield place
    elif isinstance(value, dict):
        if keys[0] in value:
            yield from _named(value[keys[0]], (*place, keys[0]), keys[1:])
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            if keys[0] == _name(entry):
                yield from _named(entry, (*place, index), keys[1:])


def _name(entry: Any) -> Any:
    """What an entry in a list is named by."""
    return next(iter(entry.values()), None) if isinstance(entry, dict) else entry


def _nothing(own: Document, base: Document, place: Place, keys: Sequence[str]) -> UsageError:
    """The problem that `keys` lead nowhere, with what there is instead where they stop."""
    value: Any = base.data
    before: list[str] = []
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            break
        value = value[key]
        before.append(key)
    there: list[str] = []
    if isinstance(value, dict):
        there = list(value)
    elif isinstance(value, list):
        there = [str(_name(entry)) for entry in value]
    hint = nearest(key, there)
    if hint and before:
        hint += f" (in {dotted(before)})"
    return own.problem(place, f"{base.file.name} has nothing of that name", hint=hint)


def _tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _merged(
    own: Document, base: Document, place: Place, dropped: set[Place], parts: dict[Place, tuple[Document, Place]]
) -> dict[str, Any]:
    """The table at `place` of both, which is at the same place in either."""
    mine, theirs = own.value(place), base.value(place)
    found: dict[str, Any] = {}
    for key in (*theirs, *(key for key in mine if key not in theirs)):
        here = (*place, key)
        inherited = key in theirs and here not in dropped
        if inherited and key in mine and isinstance(theirs[key], dict) and isinstance(mine[key], dict):
            found[key] = _merged(own, base, here, dropped, parts)
        elif inherited and _tables(theirs[key]) and (key not in mine or _tables(mine[key])):
            sources = [
                (base, (*here, index)) for index, _ in enumerate(theirs[key]) if (*here, index) not in dropped
            ]
            sources += [(own, (*here, index)) for index, _ in enumerate(mine.get(key, ()))]
            parts.update(((*here, index), source) for index, source in enumerate(sources))
            found[key] = [
                document.value(at) if document is own else _kept(base, at, (*here, index), dropped, parts)
                for index, (document, at) in enumerate(sources)
            ]
        elif key in mine:
            found[key] = mine[key]
        elif inherited:
            parts[here] = (base, here)
            found[key] = _kept(base, here, here, dropped, parts)
    return found


def _kept(
    base: Document,
    place: Place,
    at: Place,
    dropped: set[Place],
    parts: dict[Place, tuple[Document, Place]],
) -> Any:
    """What `base` has at `place`, without what is dropped from it; it comes to stand `at` another one."""
    value = base.value(place)
    if isinstance(value, dict):
        inner = [key for key in value if (*place, key) not in dropped]
        return {key: _kept(base, (*place, key), (*at, key), dropped, parts) for key in inner}
    if isinstance(value, list):
        left = [index for index, _ in enumerate(value) if (*place, index) not in dropped]
        parts.update(((*at, index), (base, (*place, was))) for index, was in enumerate(left))
        return [_kept(base, (*place, was), (*at, index), dropped, parts) for index, was in enumerate(left)]
    return value
