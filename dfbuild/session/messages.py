"""What goes over a session's control socket: one JSON object a line, each way.

A client asks with a `Request` and gets one `Reply` with the same number, in whatever order they are done. After
`watch` the server also pushes a `Reply` numbered 0 whenever the console's `state` has changed; a client that is
slow to read gets the latest one only. Both sides are validated: neither trusts the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from dfbuild import errors
from dfbuild.console.protocol import ConsoleClosed
from dfbuild.errors import DfbuildError, GuestCrashed, InfraError
from dfbuild.guest.protocol import Exit
from dfbuild.model import CrashReport, StageReached
from dfbuild.session.protocol import Manifest

LINE_LIMIT = 1 << 20
"""Bytes that a line may have, either way."""

Operation = Literal["watch", "send", "pause", "resume", "reset", "diagnose", "stop"]


@dataclass(frozen=True, slots=True)
class Request:
    """`seconds` is how long it may take; `data` what to type, in base64."""

    id: int
    operation: Operation
    seconds: float
    data: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error, as it crosses a process boundary."""

    kind: str
    message: str
    hint: str = ""
    crash: CrashReport | None = None


@dataclass(frozen=True, slots=True)
class ConsoleState:
    size: int
    closed: bool
    crash: CrashReport | None = None
    failure: Problem | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The fields that the operation has an answer for."""

    id: int
    problem: Problem | None = None
    state: ConsoleState | None = None
    stages: tuple[StageReached, ...] = ()
    text: str = ""
    exit: Exit | None = None


_KINDS: dict[str, type[DfbuildError]] = {
    kind.__name__: kind
    for kind in (
        errors.UsageError,
        errors.InfraError,
        errors.MissingTool,
        errors.Cancelled,
        errors.DeadlineExceeded,
        errors.BootFailed,
        errors.GuestHung,
        ConsoleClosed,
    )
}


def problem_of(error: DfbuildError) -> Problem:
    """`error` as a message; a kind that the other side can't make becomes the nearest that it can."""
    if isinstance(error, GuestCrashed):
        return Problem("GuestCrashed", error.message, error.hint, error.report)
    kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in _KINDS), "InfraError")
    return Problem(kind, error.message, error.hint)


def error_of(problem: Problem) -> DfbuildError:
    """The error that `problem` speaks of, to be raised."""
    if problem.crash is not None:
        return GuestCrashed(problem.crash)
    return _KINDS.get(problem.kind, InfraError)(problem.message, hint=problem.hint)


T = TypeVar("T")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """The validator of `kind`. Making one takes milliseconds."""
    return TypeAdapter(kind)


def dump(value: Any) -> bytes:
    """One line of JSON."""
    return bytes(_adapter(value.__class__).dump_json(value, exclude_defaults=True)) + b"\n"


def parse(kind: type[T], raw: bytes) -> T:
    """A `kind` from JSON; raises `InfraError` for what is none."""
    try:
        value: T = _adapter(cast(Any, kind)).validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise InfraError(f"not a {kind.__name__}: {first['msg']} at {first['loc']}") from error
    return value


def dump_manifest(manifest: Manifest) -> bytes:
    return bytes(_adapter(Manifest).dump_json(manifest, indent=2)) + b"\n"


def parse_manifest(raw: bytes) -> Manifest:
    """Raises `InfraError` for what is none."""
    return parse(Manifest, raw)
