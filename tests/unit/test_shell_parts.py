"""Finding the prompt, the agent's text, copying, algorithms, and which shell a session offers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.deadline import Deadline
from dfbuild.errors import UsageError
from dfbuild.model import Login
from dfbuild.releases import load
from dfbuild.releases.schema import SerialShell, Shell, SshShell
from dfbuild.session.protocol import Session
from dfbuild.shell import ShellLost, open_shell
from dfbuild.shell.agent import LOADER, READY, agent, loader_pieces
from dfbuild.shell.connect import pinned_first, unspoken, unspoken_signatures
from dfbuild.shell.copy import Header, Incoming, get_script, mode_of, put_script
from dfbuild.shell.frames import HELLO
from dfbuild.shell.login import Prompts, Seen


def said(text: bytes) -> bytes:
    return bytes(byte | 0x80 for byte in text + b"\n")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (b"", None),
        (b"\r\nreference login: ", Seen.LOGIN),
        (b"login: root\r\nPassword: ", Seen.PASSWORD),
        (b"login: root\r\nLast login: Tue Nov 24 03:22:01 on ttyS0\r\n", Seen.LOGIN),
        (b"Last login: Tue Nov 24 03:22:01 on ttyS0\r\n", None),
        (b"Last login: Tue Nov 24\r\n# ", Seen.PROMPT),
        (b"Password: \r\nLogin incorrect\r\nlogin: ", Seen.LOGIN),
        (b"login: [   12.345678] usb 1-1: new device\r\n", Seen.LOGIN),
        (b"# " + said(HELLO), Seen.AGENT),
        (b"# login: " + said(READY), Seen.READY),
        (b"bytes of others " + said(b"noREADY"), None),
    ],
)
def test_the_last_prompt_is_what_the_console_waits_for(text: bytes, seen: Seen | None) -> None:
    assert Prompts.of(SerialShell()).last(text) == seen


def test_the_loader_fits_old_terminals_and_no_prompt_is_seen_in_its_echo() -> None:
    assert len(LOADER) < 250
    assert Prompts.of(SerialShell()).last(LOADER.encode()) is None


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        (b"\r\nreference login: ", True),
        (b"panic: not really # $ > login: \r\n", False),
        (b"login: \r\n[    1.0] eth0: up\r\n", False),
        (b"[    1.0] eth0: up\r\nlogin: ", True),
        (b"", False),
    ],
)
def test_only_a_prompt_that_waits_counts_as_a_refusal(text: bytes, asks: bool) -> None:
    assert Prompts.of(SerialShell()).asks(text) is asks
    # csh expands `!` even between quotes, and ends a quotation at the end of the line.
    assert "!" not in LOADER
    assert LOADER.count("'") == 2
    assert LOADER.count("\n") == 1


def test_the_agents_text_is_one_line_that_shells_take() -> None:
    text = agent(Shell(), "0a1b2c3d")
    assert b"\n" not in text
    assert b"@" not in text
    pieces = loader_pieces(text, 170)
    assert pieces[-1] == b".\n"
    assert b"".join(piece.removesuffix(b"\n") for piece in pieces[:-1]) == text
    for shell in ("sh", "busybox sh", "bash"):
        subprocess.run([*shell.split(), "-n", "-c", text.decode()], check=True)


@given(st.integers(0, 0o7777))
def test_the_mode_of_a_listing(mode: int) -> None:
    letters = ["rwx"[i % 3] if mode & (0o400 >> i) else "-" for i in range(9)]
    for bit, place, letter in ((0o4000, 2, "s"), (0o2000, 5, "s"), (0o1000, 8, "t")):
        if mode & bit:
            letters[place] = letter if letters[place] == "x" else letter.upper()
    assert mode_of(f"-{''.join(letters)}.".encode()) == mode
    assert mode_of(b"ls: no such file") is None


@given(st.binary(max_size=200), st.lists(st.integers(1, 30), min_size=1))
def test_a_header_and_the_bytes_behind_it(data: bytes, sizes: list[int]) -> None:
    stream = b"-rwxr-x---\n12345 678\n" + data
    out = bytearray()
    incoming = Incoming(out.extend)
    turn = 0
    while stream:
        size = sizes[turn % len(sizes)]
        incoming.feed(stream[:size])
        stream = stream[size:]
        turn += 1
    assert bytes(out) == data
    assert incoming.header is not None
    assert (incoming.header.mode, incoming.header.checksum) == (0o750, "12345")


def test_nothing_that_comes_from_a_guest_runs_as_somebody_else() -> None:
    header = Header.parse(b"-rwsr-sr-t\n12345\n")
    assert header is not None and header.mode == 0o755


@pytest.mark.parametrize("shell", ["sh", "busybox sh"])
@pytest.mark.parametrize("name", ["plain", "with space", 'it\'s "quoted" $HOME `id`\nand more', "-n"])
def test_copying_scripts_take_any_name(tmp_path: Path, shell: str, name: str) -> None:
    put = put_script("cat", f"./{name}", 0o100750, "cksum", "ff")
    done = subprocess.run([*shell.split(), "-c", put], input=b"a\0b", capture_output=True, cwd=tmp_path, check=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).stat().st_mode & 0o7777 == 0o750

    got = subprocess.run(
        [*shell.split(), "-c", get_script(f"./{name}", "cksum")], capture_output=True, cwd=tmp_path
    )
    out = bytearray()
    incoming = Incoming(out.extend)
    incoming.feed(got.stdout)
    assert out == b"a\0b"
    assert incoming.header is not None
    assert incoming.header.checksum == done.stdout.split()[0].decode()


def test_what_cannot_be_copied_leaves_nothing_behind(tmp_path: Path) -> None:
    for script in (
        put_script("cat", str(tmp_path), 0o644, "cksum", "ff"),
        put_script("false", str(tmp_path / "new"), 0o644, "cksum", "ff"),
        get_script(str(tmp_path / "none"), "cksum"),
    ):
        assert subprocess.run(["sh", "-c", script], input=b"x", capture_output=True).returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_the_pinned_kind_of_key_is_asked_for_first() -> None:
    known = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")
    assert pinned_first(known, "ssh-rsa")[:2] == ("rsa-sha2-512", "rsa-sha2-256")
    assert pinned_first(known, "ecdsa-sha2-nistp256")[0] == "ecdsa-sha2-nistp256"
    assert sorted(pinned_first(known, "ssh-dss")) == sorted(known)


def test_a_session_without_ssh_says_so() -> None:
    session = cast(Session, SimpleNamespace(manifest=SimpleNamespace(login=Login(), ssh=None)))
    with pytest.raises(ShellLost, match="no SSH"):
        open_shell(session, load("reference"), "ssh", Deadline.after(1))
    with pytest.raises(UsageError, match="telnet"):
        open_shell(session, load("reference"), "telnet", Deadline.after(1))


@pytest.mark.parametrize("name", ["1.0", "1.2", "1.4"])
def test_servers_of_2004_get_signatures_that_they_know(name: str) -> None:
    """OpenSSH before 7.2 knows RSA with SHA-1 only, and says nothing of what it knows."""
    ssh = load(name).shell.ssh
    assert ssh is not None
    assert unspoken_signatures(ssh) == ["rsa-sha2-512", "rsa-sha2-256"]
    assert unspoken_signatures(SshShell()) == []


@pytest.mark.parametrize("name", ["1.0", "1.2", "1.4"])
def test_the_library_speaks_with_every_release(name: str) -> None:
    ssh = load(name).shell.ssh
    assert ssh is not None
    assert unspoken(ssh) == ()
    assert unspoken(ssh.model_copy(update={"macs": ("none",)})) == ("none",)
