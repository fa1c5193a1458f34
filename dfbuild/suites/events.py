"""What the suites' process says while it runs: JSON lines over an inherited descriptor."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dfbuild.errors import InfraError
from dfbuild.model import CheckResult

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class CheckEvent:
    """A check begins."""

    check: str


@dataclass(frozen=True, slots=True)
class ResultEvent:
    """A check has ended."""

    result: CheckResult


@dataclass(frozen=True, slots=True)
class EndEvent:
    """The suites came to their end; without it their process died. `gone` says why if the guest did not last.

    `hung` is true if it did not say so itself: it has just stopped to answer. `late` is true if there was not the
    time for all checks.
    """

    gone: str = ""
    hung: bool = False
    late: bool = False


Event = CheckEvent | ResultEvent | EndEvent


@functools.cache
def _results() -> TypeAdapter[CheckResult]:
    from pydantic import TypeAdapter

    return TypeAdapter(CheckResult)


def encode(event: Event) -> bytes:
    """One line of JSON. What is not text in it (lone surrogates) is replaced."""
    match event:
        case CheckEvent(check):
            data: dict[str, object] = {"event": "start", "check": check}
        case ResultEvent(result):
            data = {"event": "result", "result": _results().dump_python(result, mode="python")}
        case EndEvent(gone, hung, late):
            data = {"event": "end", "gone": gone, "hung": hung, "late": late}
    return json.dumps(data, ensure_ascii=False).encode(errors="replace") + b"\n"


def decode(line: bytes) -> Event:
    """The event of one line; raises `InfraError` for anything else."""
    try:
        data = json.loads(line)
        match data["event"]:
            case "start":
                return CheckEvent(str(data["check"]))
            case "result":
                return ResultEvent(_results().validate_python(data["result"]))
            case "end":
                return EndEvent(str(data["gone"]), data["hung"] is True, data["late"] is True)
    except (ValueError, TypeError, KeyError) as error:
        raise InfraError(f"the suites said what is no event: {line[:200]!r}") from error
    raise InfraError(f"the suites said what is no event: {line[:200]!r}")


@dataclass(frozen=True, slots=True)
class Reporter:
    """Writes events to a descriptor; with none it keeps silent."""

    fd: int | None

    def __call__(self, event: Event) -> None:
        if self.fd is None:
            return
        rest = memoryview(encode(event))
        while rest:
            rest = rest[os.write(self.fd, rest) :]
