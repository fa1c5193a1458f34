"""The expression language over a cell's attributes: `toolchain=gcc* and not shape=up,smp2`.

One language for `--filter`, a matrix's `exclude`, and a release's `refuse.when` and `expect.when`. It stands at
the root because releases and configurations, which are upstream of the matrix, are written in it too.

    expression  = conjunction { "or" conjunction }
    conjunction = negation { "and" negation }
    negation    = "not" negation | "(" expression ")" | comparison
    comparison  = NAME ( "=" | "!=" ) value { "," value }  |  NAME ( "<" | "<=" | ">" | ">=" ) NUMBER

Values are globs (`*`, `?`, `[abc]`; case matters), and one of those after commas has to match; `!=` is true when
none does. A value with a space, a comma or an operator in it stands in single or double quotes.
"""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from dfbuild.errors import UsageError, nearest
from dfbuild.model import Cell, Shape, Variant

Value = str | int
Predicate = Callable[[Mapping[str, Value]], bool]


@dataclass(frozen=True, slots=True)
class Attribute:
    """What an expression may say of one name. With `values`, each value written must match one of them."""

    numeric: bool = False
    values: tuple[str, ...] = ()


def _cell_attributes() -> dict[str, Attribute]:
    found = Cell(Variant("", "", "", ""), Shape("")).attributes()
    switches = {name: Attribute(values=("on", "off")) for name in ("nx", "ht")}
    return {name: Attribute(numeric=isinstance(value, int)) for name, value in found.items()} | switches


CELL: Mapping[str, Attribute] = _cell_attributes()
"""The names of `Cell.attributes()`."""

