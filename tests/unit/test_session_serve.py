"""The control socket: sessions shared by several clients, whatever one of them does."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeGuest

from dfbuild import errors
from dfbuild.console.dialogue import Dialogue
from dfbuild.console.protocol import ConsoleClosed
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, DfbuildError, GuestCrashed, InfraError
from dfbuild.guest.protocol import Exit, State
from dfbuild.model import Cell, CrashReport, Shape, Variant, Verdict
from dfbuild.releases import load
from dfbuild.session import HeldSession, attach, boot
from dfbuild.session import serve as serving
from dfbuild.session.messages import Reply, Request, dump, error_of, parse, problem_of

UP = b"[    0.000000] Linux version 6.1\r\n\r\nreference login: "
CELL = Cell(Variant("reference", "gcc-12", "on", "smp"), Shape("up"))


def soon(seconds: float = 20.0) -> Deadline:
    return Deadline.after(seconds)


@pytest.fixture
def guest() -> FakeGuest:
    return FakeGuest(UP)


@pytest.fixture
def held(guest: FakeGuest, tmp_path: Path) -> Iterator[HeldSession]:
    with boot(guest, load("reference"), CELL, tmp_path, soon()) as session:
        yield session


def raw(held: HeldSession) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(str(held.manifest.control))
    return client


def test_a_client_sees_what_the_holder_sees(held: HeldSession) -> None:
    with attach(held.manifest_path) as session:
        assert session.manifest == held.manifest
        assert session.stages == held.stages
        assert session.console.read(0) == UP
    with attach(held.manifest) as session:
        assert session.console.size == len(UP)


def test_a_client_commands_the_guest(held: HeldSession, guest: FakeGuest) -> None:
    with attach(held.manifest_path) as session:
        session.pause(soon())
        assert guest.state is State.PAUSED
        with pytest.raises(InfraError, match="the guest is paused"):
            session.pause(soon())
        session.resume(soon())
        assert session.diagnose(soon()) == guest.diagnosis
        assert guest.calls == ["pause", "resume", "diagnose"]


def test_stop_ends_it_for_everybody(held: HeldSession, guest: FakeGuest) -> None:
    with attach(held.manifest_path) as one, attach(held.manifest_path) as two:
        assert one.stop(soon()) == Exit(0, "quit")
        assert two.stop(soon()) == Exit(0, "quit")
        for session in (one, two):
            with pytest.raises(ConsoleClosed):
                session.console.wait(10**9, soon())
    assert guest.calls.count("stop") == 1
    assert held.console.closed


def test_closing_a_client_leaves_the_guest_alone(held: HeldSession, guest: FakeGuest) -> None:
    attach(held.manifest_path).close()
    assert guest.state is State.RUNNING
    attach(held.manifest_path).close()


def test_reset_forgets_the_crash_for_everybody(held: HeldSession, guest: FakeGuest) -> None:
    with attach(held.manifest_path) as session:
        guest.print(b"\r\n[    9.000000] Kernel panic - not syncing: x\r\n")
        with pytest.raises(GuestCrashed):
            session.console.wait(10**9, soon())
        assert held.final_crash(soon()) == session.console.crash
        session.reset(soon())
        size = held.console.size
        guest.print(b"booting")
        assert session.console.wait(size, soon()) > size
        assert held.console.crash is None and session.console.crash is None


def test_dialogues_of_two_clients_hear_the_same(held: HeldSession, guest: FakeGuest) -> None:
    with attach(held.manifest_path) as one, attach(held.manifest_path) as two:
        dialogues = [Dialogue(one.console), Dialogue(two.console), Dialogue(held.console)]
        dialogues[0].send_line("root", soon())
        assert guest.typed(5) == b"root\r"
        guest.print(b"root\r\n# ")
        assert {dialogue.expect(["# "], soon()).start for dialogue in dialogues} == {len(UP) + 6}


def test_attaching_to_nothing(tmp_path: Path, held: HeldSession) -> None:
    with pytest.raises(InfraError, match="no guest is up"):
        attach(tmp_path / "nothing.json")
    manifest = held.manifest
    held.close()
    with pytest.raises(InfraError, match="gone"):
        attach(manifest)


def test_a_manifest_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "guest.json").write_text('{"name": 3}')
    with pytest.raises(InfraError, match="not a Manifest"):
        attach(tmp_path / "guest.json")


def test_the_holders_end_is_the_consoles(held: HeldSession, guest: FakeGuest) -> None:
    with attach(held.manifest_path) as session:
        guest.print(b"last words")
        held.close()
        with pytest.raises(ConsoleClosed):
            session.console.wait(10**9, soon())
        assert session.console.read(len(UP)) == b"last words"
        with pytest.raises((InfraError, ConsoleClosed)):
            session.console.send(b"x", soon())
        with pytest.raises(InfraError, match="gone"):
            session.diagnose(soon())


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00\xff\n",
        b"[]\n",
        b'{"id": 1, "operation": "explode", "seconds": 1}\n',
        b'{"id": "x"}\n',
        b"a" * (2 << 20) + b"\n",
    ],
    ids=["bytes", "list", "operation", "field", "endless"],
)
def test_nonsense_ends_only_its_own_connection(held: HeldSession, nonsense: bytes) -> None:
    with attach(held.manifest_path) as other, raw(held) as client:
        try:
            client.sendall(nonsense)
            assert client.recv(100) == b""
        except ConnectionError:
            pass
        assert other.diagnose(soon())


def test_what_is_typed_must_be_base64(held: HeldSession) -> None:
    with raw(held) as client:
        client.sendall(dump(Request(7, "send", 5.0, "not base64!")))
        reply = parse(Reply, client.makefile("rb").readline())
        assert reply.id == 7 and reply.problem is not None and "base64" in reply.problem.message


def test_a_client_that_never_reads_holds_up_nobody(held: HeldSession, guest: FakeGuest) -> None:
    with raw(held) as deaf, attach(held.manifest_path) as session:
        deaf.sendall(dump(Request(1, "watch", 5.0)))
        # A request that is never answered to the end, over and over, until nothing more fits.
        deaf.settimeout(0.2)
        with pytest.raises(TimeoutError):
            while True:
                deaf.sendall(dump(Request(2, "diagnose", 5.0)) * 100)
        guest.print(b"x" * 1_000_000)
        offset = len(UP)
        while offset < len(UP) + 1_000_000:
            offset = session.console.wait(offset, soon())
        assert session.diagnose(soon()) == guest.diagnosis


def test_other_users_are_turned_away(held: HeldSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.os, "geteuid", lambda: 12345)
    with pytest.raises(InfraError, match="gone"):
        attach(held.manifest_path)


def test_there_is_an_end_to_clients(held: HeldSession) -> None:
    clients = [attach(held.manifest_path) for _ in range(serving._CLIENTS)]
    with pytest.raises(InfraError):
        attach(held.manifest_path)
    for client in clients:
        client.close()


def test_a_deadline_crosses_the_socket(held: HeldSession) -> None:
    with attach(held.manifest_path) as session, pytest.raises(DeadlineExceeded):
        session.console.send(b"z" * (4 << 20), soon(0.2))


def test_several_requests_at_once(held: HeldSession, guest: FakeGuest) -> None:
    """A client whose typing is stuck can still ask for other things."""
    with attach(held.manifest_path) as session:

        def type_on() -> None:
            with pytest.raises(DfbuildError):
                session.console.send(b"z" * (4 << 20), soon())

        stuck = threading.Thread(target=type_on)
        stuck.start()
        assert session.diagnose(soon()) == guest.diagnosis
        session.stop(soon())
        stuck.join(20)
        assert not stuck.is_alive()


@pytest.mark.parametrize(
    "error",
    [
        errors.InfraError("a", hint="b"),
        errors.MissingTool("a"),
        errors.UsageError("a", hint="b"),
        errors.GuestHung("a", hint="b"),
        errors.BootFailed("a"),
        errors.DeadlineExceeded("a"),
        errors.Cancelled("a"),
        ConsoleClosed("a"),
        GuestCrashed(CrashReport("title", "signature", Verdict.HANG, 17, "excerpt")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_the_socket(error: DfbuildError) -> None:
    reply = parse(Reply, dump(Reply(1, problem=problem_of(error))))
    assert reply.problem is not None
    back = error_of(reply.problem)
    assert type(back) is type(error)
    assert (back.message, back.hint) == (error.message, error.hint)
    if isinstance(error, GuestCrashed):
        assert isinstance(back, GuestCrashed) and back.report == error.report


def test_messages_are_single_lines() -> None:
    line = dump(Reply(1, text="one\ntwo"))
    assert line.count(b"\n") == 1 and json.loads(line)["text"] == "one\ntwo"
