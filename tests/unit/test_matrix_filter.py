"""The filter language against an oracle in plain Python, and its errors by example."""

from __future__ import annotations

import fnmatch
import operator
import string
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.errors import UsageError
from dfbuild.filter import CELL, Attribute, compile
from dfbuild.model import Cell, Shape, Variant

CELL_HT2 = Cell(
    Variant("reference", "gcc-12", "on", "smp"), Shape("ht2", threads=2, memory=512, cpu="Haswell-noTSX")
)
CELL_UP = Cell(Variant("reference", "clang-14", "off", "smp"), Shape("up", nx=False))


@pytest.mark.parametrize(
    ("text", "ht2", "up"),
    [
        ("", True, True),
        ("  ", True, True),
        ("toolchain=gcc*", True, False),
        ("toolchain = gcc-12", True, False),
        ("toolchain=GCC-12", False, False),
        ("toolchain!=gcc*", False, True),
        ("toolchain=gcc* and shape!=up", True, False),
        ("shape=up,smp2", False, True),
        ("shape!=up,smp2", True, False),
        ("shape=smp*,h?2", True, False),
        ("shape=[a-h]*", True, False),
        ("not shape=up", True, False),
        ("not not shape=up", False, True),
        ("shape=up or shape=ht2 and toolchain=clang*", False, True),
        ("(shape=up or shape=ht2) and toolchain=gcc*", True, False),
        ("cpus>1", True, False),
        ("cpus>=1 and memory<512", False, True),
        ("memory<=512", True, True),
        ("memory=512", True, False),
        ("memory!=512,256", False, False),
        ("nx=on", True, False),
        ("ht=on", True, False),
        ("stack_protector=off", False, True),
        ('id="reference/gcc-12+ssp/smp @ ht2"', True, False),
        ("id='reference/* @ ht2'", True, False),
        ('cpu=""', False, True),
        ("shape\n  = up", False, True),
        ("shape=and,or,up", False, True),
    ],
)
def test_examples(text: str, ht2: bool, up: bool) -> None:
    matches = compile(text)
    assert (matches(CELL_HT2.attributes()), matches(CELL_UP.attributes())) == (ht2, up)


@pytest.mark.parametrize(
    ("text", "message", "column", "hint"),
    [
        ("toolchan=gcc", "unknown attribute 'toolchan'", 1, "did you mean 'toolchain'?"),
        ("shape=up and zzz=1", "unknown attribute 'zzz'", 14, "known: id, release"),
        ("shape", "expected an operator, found the end", 6, "shape="),
        ("shape=", "expected a value for shape, found the end", 7, "quotation marks"),
        ("shape=up,", "expected a value for shape, found the end", 10, ""),
        ("shape=up toolchain=x", "expected 'and' or 'or', found 'toolchain'", 10, "join"),
        ("shape=ht2 @ up", "expected 'and' or 'or', found '@'", 11, ""),
        ("(shape=up", "expected ')', found the end", 10, "parenthesis"),
        ("shape=up)", "expected 'and' or 'or', found ')'", 9, ""),
        ("and shape=up", "unknown attribute 'and'", 1, ""),
        ("=up", "expected an attribute, found '='", 1, "known: id"),
        ('shape="up', 'unexpected "', 7, "close the quotation mark"),
        ("shape<up", "shape is text, < compares numbers", 6, "memory"),
        ("memory=2?6", "expected a whole number for memory, found '2?6'", 8, "< and >"),
        ("memory>lots", "expected a whole number for memory, found 'lots'", 8, ""),
        ("memory>" + "9" * 5000, "expected a whole number", 8, ""),
        ("memory>-1 and memory>!", "unexpected !", 22, "quotation"),
        ("nx=true", "nx is never 'true'", 4, "known: on, off"),
        ("not " * 60 + "nx=on", "nested too deeply", 201, "50"),
        ("(" * 9999, "nested too deeply", 51, "50"),
    ],
)
def test_errors_name_the_column_and_the_cure(text: str, message: str, column: int, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        compile(text)
    shown, source, mark = caught.value.message.split("\n")
    assert message in shown
    assert shown.endswith(f"(column {column})")
    assert source == "    " + text
    assert len(mark.rstrip("^")) == 4 + column - 1
    assert hint in caught.value.hint


def test_a_value_has_to_match_something_known() -> None:
    names = {"toolchain": Attribute(values=("gcc-12", "clang-14"))}
    assert compile("toolchain=gcc*", names)({"toolchain": "gcc-12"})
    with pytest.raises(UsageError, match="toolchain is never 'gcc-13'") as caught:
        compile("toolchain=clang-14,gcc-13", names)
    assert caught.value.hint == "did you mean 'gcc-12'?"


def test_control_characters_do_not_reach_the_terminal() -> None:
    with pytest.raises(UsageError) as caught:
        compile("shape=up\x1b[2J\t(")
    assert "\x1b" not in str(caught.value)


# ── against an oracle ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Comparison:
    name: str
    operator: str
    values: tuple[str | int, ...]


@dataclass(frozen=True)
class Joined:
    word: str
    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Not:
    part: Tree


Tree = Comparison | Joined | Not
Attributes = Mapping[str, str | int]

NAMES = {"text": Attribute(), "other": Attribute(), "number": Attribute(numeric=True)}
ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
words = st.text('ab1-.@+/ ,()="', max_size=4)
globs = st.one_of(words, st.text("ab1*?[]! ", max_size=4), st.sampled_from(("and", "or", "not", "a*", "[!a]*")))
numbers = st.integers(-3, 300)
comparisons = st.one_of(
    st.builds(
        Comparison,
        st.sampled_from(("text", "other")),
        st.sampled_from(("=", "!=")),
        st.lists(globs, min_size=1, max_size=3).map(tuple),
    ),
    st.builds(
        Comparison, st.just("number"), st.sampled_from(("=", "!=")), st.lists(numbers, min_size=1).map(tuple)
    ),
    st.builds(Comparison, st.just("number"), st.sampled_from(tuple(ORDER)), st.tuples(numbers)),
)
trees: st.SearchStrategy[Tree] = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(Joined, st.sampled_from(("and", "or")), st.lists(inner, min_size=2, max_size=4).map(tuple)),
    ),
    max_leaves=12,
)
attributes = st.fixed_dictionaries({"text": words, "other": words, "number": numbers})


