"""However the kernel interrupts, an answer is put together right, or the lines that were hurt are asked for."""

from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfbuild.shell import frames
from dfbuild.shell.coding import checksum_of, decode, encode
from dfbuild.shell.frames import HELLO, Ear, Ranges, Reply, assembled, heard, request, selection, upper, wanting

NONCE = b"0a1b2c3d"
SEQ = 7

ascii_noise = st.binary(max_size=120).map(lambda data: bytes(byte & 0x7F for byte in data))
any_noise = st.binary(min_size=1, max_size=40)


def raised(text: bytes) -> bytes:
    """As the agent prints it."""
    return bytes(byte | 0x80 for byte in text)


def spoken(text: bytes, wanted: Ranges | None = None, *, status: int = 0) -> bytes:
    """What the agent prints for an encoded output, or when some of its lines are asked for again."""
    head = b"%b:%d:" % (NONCE, SEQ)
    lines = text.splitlines()
    out = b""
    if wanted is None:
        out += head + b"b\n" + head + b"s:%03o%d\n" % (status, bool(text))
        wanted = ((1, None),)
    if text:
        for number, line in enumerate(lines, 1):
            if any(first <= number <= (last or len(lines)) for first, last in wanted):
                out += head + b"d:%d:%b\n" % (number, line)
        out += head + b"e:%d:%d:%b\n" % (len(lines), len(text), checksum_of(text, "crc32").encode())
    return out


def woven(rng: random.Random, words: bytes, noises: list[bytes]) -> bytes:
    """`words` with every noise put in at any byte."""
    out = words
    for noise in noises:
        at = rng.randint(0, len(out))
        out = out[:at] + noise + out[at:]
    return out


def listen(ear: Ear, rng: random.Random, stream: bytes) -> None:
    """Hear `stream` in pieces of any size."""
    while stream:
        size = rng.randint(1, 50)
        ear.listen(heard(stream[:size]))
        stream = stream[size:]


@given(st.binary(max_size=1500), st.integers(0, 255), st.lists(ascii_noise, max_size=60), st.randoms())
def test_no_ascii_between_its_bytes_hurts_an_answer(
    data: bytes, status: int, noises: list[bytes], rng: random.Random
) -> None:
    text = encode(data, "base64")
    ear = Ear(NONCE, SEQ)
    listen(ear, rng, woven(rng, raised(spoken(text, status=status)), noises))
    assert ear.reply.begun
    assert ear.reply.ended
    assert ear.reply.status == status
    if data:
        whole = assembled(ear.reply, "crc32")
        assert whole is not None
        assert decode(whole, "base64") == data
    else:
        assert not ear.reply.has_output


@settings(max_examples=300)
@given(st.binary(min_size=1, max_size=1500), st.lists(any_noise, min_size=1, max_size=6), st.randoms())
def test_whatever_is_hurt_is_asked_for_until_it_is_right(
    data: bytes, noises: list[bytes], rng: random.Random
) -> None:
    text = encode(data, "base64")
    ear = Ear(NONCE, SEQ)
    listen(ear, rng, woven(rng, raised(spoken(text)), noises))
    for _ in range(5):
        whole = assembled(ear.reply, "crc32")
        if whole is not None:
            break
        asked = wanting(ear.reply)
        assert asked
        ear.reply.total = None
        # What is heard again is whole; only what was asked for is said.
        ear.listen(b"\n" + spoken(text, asked))
    assert whole == text


def test_only_the_hurt_lines_are_asked_for() -> None:
    text = encode(bytes(range(256)) * 20, "base64")
    words = raised(spoken(text))
    broken = words.replace(raised(b":d:12:"), raised(b":d:12:") + b"\xc3\xa4", 1).replace(raised(b":d:30:"), b"", 1)
    ear = Ear(NONCE, SEQ)
    ear.listen(heard(broken))
    assert wanting(ear.reply) == ((30, 30),)
    ear.listen(spoken(text, ((30, 30),)))
    last = len(text.splitlines())
    assert wanting(ear.reply) == ((12, 12), (last, last))


