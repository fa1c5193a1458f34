"""What only SSH has: proof of who answers, algorithms, and connections that break or fall silent."""

from __future__ import annotations

import errno
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from patience import AT_ONCE
from pty_console import PtyConsole
from ssh_server import SshServer

from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, GuestCrashed, UsageError
from dfbuild.model import Login
from dfbuild.releases.schema import Shell as ShellData
from dfbuild.releases.schema import SshShell as SshData
from dfbuild.shell import HostKeyMismatch, LoginRefused, ShellLost
from dfbuild.shell.ssh import SshShell


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with closing(SshServer(tmp_path_factory.mktemp("ssh"))) as server:
        yield server


@pytest.fixture
def console(tmp_path: Path) -> Iterator[PtyConsole]:
    with closing(PtyConsole(tmp_path, ["dash", "-i"])) as console:
        yield console


@pytest.fixture
def opening(server: SshServer) -> Iterator[Callable[..., SshShell]]:
    with ExitStack() as stack:

        def opening(
            login: Login | None = None,
            data: SshData | None = None,
            console: PtyConsole | None = None,
            deadline: Deadline | None = None,
            address: tuple[str, int] | None = None,
        ) -> SshShell:
            shell = SshShell.open(
                address or server.address,
                login or server.login,
                ShellData(ssh=data or SshData()),
                deadline or soon(),
                console=console,
            )
            stack.callback(shell.close)
            return shell

        yield opening


Opening = Callable[..., SshShell]


def soon() -> Deadline:
    return Deadline.after(20)


def test_a_wrong_host_key_is_refused(opening: Opening, server: SshServer) -> None:
    with pytest.raises(HostKeyMismatch, match="another machine"):
        opening(replace(server.login, host_key=server.another_key()))


def test_a_pinned_key_of_a_kind_that_the_server_has_not(opening: Opening, server: SshServer) -> None:
    with pytest.raises(HostKeyMismatch):
        opening(replace(server.login, host_key="ecdsa-sha2-nistp256 AAAAE2VjZHNh"))


@pytest.mark.parametrize("key", ["", "  ", "ssh-ed25519"])
def test_a_guest_without_a_pinned_key_is_refused(opening: Opening, server: SshServer, key: str) -> None:
    with pytest.raises(HostKeyMismatch):
        opening(replace(server.login, host_key=key))


def test_a_user_who_is_not_let_in(opening: Opening, server: SshServer) -> None:
    with pytest.raises(LoginRefused):
        opening(replace(server.login, key=server.directory / "unknown_key"))
    with pytest.raises(LoginRefused):
        opening(replace(server.login, key=None, password="guess"))
    with pytest.raises(LoginRefused):
        opening(replace(server.login, key=None))


def test_a_key_file_that_is_none(opening: Opening, server: SshServer) -> None:
    for name in ("none", "log"):
        with pytest.raises(UsageError, match="SSH key"):
            opening(replace(server.login, key=server.directory / name))


def test_the_releases_algorithms_are_spoken(opening: Opening) -> None:
    shell = opening(data=SshData(ciphers=("aes256-ctr",), macs=("hmac-sha1",)))
    assert shell.run("echo yes", soon()).text == "yes"
    assert shell.algorithms == ("aes256-ctr", "hmac-sha1")


@pytest.mark.parametrize(
    "data",
    [
        SshData(ciphers=("rot13",)),
        SshData(macs=("none",)),
        SshData(kex_algorithms=("x",)),
        SshData(key_algorithms=("ssh-dss",)),
    ],
)
def test_algorithms_that_the_library_does_not_speak(opening: Opening, data: SshData) -> None:
    with pytest.raises(UsageError, match="does not speak"):
        opening(data=data)


def test_no_common_algorithms(opening: Opening) -> None:
    with pytest.raises(ShellLost, match="no common"):
        opening(data=SshData(ciphers=("aes128-gcm@openssh.com",)))


# ── readiness ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_guest_whose_server_starts_later(opening: Opening, server: SshServer) -> None:
    """As QEMU does it: the connection is taken at once, and given up while nobody listens in the guest."""
    with socket.create_server(("127.0.0.1", 0)) as front:
        refused = 0

        def forward() -> None:
            nonlocal refused
            for _ in range(4):
                front.accept()[0].close()
                refused += 1
            inside, _ = front.accept()
            outside = socket.create_connection(server.address)
            for source, sink in ((inside, outside), (outside, inside)):
                threading.Thread(target=pump, args=(source, sink), daemon=True).start()

        threading.Thread(target=forward, daemon=True).start()
        shell = opening(address=front.getsockname())
        assert refused == 4
        assert shell.run("echo up", soon()).text == "up"


def pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def test_a_server_that_never_says_its_name(opening: Opening) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        before = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="SSH server"):
            opening(address=silent.getsockname(), deadline=Deadline.after(1))
        assert time.monotonic() - before < AT_ONCE


