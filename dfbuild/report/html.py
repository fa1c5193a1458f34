"""The run as one HTML page that needs nothing else: no network, no other file.

Whatever a guest printed goes through `finalize` (controls and bidirectional marks become visible) and jinja2's
autoescape; a Content Security Policy with the hashes of our own style and script is the second wall.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import shlex
from importlib import resources
from statistics import median
from typing import TYPE_CHECKING, Any

from dfbuild.report.excerpt import Excerpts
from dfbuild.report.page import page
from dfbuild.report.text import duration, figure, flatten, plural, safe, safe_line
from dfbuild.results.compare import Comparison
from dfbuild.results.records import RunRecord
from dfbuild.workspace import Workspace

if TYPE_CHECKING:
    from jinja2 import Template


_BLOCK = 6000
"""Characters of one failure's detail that are shown."""


def render(run: RunRecord, comparison: Comparison | None, workspace: Workspace) -> str:
    """The page as text, to be written as UTF-8."""
    return _template().render(page=page(run, comparison, Excerpts(workspace, run)))


@functools.cache
def _template() -> Template:
    import jinja2
    from markupsafe import Markup

    folder = resources.files("dfbuild.report") / "templates"
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))

    def clean(value: Any) -> Any:
        return safe(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dfbuild.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration,
        "figure": figure,
        "flatten": flatten,
        "block": lambda text: safe(text, _BLOCK),
        "line": safe_line,
        "word": lambda value: str(value or "unfinished").lower().replace("_", "-").replace(" ", "-"),
        "median": median,
        "plural": plural,
        "words": shlex.join,
    }
    environment.globals |= {
        "style": Markup(style),
        "script": Markup(script),
        "policy": f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}",
    }
    return environment.get_template("report.html.j2")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