def test_an_end_that_did_not_come_is_asked_for() -> None:
    text = encode(bytes(1000), "base64")
    ear = Ear(NONCE, SEQ)
    ear.listen(spoken(text).split(b":d:9:")[0])
    assert ear.in_the_middle
    assert wanting(ear.reply) == ((9, None),)


def test_other_answers_are_not_mistaken_for_this_one() -> None:
    ear = Ear(NONCE, SEQ)
    ear.listen(b"0a1b2c3d:6:s:0000\n11111111:7:s:0000\n0a1b2c3d:77:s:0000\n0a1b2c3d:7:s:00001\n")
    assert ear.reply == Reply()
    ear.listen(b"noise0a1b2c3d:7:s:0030\n")
    assert ear.reply.status == 3


@pytest.mark.parametrize(
    "hurt", [b"0a1b2c3d:7:s:00C00", b"0a1b2cC3d:7:s:0000", b"0a1b2c3d:7:s:0000C", b"C0a1b2c3d:7:s:00"]
)
def test_a_line_that_may_have_been_the_last_is_asked_for_once(hurt: bytes) -> None:
    ear = Ear(NONCE, SEQ)
    ear.listen(b"0a1b2c3d:7:b\n")
    assert not ear.in_the_middle
    ear.listen(hurt + b"\n")
    assert ear.in_the_middle
    ear.asked_again()
    assert not ear.in_the_middle


@pytest.mark.parametrize("line", [b"0a1b2c3d:6:s:0000", b"0a1b2c3d:17:d:1:text", HELLO, b""])
def test_whole_lines_that_say_nothing_to_this_request_are_no_riddle(line: bytes) -> None:
    ear = Ear(NONCE, SEQ)
    ear.listen(b"0a1b2c3d:7:b\n" + line + b"\n")
    assert not ear.in_the_middle


def test_a_line_without_end_costs_nothing() -> None:
    ear = Ear(NONCE, SEQ)
    ear.listen(b"0a1b2c3d:7:b\n")
    began = time.monotonic()
    for _ in range(400):
        ear.listen(b"x" * 65536)
    assert time.monotonic() - began < 5
    assert ear.in_the_middle
    ear.listen(b"\n0a1b2c3d:7:s:0030\n")
    assert ear.reply.status == 3


def test_an_answer_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_MOST_BYTES", 1000)
    ear = Ear(NONCE, SEQ)
    for number in range(1, 100):
        ear.listen(b"0a1b2c3d:7:d:%d:%s\n" % (number, b"x" * 76))
    assert len(ear.reply.lines) == 13


def test_numbers_without_end_cost_nothing() -> None:
    ear = Ear(NONCE, SEQ)
    ear.listen(b"0a1b2c3d:7:s:0001\n0a1b2c3d:7:d:99999999:x\n0a1b2c3d:7:e:99999999:5:00\n")
    assert assembled(ear.reply, "crc32") is None
    assert wanting(ear.reply) == ((1, None),)


def test_a_request_is_one_line_with_its_number_for_both_halves() -> None:
    assert request(b"r", 12, b"true") == rb"r 12 \261\262 4 true" + b"\n"
    assert upper(b"12:\n") == r"\261\262\272\212"


@given(
    st.lists(st.tuples(st.integers(1, 500), st.one_of(st.none(), st.integers(1, 500))), min_size=1, max_size=20),
    st.integers(20, 200),
)
def test_a_selection_is_short_and_selects_only_what_is_wanted(
    ranges: list[tuple[int, int | None]], limit: int
) -> None:
    pattern = selection(tuple(ranges), limit)
    assert len(pattern) <= limit
    assert b" " not in pattern
    expression = re.sub(rb"NR", b"n", pattern).decode().replace("||", " or ").replace("&&", " and ")
    for n in range(1, 501):
        wanted = any(first <= n <= (last or 500) if last != first else n == first for first, last in ranges)
        assert wanted or not eval(expression, {"n": n})  # our own pattern
