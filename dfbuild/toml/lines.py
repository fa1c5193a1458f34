"""Where in a TOML text each key stands. `tomllib` reads values only, so this walks the same text for lines."""

from __future__ import annotations

import bisect
import re
import tomllib

Place = tuple[str | int, ...]
"""A way into a document: keys, and indices of lists: `("exclude", 0, "when")`."""

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*'""")
_SCALAR = re.compile(
    r'''"""(?:[^\\]|\\.)*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:'{0,2})|"(?:[^"\\]|\\.)*"|'[^']*'|[^,\]}\n#]+''',
    re.DOTALL,
)


def find_lines(text: str) -> dict[Place, int]:
    """The line, counted from 1, of every key, table and list item of `text`, which `tomllib` has accepted.

    A table stands where it is first named. Works in time linear in the text.
    """
    return _Walk(text.replace("\r\n", "\n")).run()


def find_repetition(text: str) -> tuple[Place, int, int] | None:
    """What the last key or table of `text` repeats, the line where it does, and the line where that was first.

    `text` is TOML but for that. None if nothing is repeated that stands in another line.
    """
    walk = _Walk(text.replace("\r\n", "\n"))
    try:
        lines = walk.run()
    except IndexError:  # it ends in an inline table
        return None
    place, again = walk.last
    parts = (place[:depth] for depth in range(len(place), 0, -1) if isinstance(place[depth - 1], str))
    return next(((part, again, lines[part]) for part in parts if lines[part] < again), None)


class _Walk:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._found: dict[Place, int] = {}
        self._lengths: dict[Place, int] = {}
        """How many `[[tables]]` each list of tables has so far."""
        self.last: tuple[Place, int] = ((), 1)
        """The key or table that came last, and its line."""

    def run(self) -> dict[Place, int]:
        table: Place = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            line = self._line()
            if self._text[self._at] == "[":
                place = table = self._header(2 if self._text.startswith("[[", self._at) else 1)
            else:
                place = self._pair(table)
            self.last = (place, line)
            self._skip(_BLANK)
        return self._found

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match is not None, f"not TOML at {self._at}"
        self._at = match.end()
        return match[0]

    def _note(self, place: Place) -> None:
        self._found.setdefault(place, self._line())

    def _line(self) -> int:
        return bisect.bisect(self._starts, self._at)

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_SPACE)
            raw = self._skip(_KEY)
            keys.append(str(tomllib.loads(f"k={raw}")["k"]) if raw[0] in "\"'" else raw)
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _header(self, brackets: int) -> Place:
        """`[a.b]` or `[[a.b]]`: each part leads into the last table of a list of tables."""
        start = self._at
        self._at += brackets
        keys = self._keys()
        after, self._at = self._at + brackets, start
        place: Place = ()
        for depth, key in enumerate(keys, 1):
            place = (*place, key)
            self._note(place)
            if depth == len(keys) and brackets == 2:
                self._lengths[place] = self._lengths.get(place, 0) + 1
            if place in self._lengths:
                place = (*place, self._lengths[place] - 1)
                self._note(place)
        self._at = after
        return place

    def _pair(self, table: Place) -> Place:
        start = self._at
        keys = self._keys()
        after, self._at = self._at, start
        place = table
        for key in keys:
            place = (*place, key)
            self._note(place)
        self._at = after + 1
        self._skip(_SPACE)
        self._value(place)
        return place

    def _value(self, place: Place) -> None:
        opening = self._text[self._at]
        if opening == "[":
            self._at += 1
            self._skip(_BLANK)
            index = 0
            while self._text[self._at] != "]":
                self._note((*place, index))
                self._value((*place, index))
                self._comma()
                index += 1
            self._at += 1
        elif opening == "{":
            self._at += 1
            self._skip(_BLANK)
            while self._text[self._at] != "}":
                self._pair(place)
                self._comma()
            self._at += 1
        else:
            self._skip(_SCALAR)

    def _comma(self) -> None:
        self._skip(_BLANK)
        if self._text[self._at] == ",":
            self._at += 1
            self._skip(_BLANK)
