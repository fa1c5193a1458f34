"""What guests and suites send made fit for a database and for JSON: always valid Unicode, always real numbers."""

from __future__ import annotations

import json
import math
from typing import Any


def clean(text: str) -> str:
    """`text` with lone surrogates (undecodable bytes) spelt out; sqlite and JSON readers refuse them."""
    return text.encode("utf-8", "backslashreplace").decode()


def _is_number(number: float) -> bool:
    # Beyond this no measurement lies, and sums of two would overflow.
    return math.isfinite(number) and abs(number) < 1e300


def finite(number: float) -> float:
    """`number`, or 0.0 for what is not one."""
    return float(number) if _is_number(number) else 0.0


def clean_json(value: Any) -> str:
    """Compact JSON of `value`. In lists a NaN or an infinity, which JSON has not, is left out; elsewhere null."""
    return json.dumps(_clean(value), ensure_ascii=False, separators=(",", ":"))


def _clean(value: Any) -> Any:
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if _is_number(value) else None
        case str():
            return clean(value)
        case dict():
            return {clean(str(key)): _clean(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
            return [_clean(item) for item in items if not isinstance(item, float) or _is_number(item)]
        case _:
            return clean(str(value))
