"""The network suite's programs, run here: strict C89 for every compiler, and honest counters."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfbuild.deadline import Deadline
from dfbuild.releases import load
from dfbuild.shell.protocol import Answer
from dfbuild.suites.probe import Report, parse
from dfbuild.suites.run import DIRECTORY

PROGRAMS = ("netserve", "netdial", "netrate")
TOOLCHAINS = load("reference").toolchains
HOME = "127.0.0.1"


@pytest.fixture(scope="module", params=TOOLCHAINS)
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of programs by one of the compilers, with no warning tolerated."""
    directory = tmp_path_factory.mktemp(request.param)
    compilers = []
    for name in PROGRAMS:
        argv = [
            TOOLCHAINS[request.param].cc,
            *("-std=c89", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2", "-fstack-protector-all"),
            *(str(DIRECTORY / "probes" / f"{name}.c"), "-o", str(directory / name)),
        ]
        compilers.append(subprocess.Popen(argv))
    assert [compiler.wait() for compiler in compilers] == [0] * len(compilers)
    return directory


def run(directory: Path, name: str, *arguments: object) -> Report:
    # A pipe: it would stay open if a program left something behind that holds it.
    done = subprocess.run([directory / name, *map(str, arguments)], stdout=subprocess.PIPE, timeout=30, check=False)
    return parse(name, Answer(name, done.returncode, done.stdout))


class Server:
    """`netserve`, as it is seen by who connects."""

    def __init__(self, report: Report) -> None:
        (self.pid,) = report.integers("pid", 1)
        self.echo, self.discard, self.stall, self.status = report.integers("ports", 4)

    def connect(self, port: int) -> socket.socket:
        return socket.create_connection((HOME, port), timeout=20)

    def counters(self) -> Report:
        with self.connect(self.status) as connection, connection.makefile("rb") as file:
            return parse("netserve", Answer("status", 0, file.read()))


@pytest.fixture
def server(programs: Path) -> Iterator[Server]:
    started = Server(run(programs, "netserve", HOME, 60))
    yield started
    os.kill(started.pid, signal.SIGKILL)


def reset(connection: socket.socket) -> None:
    """End a connection with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_echo_and_discard_count_every_byte(server: Server) -> None:
    data = os.urandom(200_000)
    with server.connect(server.echo) as echo, server.connect(server.discard) as discard:
        sender = threading.Thread(target=echo.sendall, args=(data,))
        sender.start()
        with echo.makefile("rb") as file:
            assert file.read(len(data)) == data
        sender.join()
        discard.sendall(b"x" * 12345)
        discard.shutdown(socket.SHUT_WR)
        assert discard.recv(1) == b""
    counters = server.counters()
    assert counters.integers("accepted", 3) == (1, 1, 0)
    assert counters.integers("bytes", 3) == (200_000, 12345, 0)
    assert counters["refused"] == "0"


def test_resets_are_counted_and_ends_are_not(server: Server) -> None:
    for port, how in ((server.echo, reset), (server.discard, reset), (server.stall, reset)):
        how(server.connect(port))
    server.connect(server.echo).close()
    assert server.counters().integers("resets", 3) == (1, 1, 1)


def test_who_stalls_reads_nothing(server: Server) -> None:
    with server.connect(server.stall) as connection:
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                connection.send(bytes(65536))
    assert server.counters().integers("bytes", 3) == (0, 0, 0)


def test_hundreds_at_once(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(server.connect(server.discard)) for _ in range(300)]
        for connection in held:
            connection.sendall(b"1")
            connection.shutdown(socket.SHUT_WR)
        assert [connection.recv(1) for connection in held] == [b""] * 300
        counters = server.counters()
    assert counters.integers("accepted", 3)[1] == counters.integers("bytes", 3)[1] == 300


def test_it_ends_by_itself(programs: Path) -> None:
    (pid,) = run(programs, "netserve", HOME, 1).integers("pid", 1)
    process = os.pidfd_open(pid)
    try:
        Deadline.after(20).select(process, what="netserve's end")
    finally:
        os.close(process)


@pytest.mark.parametrize("bind", [0, 1])
def test_dial_names_the_ports_that_it_dials_from(programs: Path, bind: int) -> None:
    with contextlib.ExitStack() as stack:
        first = _two_ports(stack)
        report = run(programs, "netdial", HOME, first[0].getsockname()[1], 6, 2, bind)
        seen = [listener.accept() for _ in range(3) for listener in first]
        for connection, _ in seen:
            connection.close()
    assert report.integers("local", 6) == tuple(address[1] for _, address in seen)
    assert report["refused"] == "0"


def _two_ports(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """Listening sockets on two ports that follow one another."""
    while True:
        one = stack.enter_context(socket.create_server((HOME, 0)))
        with contextlib.suppress(OSError, OverflowError):
            return one, stack.enter_context(socket.create_server((HOME, one.getsockname()[1] + 1)))


def test_dial_counts_what_is_refused(programs: Path) -> None:
    with socket.create_server((HOME, 0)) as closed:
        port = closed.getsockname()[1]
    assert run(programs, "netdial", HOME, port, 3, 1, 0)["refused"] == "3"


def test_rates(programs: Path) -> None:
    for connections in (1, 8):
        assert min(run(programs, "netrate", connections, 30, 2).numbers("rate", 2)) > 0


@pytest.mark.parametrize("arguments", [("netrate", 0, 1, 1), ("netrate", 65, 1, 1), ("netserve",), ("netdial", 1)])
def test_wrong_arguments_are_no_finding(programs: Path, arguments: tuple[object, ...]) -> None:
    words = [str(programs / str(arguments[0])), *map(str, arguments[1:])]
    done = subprocess.run(words, capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"usage" in done.stderr
