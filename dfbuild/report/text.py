"""Small words for people: safe text, durations, counts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfbuild.console.text import printable


def safe(text: str, limit: int = 20_000) -> str:
    """`text` with nothing in it that controls a terminal, reorders a line or is illegal in XML; newlines stay.

    Text beyond `limit` characters is left out from the middle, with a word about it.
    """
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return printable(text.encode("utf-8", "backslashreplace"))


def safe_line(text: str, limit: int = 400) -> str:
    """The same on one line, with the end cut off."""
    line = safe(text[: limit + 1]).replace("\n", "\\n").replace("\t", " ")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def duration(seconds: float) -> str:
    """`0.42 s`, `7.3 s`, `2 min 05 s`, `1 h 12 min`."""
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def figure(value: float) -> str:
    """A measurement with three or four significant digits: `0.0123`, `12.3`, `1234`, `1.23e+09`."""
    if value == 0 or 1000 <= abs(value) < 1e7:
        return f"{value:.0f}"
    return f"{value:.3g}"


def plural(count: int, word: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{count} {word if count == 1 else word + 's'}"


def flatten(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """JSON facts as (dotted name, text) pairs for a table; lists are joined."""
    found: list[tuple[str, str]] = []
    for name, value in facts.items():
        match value:
            case dict():
                found += flatten(value, f"{prefix}{name}.")
            case list() | tuple():
                found.append((f"{prefix}{name}", ", ".join(str(item) for item in value) or "–"))
            case bool():
                found.append((f"{prefix}{name}", "yes" if value else "no"))
            case _:
                found.append((f"{prefix}{name}", "–" if value in (None, "") else str(value)))
    return found
