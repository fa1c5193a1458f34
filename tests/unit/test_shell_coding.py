"""What goes through terminals and shells arrives as it was, and checksums are those that guests print."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfbuild.errors import UsageError
from dfbuild.shell.coding import (
    Checksum,
    Coding,
    checksum_of,
    command_bytes,
    decode,
    digest,
    encode,
    escape,
    pieces,
    shortened,
)

CODINGS: tuple[Coding, ...] = ("base64", "uuencode")


@pytest.mark.parametrize("shell", ["sh", "bash", "busybox sh"])
def test_printf_of_any_shell_prints_what_was_escaped(shell: str) -> None:
    data = bytes(range(256)) + b"-n %s %% \\ 'quoted' $HOME `id` !!\n" + b"\x00" * 3 + b"123"
    script = b"printf '" + escape(data) + b"'"
    assert subprocess.run([*shell.split(), "-c", script], capture_output=True, check=True).stdout == data


@given(st.binary())
def test_an_escaped_word_is_harmless(data: bytes) -> None:
    word = escape(data)
    assert all(0x20 < byte < 0x7F for byte in word)
    assert not set(word) & set(b"'\"`$! -")


@given(st.binary().map(lambda data: data.replace(b"\0", b"")))
def test_the_printf_of_old_systems_prints_it_too(data: bytes) -> None:
    """4.4BSD's, to DragonFly 1.4: it resolves escapes first, of four digits if the first is 0, and then formats."""

    def resolved(match: re.Match[bytes]) -> bytes:
        return b"\n" if match[1] == b"n" else bytes((int(match[1], 8) & 0xFF,))

    plain = re.sub(rb"\\(n|0[0-7]{0,3}|[1-7][0-7]{0,2})", resolved, escape(data))
    assert b"%" not in plain.replace(b"%%", b"")
    assert plain.replace(b"%%", b"%") == data


@given(st.binary(max_size=600), st.integers(4, 100))
def test_pieces_are_short_and_make_the_whole(data: bytes, limit: int) -> None:
    cut = list(pieces(data, limit))
    assert b"".join(cut) == escape(data)
    assert all(len(piece) <= limit for piece in cut)
    # None cuts an escape in two: each is one by itself.
    assert b"".join(_unescape(piece) for piece in cut) == data


def _unescape(word: bytes) -> bytes:
    out = bytearray()
    at = 0
    while at < len(word):
        if word[at : at + 1] != b"\\":
            out.append(word[at])
            at += 2 if word[at : at + 2] == b"%%" else 1
        elif word[at + 1 : at + 2] == b"n":
            out.append(0x0A)
            at += 2
        else:
            out.append(int(word[at + 1 : at + 4], 8))
            at += 4
    return bytes(out)


@pytest.mark.parametrize("coding", CODINGS)
@given(data=st.binary(max_size=400))
def test_encoded_text_decodes_to_the_data(coding: Coding, data: bytes) -> None:
    text = encode(data, coding)
    assert decode(text, coding) == data
    assert all(len(line) <= 76 and line.isascii() for line in text.splitlines())


@pytest.mark.parametrize(
    ("coding", "encoder", "decoder"),
    [
        ("base64", "base64", "base64 -d"),
        ("base64", "busybox base64", "busybox base64 -d"),
        ("base64", "busybox uuencode -m -", None),
        ("uuencode", "busybox uuencode -", "busybox uudecode -o /dev/stdout"),
    ],
)
def test_the_systems_own_tools_agree(coding: Coding, encoder: str, decoder: str | None) -> None:
    if shutil.which(encoder.split()[0]) is None:
        pytest.skip(f"{encoder} is not installed")
    for data in (b"", b"x", bytes(range(256)) * 5):
        made = subprocess.run(encoder.split(), input=data, capture_output=True, check=True).stdout
        assert decode(made, coding) == data
        if decoder is not None:
            read = subprocess.run(decoder.split(), input=encode(data, coding), capture_output=True, check=True)
            assert read.stdout == data


@pytest.mark.parametrize(
    ("checksum", "program"),
    [("cksum", "cksum"), ("crc32", "busybox crc32"), ("md5", "md5sum"), ("sha256", "sha256sum")],
)
@settings(max_examples=20)
@given(data=st.binary(max_size=2000), cut=st.integers(0, 2000))
def test_checksums_are_those_of_the_programs(checksum: Checksum, program: str, data: bytes, cut: int) -> None:
    printed = subprocess.run(program.split(), input=data, capture_output=True, check=True).stdout
    whole = digest(checksum)
    whole.update(data[:cut])
    whole.update(data[cut:])
    assert printed.split()[0].decode() == whole.text() == checksum_of(data, checksum)


def test_a_command_with_a_nul_is_refused() -> None:
    with pytest.raises(UsageError, match="NUL"):
        command_bytes("echo a\0b")


def test_a_command_is_named_by_its_last_line() -> None:
    assert shortened("logger -t x 'begin'\nps -ax\n") == "`ps -ax`"
    assert shortened("y" * 100) == f"`{'y' * 60}…`"
