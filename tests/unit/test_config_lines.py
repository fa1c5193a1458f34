"""The line finder against documents written in a random style by a writer that knows its own lines."""

from __future__ import annotations

import json
import random
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild import releases
from dfbuild.toml import Document, InvalidFile, Place, find_lines

keys = st.text("ab.# \"'=[é", min_size=1, max_size=4) | st.text("abc-_12", min_size=1, max_size=4)
scalars = st.one_of(
    st.integers(-(2**40), 2**40),
    st.booleans(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\n\"'#[]{},=\\"), max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(
    keys, values | st.lists(st.dictionaries(keys, values, max_size=2), max_size=3), max_size=5
)


class Writer:
    """Writes a document in one of the many ways there are, and keeps the line of everything it writes."""

    def __init__(self, dice: random.Random) -> None:
        self.text = ""
        self.lines: dict[Place, int] = {}
        self._dice = dice

    def note(self, place: Place) -> None:
        self.lines.setdefault(place, self.text.count("\n") + 1)

    def table(self, data: dict[str, Any], place: Place, headers: tuple[str, ...] = ()) -> None:
        sections = {k: v for k, v in data.items() if self._may_be_section(v) and self._dice.random() < 0.6}
        for key, value in data.items():
            if key not in sections:
                self.noise()
                self.pair(key, value, place)
                self.text += self._dice.choice(("\n", "  # [no] = 'table'\n", "\r\n"))
        for key, value in sections.items():
            path = (*headers, self.key(key))
            for index, table in enumerate([value] if isinstance(value, dict) else value):
                self.noise()
                opening, closing = ("[", "]") if isinstance(value, dict) else ("[[", "]]")
                here = (*place, key) if isinstance(value, dict) else (*place, key, index)
                self.note((*place, key))
                self.note(here)
                self.text += f"{opening} {' . '.join(path)}{closing}\n"
                self.table(table, here, path)

    def _may_be_section(self, value: object) -> bool:
        if isinstance(value, dict):
            return True
        return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)

    def noise(self) -> None:
        self.text += self._dice.choice(("", "\n", "# [table] key = '''\n", "\n  \n", "\t"))

    def key(self, key: str) -> str:
        if key.isascii() and key.replace("-", "").replace("_", "").isalnum() and self._dice.random() < 0.7:
            return key
        return json.dumps(key, ensure_ascii=self._dice.random() < 0.5)

    def pair(self, key: str, value: object, place: Place) -> None:
        here = (*place, key)
        self.note(here)
        self.text += self.key(key)
        while isinstance(value, dict) and len(value) == 1 and self._dice.random() < 0.5:
            ((key, value),) = value.items()
            here = (*here, key)
            self.note(here)
            self.text += f" . {self.key(key)}"
        self.text += self._dice.choice((" = ", "=", "\t=  "))
        self.value(value, here)

    def value(self, value: object, place: Place) -> None:
        match value:
            case dict():
                self.text += "{ "
                for index, (key, item) in enumerate(value.items()):
                    self.text += " , " if index else ""
                    self.pair(key, item, place)
                self.text += " }"
            case list():
                gap = self._dice.choice(("", " ", "\n", "\n # a ] comment,\n"))
                self.text += "[" + gap
                for index, item in enumerate(value):
                    self.note((*place, index))
                    self.value(item, (*place, index))
                    self.text += gap + ("," if index < len(value) - 1 or self._dice.random() < 0.5 else "") + gap
                self.text += "]"
            case str():
                self.text += self.string(value)
            case bool():
                self.text += "true" if value else "false"
            case _:
                self.text += repr(value).replace("e+", "e") if "inf" not in repr(value) else repr(value)

    def string(self, value: str) -> str:
        # JSON's escapes are TOML's, apart from surrogate pairs.
        plain = json.dumps(value, ensure_ascii=False)
        styles = [plain, '"""\\\n  ' + plain[1:-1].replace("\\n", "\n").removeprefix(" ") + '"""']
        if value.startswith((" ", "\n", "\t")):
            styles.pop()
        if "'" not in value and "\n" not in value:
            styles.append(f"'{value}'")
        if "'''" not in value and not value.endswith("'"):
            styles.append("'''\n" + value + "'''")
        return self._dice.choice(styles)


@given(documents, st.randoms(use_true_random=False))
def test_every_place_has_its_line(data: dict[str, Any], dice: random.Random) -> None:
    writer = Writer(dice)
    writer.table(data, ())
    assert tomllib.loads(writer.text) == data, "the writer writes TOML"
    assert find_lines(writer.text) == writer.lines


statements = st.sampled_from((
    "a = 1", "a.b = 1", "a.b.c = 2", 'a = """\n\n"""', "a = {b = 1}", "a = {b = 1, b.c = 2}", "a = [\n{b = 1}]",
    "'a' = 1", "[a]", "[a.b]", "[a.b.c]", "[[a]]", "[[a.b]]", "[b]",
))  # fmt: skip


@given(st.lists(statements, max_size=6))
def test_what_is_said_again_is_told_with_both_lines(said: list[str]) -> None:
    text = "\n".join(said)
    try:
        Document.parse(text, Path("x.toml"))
    except InvalidFile as error:
        lines = text.split("\n")
        (problem,) = error.problems
        if match := re.search(r"already, in line (\d+)$", problem.message):
            first = int(match[1])
            assert problem.line is not None and first < problem.line and problem.key
            name = problem.key.rpartition(".")[2]
            assert name in lines[first - 1] and name in lines[problem.line - 1]
        else:
            assert "b.c" in lines[(problem.line or 1) - 1], "one in itself"


def test_an_example_by_hand() -> None:
    text = """\
# comment
name = "x" # = [nothing]
[a . "b.c"]
list = [ 1,
  { k = 2, l.m = [
    3] } ]
text = '''
[not.a.table]
'''
[[rule]]
when = ""
[[rule]]
[rule.more]
when = 1979-05-27 07:32:00
[a.d]
"""
    assert find_lines(text) == {
        ("name",): 2,
        ("a",): 3,
        ("a", "b.c"): 3,
        ("a", "b.c", "list"): 4,
        ("a", "b.c", "list", 0): 4,
        ("a", "b.c", "list", 1): 5,
        ("a", "b.c", "list", 1, "k"): 5,
        ("a", "b.c", "list", 1, "l"): 5,
        ("a", "b.c", "list", 1, "l", "m"): 5,
        ("a", "b.c", "list", 1, "l", "m", 0): 6,
        ("a", "b.c", "text"): 7,
        ("rule",): 10,
        ("rule", 0): 10,
        ("rule", 0, "when"): 11,
        ("rule", 1): 12,
        ("rule", 1, "more"): 13,
        ("rule", 1, "more", "when"): 14,
        ("a", "d"): 15,
    }


@pytest.mark.parametrize("name", releases.available())
def test_every_place_of_a_release_is_found(name: str) -> None:
    text = (Path(releases.__file__).parent / f"{name}.toml").read_text()
    found = find_lines(text)
    lines = text.split("\n")

    def visit(value: object, place: Place) -> None:
        if place:
            assert place in found
            if isinstance(place[-1], str):
                assert place[-1] in lines[found[place] - 1]
        for key, item in (
            value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else [])
        ):
            visit(item, (*place, key))

    visit(tomllib.loads(text), ())