@pytest.mark.parametrize(
    "packet",
    [
        b"\x14" + bytes(16) + b"\0\0\0\2\xff\xfe" + bytes(40),  # a name list that is no text
        b"\x14" + bytes(16) + b"\x7f\xff\xff\xff",
        b"",
        b"\x01\0\0\0\2\0\0\0\2\xff\xfe\0\0\0\0",  # a farewell that is none
    ],
    ids=["name list", "length", "nothing", "farewell"],
)
def test_a_server_that_speaks_nonsense(opening: Opening, packet: bytes) -> None:
    padding = 12 - (5 + len(packet)) % 8
    with socket.create_server(("127.0.0.1", 0)) as broken:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = broken.accept()
                    with connection:
                        whole = bytes([padding]) + packet + bytes(padding)
                        connection.sendall(b"SSH-2.0-broken\r\n" + len(whole).to_bytes(4, "big") + whole)
                        connection.recv(1 << 16)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(DeadlineExceeded, match="SSH login"):
            opening(address=broken.getsockname(), deadline=Deadline.after(2))


def test_a_server_that_falls_silent_behind_its_name(opening: Opening) -> None:
    with socket.create_server(("127.0.0.1", 0)) as half:

        def answer() -> None:
            connection, _ = half.accept()
            connection.sendall(b"SSH-2.0-half\r\n")
            connection.recv(1)
            stop.wait(20)

        stop = threading.Event()
        threading.Thread(target=answer, daemon=True).start()
        before = time.monotonic()
        try:
            with pytest.raises(DeadlineExceeded):
                opening(address=half.getsockname(), deadline=Deadline.after(1))
        finally:
            stop.set()
        assert time.monotonic() - before < AT_ONCE


def test_cancelling_and_a_crash_end_the_wait_for_a_server(opening: Opening, console: PtyConsole) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cancel = Cancel()
        threading.Timer(0.3, cancel.set).start()
        before = time.monotonic()
        with pytest.raises(Cancelled):
            opening(address=silent.getsockname(), deadline=Deadline.after(60, cancel=cancel))
        threading.Timer(0.3, console.panic).start()
        with pytest.raises(GuestCrashed):
            opening(address=silent.getsockname(), deadline=Deadline.after(60), console=console)
        assert time.monotonic() - before < AT_ONCE


# ── when the guest dies ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_connection_that_breaks_ends_the_command_for_good(opening: Opening, server: SshServer) -> None:
    shell = opening()
    threading.Timer(0.5, server.kill_connections).start()
    before = time.monotonic()
    with pytest.raises(ShellLost, match="broke"):
        shell.run("sleep 1000", Deadline.after(60))
    assert time.monotonic() - before < AT_ONCE
    with pytest.raises(ShellLost):
        shell.run("true", soon())
    assert opening().run("echo again", soon()).text == "again"


def once_there(path: Path, call: Callable[[], object]) -> None:
    """Call `call` in the background as soon as there is something in the file `path`."""

    def watch() -> None:
        while not path.exists() or not path.stat().st_size:
            time.sleep(0.01)
        call()

    threading.Thread(target=watch, daemon=True).start()


def sleeping(pid: Path) -> str:
    """A command that does not end, and tells its process number first."""
    return f"echo $$ >{pid}; sleep 3000; sleep 3000"


def assert_gone(shell: SshShell, pid: Path) -> None:
    assert pid.stat().st_size
    assert shell.run(f"while kill -0 $(cat {pid}) 2>/dev/null; do sleep 0.1; done", soon()).status == 0


@pytest.mark.parametrize("interruption", ["deadline", "cancellation"])
def test_a_command_behind_an_interrupted_one_has_a_connection_of_its_own(
    opening: Opening, server: SshServer, interruption: str
) -> None:
    # A dropbear may die of an end that it learns of at the wrong moment (github.com/mkj/dropbear/issues/321).
    shell = opening()
    pid = server.directory / f"interrupted-{interruption}"
    cancel = Cancel()
    if interruption == "cancellation":
        once_there(pid, cancel.set)
    with pytest.raises((DeadlineExceeded, Cancelled)):
        shell.run(sleeping(pid), Deadline.after(3 if interruption == "deadline" else 60, cancel=cancel))
    server.kill_connections()
    assert shell.run("echo again", soon()).text == "again"
    assert_gone(shell, pid)
    server.kill_connections()
    with pytest.raises(ShellLost):
        shell.run("true", soon())


def test_what_could_not_be_ended_over_a_stopped_connection_is_ended_over_the_next(
    opening: Opening, server: SshServer
) -> None:
    shell = opening()
    pid = server.directory / "stopped"
    once_there(pid, server.stop_connections)
    with pytest.raises(DeadlineExceeded):
        shell.run(sleeping(pid), Deadline.after(4))
    assert_gone(shell, pid)


def test_commands_are_ended_and_followed_by_others_on_a_slow_way(opening: Opening, server: SshServer) -> None:
    pid = server.directory / "slow"
    with closing(SlowWay(server.address, 1.2)) as way:
        shell = opening(address=way.address, deadline=Deadline.after(60))
        cancel = Cancel()
        once_there(pid, cancel.set)
        with pytest.raises(Cancelled):
            shell.run(sleeping(pid), Deadline.after(60, cancel=cancel))
        assert shell.run("echo again", Deadline.after(60)).text == "again"
    assert_gone(opening(), pid)


