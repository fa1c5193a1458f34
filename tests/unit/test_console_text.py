"""What a guest prints cannot control a terminal once it is made printable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.console.text import Printable, printable


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain", "plain"),
        (b"tab\tstays", "tab\tstays"),
        (b"one\r\ntwo\r\r\nthree\n", "one\ntwo\nthree\n"),
        (b"over\rwritten", "over\\x0dwritten"),
        (b"\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("grüße ✓".encode(), "grüße ✓"),
        ("\u202eevil\u200b\u2028".encode(), "\\u202eevil\\u200b\\u2028"),
        (b"\xc2\x9b31m", "\\x9b31m"),
        (b"nul\x00\x08", "nul\\x00\\x08"),
        ("\U000e0041".encode(), "\\U000e0041"),
    ],
)
def test_printable(raw: bytes, text: str) -> None:
    assert printable(raw) == text


@given(st.binary(max_size=200))
def test_nothing_unprintable_is_left(raw: bytes) -> None:
    assert printable(raw).replace("\n", "").replace("\t", "").isprintable()


PIECES = st.lists(st.binary(max_size=6) | st.sampled_from([b"\r", b"\r\r\n", "é✓".encode()[:-1], b"\x93", b"\xe2"]))


@given(PIECES)
def test_in_pieces_it_is_the_same_text(pieces: list[bytes]) -> None:
    text = Printable()
    assert "".join([*map(text.feed, pieces), text.end()]) == printable(b"".join(pieces))
    assert text.end() == ""


def test_what_is_whole_is_not_held_back() -> None:
    assert Printable().feed(b"login: ") == "login: "