def holds(tree: Tree, of: Attributes) -> bool:
    """What the expression means, said the long way."""
    match tree:
        case Not(part):
            return not holds(part, of)
        case Joined("and", parts):
            return all(holds(part, of) for part in parts)
        case Joined(_, parts):
            return any(holds(part, of) for part in parts)
        case Comparison(name, sign, values) if sign in ORDER:
            return bool(ORDER[sign](of[name], values[0]))
        case Comparison(name, sign, values):
            found = any(
                v == of[name] if isinstance(v, int) else fnmatch.fnmatchcase(str(of[name]), v) for v in values
            )
            return found if sign == "=" else not found
    raise AssertionError(tree)


def printed(tree: Tree, draw: st.DataObject) -> str:
    """The expression as text, with spaces, quotation marks and parentheses where they make no difference."""
    space = draw.draw(st.sampled_from(("", " ", "\n ")))

    def value(of: str | int) -> str:
        text = str(of)
        plain = text and not set(text) & set(string.whitespace + "()=!<>,\"'")
        if plain and draw.draw(st.booleans()):
            return text
        return f"'{text}'"

    match tree:
        case Comparison(name, sign, values):
            text = f"{name}{space}{sign}{space}" + f"{space},{space}".join(map(value, values))
        case Not(part):
            text = f"not ({printed(part, draw)}{space})"
        case Joined(word, parts):
            # `and` binds closer, so an `or` inside needs parentheses; elsewhere they are free.
            shown = [
                f"({printed(p, draw)})"
                if isinstance(p, Joined) and (word, p.word) == ("and", "or")
                else printed(p, draw)
                for p in parts
            ]
            text = f" {word} ".join(shown)
    return f"({space}{text}{space})" if draw.draw(st.integers(0, 3)) == 0 else text


@given(trees, attributes, st.data())
def test_printed_and_parsed_it_means_the_same(tree: Tree, of: Attributes, draw: st.DataObject) -> None:
    text = printed(tree, draw)
    assert compile(text, NAMES)(of) == holds(tree, of)


@given(st.text("shape=up<>!(),\"'andort \n\x00é*[", max_size=30))
def test_any_text_is_an_expression_or_a_usage_error(text: str) -> None:
    try:
        matches = compile(text)
    except UsageError as error:
        assert "column" in error.message
    else:
        assert matches(CELL_UP.attributes()) in (True, False)


def test_every_attribute_of_a_cell_can_be_named() -> None:
    for name, value in CELL_HT2.attributes().items():
        assert compile(f"{name}='{value}'")(CELL_HT2.attributes())
        assert CELL[name].numeric == isinstance(value, int)