_TOKEN = re.compile(
    r"""\s*(?: (?P<quoted> "[^"]*" | '[^']*' )
             | (?P<op> != | <= | >= | [=<>] )
             | (?P<mark> [(),] )
             | (?P<word> [^\s()=!<>,"']+ ) )""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_ORDER: Mapping[str, Callable[[int, int], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_DEEPEST = 50
"""Nested parentheses and `not`s; keeps an expression from exhausting Python's stack."""


def compile(text: str, names: Mapping[str, Attribute] = CELL) -> Predicate:
    """A function that says whether a mapping of `names` satisfies `text`; an empty text is always true.

    Raises `UsageError` with the column, the place marked under the expression, and a hint.
    """
    if not text.strip():
        return lambda attributes: True
    return _Parser(text, names).parse()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            start = at + len(text[at:]) - len(text[at:].lstrip())
            hint = "close the quotation mark" if text[start] in "\"'" else "put the value in quotation marks"
            _fail(text, start, start + 1, f"unexpected {text[start]}", hint)
        found.append(_Token(match.lastgroup, match[match.lastgroup], *match.span(match.lastgroup)))
        at = match.end()
    return [*found, _Token("end", "", end, end)]


def _fail(text: str, start: int, end: int, message: str, hint: str) -> NoReturn:
    # Control characters would move what is printed away from its mark.
    shown = "".join(c if c.isprintable() else " " for c in text)
    mark = " " * start + "^" * max(1, end - start)
    raise UsageError(f"{message} (column {start + 1})\n    {shown}\n    {mark}", hint=hint)


class _Parser:
    def __init__(self, text: str, names: Mapping[str, Attribute]) -> None:
        self._text, self._names = text, names
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0

    def parse(self) -> Predicate:
        found = self._any()
        if self._next.kind != "end":
            self._fail("expected 'and' or 'or'", "join comparisons with 'and' or 'or'")
        return found

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at += 1
        return token

    def _accept(self, word: str) -> bool:
        if self._next.kind in ("word", "mark") and self._next.text == word:
            self._at += 1
            return True
        return False

    def _fail(self, message: str, hint: str, token: _Token | None = None) -> NoReturn:
        token = token or self._next
        found = f", found {token.text!r}" if token.kind != "end" else ", found the end"
        _fail(self._text, token.start, token.end, message + (found if message.startswith("expected") else ""), hint)

    def _any(self) -> Predicate:
        parts = [self._all()]
        while self._accept("or"):
            parts.append(self._all())
        if len(parts) == 1:
            return parts[0]
        if len(parts) == 2:
            a, b = parts
            return lambda attributes: a(attributes) or b(attributes)
        return lambda attributes: any(part(attributes) for part in parts)

    def _all(self) -> Predicate:
        parts = [self._one()]
        while self._accept("and"):
            parts.append(self._one())
        if len(parts) == 1:
            return parts[0]
        if len(parts) == 2:
            a, b = parts
            return lambda attributes: a(attributes) and b(attributes)
        return lambda attributes: all(part(attributes) for part in parts)

    def _one(self) -> Predicate:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._fail("nested too deeply", f"at most {_DEEPEST} levels of parentheses and 'not'")
        try:
            if self._accept("not"):
                inner = self._one()
                return lambda attributes: not inner(attributes)
            if self._accept("("):
                inner = self._any()
                if not self._accept(")"):
                    self._fail("expected ')'", "close the parenthesis")
                return inner
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Predicate:
        token = self._next
        if token.kind != "word":
            self._fail("expected an attribute", f"known: {', '.join(self._names)}")
        name = self._take().text
        attribute = self._names.get(name)
        if attribute is None:
            self._fail(f"unknown attribute {name!r}", nearest(name, tuple(self._names)), token)
        if self._next.kind != "op":
            self._fail("expected an operator", f"for example {name}=…; one of = != < <= > >=")
        sign = self._take()
        if sign.text in _ORDER:
            if not attribute.numeric:
                known = ", ".join(n for n, a in self._names.items() if a.numeric)
                self._fail(f"{name} is text, {sign.text} compares numbers", f"numbers are: {known}", sign)
            compare, limit = _ORDER[sign.text], self._number(name)
            return lambda attributes: compare(attributes[name], limit)  # type: ignore[arg-type]
        values = [self._number(name) if attribute.numeric else self._glob(name, attribute)]
        while self._accept(","):
            values.append(self._number(name) if attribute.numeric else self._glob(name, attribute))
        equal = _equal(name, values)
        return equal if sign.text == "=" else lambda attributes: not equal(attributes)

    def _value(self, name: str) -> _Token:
        if self._next.kind not in ("word", "quoted"):
            self._fail(f"expected a value for {name}", "values with spaces or marks stand in quotation marks")
        return self._take()

    def _number(self, name: str) -> int:
        token = self._value(name)
        text = _plain(token)
        if not _NUMBER.fullmatch(text):
            self._fail(f"expected a whole number for {name}", "numbers take no globs: use < and >", token)
        return int(text)

    def _glob(self, name: str, attribute: Attribute) -> str:
        token = self._value(name)
        glob = _plain(token)
        if attribute.values and not any(fnmatch.fnmatchcase(value, glob) for value in attribute.values):
            self._fail(f"{name} is never {glob!r}", nearest(glob, attribute.values), token)
        return glob


def _plain(token: _Token) -> str:
    return token.text[1:-1] if token.kind == "quoted" else token.text


def _equal(name: str, values: Sequence[Value]) -> Predicate:
    """True if the attribute is one of the numbers or words, or matches one of the globs."""
    plain = frozenset(v for v in values if isinstance(v, int) or not re.search(r"[*?\[]", v))
    globs = [fnmatch.translate(v) for v in values if isinstance(v, str) and v not in plain]
    if not globs:
        if len(plain) == 1:
            (only,) = plain
            return lambda attributes: attributes[name] == only
        return lambda attributes: attributes[name] in plain
    match = re.compile("|".join(globs)).match
    if not plain:
        return lambda attributes: match(attributes[name]) is not None  # type: ignore[arg-type]
    return lambda attributes: attributes[name] in plain or match(attributes[name]) is not None  # type: ignore[arg-type]
