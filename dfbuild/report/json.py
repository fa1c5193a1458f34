"""The run as JSON, for programs. `schema()` describes it and is published as docs/report-schema.json."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dfbuild.report.failures import Failure, failures
from dfbuild.results.compare import Comparison
from dfbuild.results.records import RunRecord
from dfbuild.results.verdict import exit_status

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Document:
    """A report. `version` rises when a field changes its meaning or goes away; new fields may come at any time.

    All text in it is as the guest sent it: escape it before you show it.
    """

    version: Literal[1]
    exit_status: int
    run: RunRecord
    failures: tuple[Failure, ...]
    comparison: Comparison | None


def render(run: RunRecord, comparison: Comparison | None = None) -> str:
    """The report as JSON text, indented, with a newline at its end."""
    document = Document(1, exit_status(run), run, failures(run), comparison)
    return _adapter().dump_json(document, indent=1).decode() + "\n"


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of what `render` writes."""
    found = _adapter().json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "dfbuild report", **found}


@functools.cache
def _adapter() -> TypeAdapter[Document]:
    from pydantic import TypeAdapter

    return TypeAdapter(Document)