class SlowWay:
    """A port on 127.0.0.1 behind which is that of `target`, whose answers come `delay` seconds late."""

    def __init__(self, target: tuple[str, int], delay: float) -> None:
        self._target, self._delay = target, delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                for source, sink, delay in ((near, far, 0.0), (far, near, self._delay)):
                    held: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                    threading.Thread(target=self._read, args=(source, held, delay), daemon=True).start()
                    threading.Thread(target=self._write, args=(sink, held), daemon=True).start()

    @staticmethod
    def _read(source: socket.socket, held: queue.SimpleQueue[tuple[float, bytes]], delay: float) -> None:
        data = b"?"
        while data:
            try:
                data = source.recv(1 << 16)
            except OSError:
                data = b""
            held.put((time.monotonic() + delay, data))

    @staticmethod
    def _write(sink: socket.socket, held: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        with suppress(OSError):
            while True:
                due, data = held.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)


@pytest.mark.parametrize("what", ["command", "copy"])
def test_a_crash_on_the_console_ends_it_at_once(
    opening: Opening, console: PtyConsole, tmp_path: Path, what: str
) -> None:
    shell = opening(console=console)
    large = tmp_path / "large"
    large.write_bytes(b"x")
    os.truncate(large, 8 << 30)
    crashed: list[float] = []

    def crash() -> None:
        crashed.append(time.monotonic())
        console.panic()

    threading.Timer(0.5, crash).start()
    with pytest.raises(GuestCrashed, match="panic: test"):
        if what == "command":
            shell.run("sleep 1000", Deadline.after(60))
        else:
            shell.put(large, "copy", Deadline.after(60))
    assert time.monotonic() - crashed[0] < AT_ONCE
    with pytest.raises(GuestCrashed):
        shell.run("true", soon())


def test_the_consoles_end_ends_it_at_once(opening: Opening, console: PtyConsole) -> None:
    shell = opening(console=console)
    threading.Timer(0.5, console.kill).start()
    before = time.monotonic()
    with pytest.raises(ShellLost, match="ended"):
        shell.run("sleep 1000", Deadline.after(60))
    assert time.monotonic() - before < AT_ONCE


@pytest.mark.parametrize("what", ["command", "copy"])
def test_a_guest_that_falls_silent_hangs_nobody(
    opening: Opening, server: SshServer, tmp_path: Path, what: str
) -> None:
    """Its CPUs have stopped; TCP still takes what is sent."""
    shell = opening()
    shell.run("true", soon())
    large = tmp_path / "large"
    large.write_bytes(bytes(20 << 20))
    stopped, server.silent = server.stop_connections(), True
    try:
        before = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            if what == "command":
                shell.run("true", Deadline.after(1))
            else:
                shell.put(large, "copy", Deadline.after(1))
        with pytest.raises((DeadlineExceeded, ShellLost)):
            shell.run("true", Deadline.after(1))
        shell.close()
        assert time.monotonic() - before < 3 * AT_ONCE
    finally:
        server.silent = False
        for pid in stopped:
            with suppress(ProcessLookupError):  # A command that had just ended.
                os.kill(pid, signal.SIGCONT)


def test_a_command_that_kills_its_own_session(opening: Opening) -> None:
    shell = opening()
    with pytest.raises(ShellLost, match="session was killed"):
        shell.run("kill -9 $PPID; sleep 1", soon())
    assert shell.run("echo alive", soon()).text == "alive"


def test_many_commands_one_after_the_other(opening: Opening) -> None:
    shell = opening()
    assert [shell.run(f"exit {n}", soon()).status for n in range(100)] == list(range(100))


def test_output_is_told_as_it_comes(opening: Opening, server: SshServer) -> None:
    shell, go, said = opening(), server.directory / "go", bytearray()
    command = f"echo first; while ! test -f {go}; do sleep 0.1; done; echo second; exit 3"

    def sink(data: bytes) -> None:
        said.extend(data)
        go.touch()

    assert shell.stream(command, soon(), sink) == 3
    assert said == b"first\nsecond\n"


def test_who_cannot_take_the_output_ends_the_command(opening: Opening, server: SshServer) -> None:
    shell, pid = opening(), server.directory / "unheard"

    def sink(_: bytes) -> None:
        raise BrokenPipeError(errno.EPIPE, "nobody reads")

    with pytest.raises(BrokenPipeError):
        shell.stream(f"echo $$ >{pid}; echo first; {sleeping(pid)}", soon(), sink)
    assert_gone(opening(), pid)


def test_large_files(opening: Opening, tmp_path: Path) -> None:
    shell = opening()
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(1 << 20) * 16)
    source.chmod(0o751)
    shell.put(source, "large", Deadline.after(60))
    shell.get("large", back, Deadline.after(60))
    assert back.read_bytes() == source.read_bytes()
    assert back.stat().st_mode & 0o777 == 0o751
