"""What the programs of `test/sysperf` print: lines with a count of loops and the time of one. Pure."""

from __future__ import annotations

import re

_LINE = re.compile(
    r"^(?P<what>\S.*?)\s[\d.]+s (?P<loops>\d{1,12}) loops,\s+\d+ loops/sec,\s+(?P<us>\d{1,12}(\.\d{1,12})?)uS/loop$"
)
_LONGEST = 500


def timings(text: str) -> dict[str, float]:
    """What was timed ▸ microseconds of one loop. Lines about anything else, or about no loop at all, are none."""
    found = {}
    for line in text.splitlines():
        match = _LINE.match(line.strip()) if len(line) <= _LONGEST else None
        if match is not None and int(match["loops"]):
            found[match["what"].strip()] = float(match["us"])
    return found
