"""The synchronous face of QMP, against a monitor of our own at the other end of a socket pair."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded
from dfbuild.guest.qmp import Qmp, QmpGone, QmpRefused

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}
Reply = Callable[[dict[str, object]], dict[str, object] | None]


def soon() -> Deadline:
    return Deadline.after(10)


class Monitor:
    """QEMU's end: answers commands out of a table; None in the table hangs up, a missing one never answers."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.answers: dict[str, object] = {"qmp_capabilities": {}}
        self.asked: list[dict[str, object]] = []
        self._heard = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def until(self, command: str) -> object:
        """The id of the last command, once that is `command`."""
        with self._heard:
            assert self._heard.wait_for(lambda: self.asked[-1:] and self.asked[-1]["execute"] == command, 10)
            return self.asked[-1]["id"]

    def say(self, message: object) -> None:
        self._end.sendall(json.dumps(message).encode() + b"\r\n")

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # the test closed the socket
            self._serve()

    def _serve(self) -> None:
        self.say(GREETING)
        for message in self._messages():
            with self._heard:
                self.asked.append(message)
                self._heard.notify_all()
            command = message["execute"]
            if command not in self.answers:
                continue
            answer = self.answers[str(command)]
            if answer is None:
                self._end.shutdown(socket.SHUT_RDWR)
                return
            key = "error" if isinstance(answer, dict) and "class" in answer else "return"
            self.say({key: answer, **({"id": message["id"]} if "id" in message else {})})

    def _messages(self) -> Iterator[dict[str, object]]:
        """JSON objects as they come: the library ends none with a newline."""
        text = ""
        while received := self._end.recv(65536):
            text += received.decode()
            while text := text.lstrip():
                try:
                    message, end = json.JSONDecoder().raw_decode(text)
                except json.JSONDecodeError:
                    break
                text = text[end:]
                yield message


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def monitor(ends: tuple[socket.socket, socket.socket]) -> Monitor:
    return Monitor(ends[1])


@pytest.fixture
def qmp(ends: tuple[socket.socket, socket.socket], monitor: Monitor) -> Iterator[Qmp]:
    connection = Qmp(ends[0], soon())
    yield connection
    connection.close(soon())


def test_a_command_returns_what_it_returns(qmp: Qmp, monitor: Monitor) -> None:
    monitor.answers["human-monitor-command"] = "text\r\n"
    assert qmp.human("info usernet", soon()) == "text\r\n"
    assert monitor.asked[-1]["arguments"] == {"command-line": "info usernet"}


def test_a_refusal_carries_qemus_words(qmp: Qmp, monitor: Monitor) -> None:
    monitor.answers["cont"] = {"class": "GenericError", "desc": "not that"}
    with pytest.raises(QmpRefused, match="not that"):
        qmp.execute("cont", soon())


def test_a_pending_call_fails_at_once_when_qemu_dies(qmp: Qmp, monitor: Monitor) -> None:
    monitor.answers["query-status"] = None
    with pytest.raises(QmpGone):
        qmp.execute("query-status", Deadline.after(60))
    with pytest.raises(QmpGone):
        qmp.execute("query-status", Deadline.after(60))
    qmp.drain(soon())


def test_a_deadline_ends_the_wait_and_a_late_answer_is_dropped(qmp: Qmp, monitor: Monitor) -> None:
    with pytest.raises(DeadlineExceeded, match="query-block"):
        qmp.execute("query-block", Deadline.after(0.05))
    monitor.say({"return": [], "id": monitor.until("query-block")})
    monitor.answers["query-status"] = {"status": "running"}
    assert qmp.execute("query-status", soon()) == {"status": "running"}


def test_cancellation_wakes_a_wait(qmp: Qmp, monitor: Monitor) -> None:
    cancel = Cancel()
    threading.Timer(0.05, cancel.set).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        qmp.execute("query-block", Deadline.after(60, cancel=cancel))
    assert time.monotonic() - began < 30


def test_events_are_kept_but_not_for_ever(qmp: Qmp, monitor: Monitor) -> None:
    for number in range(1000):
        monitor.say(
            {"event": "RTC_CHANGE", "data": {"offset": number}, "timestamp": {"seconds": 0, "microseconds": 0}}
        )
    monitor.answers["query-status"] = {}
    qmp.execute("query-status", soon())
    assert 0 < len(qmp.events) < 1000
    assert qmp.events[-1]["data"] == {"offset": 999}


def test_threads_share_a_connection(qmp: Qmp, monitor: Monitor) -> None:
    monitor.answers["query-status"] = {"status": "running"}
    seen: list[object] = []
    threads = [threading.Thread(target=lambda: seen.append(qmp.execute("query-status", soon()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [{"status": "running"}] * 8


def test_a_peer_that_hangs_up_before_its_greeting(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[1].close()
    with pytest.raises(QmpGone):
        Qmp(ends[0], soon())


def test_a_peer_that_never_greets(ends: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(DeadlineExceeded, match="greeting"):
        Qmp(ends[0], Deadline.after(0.05))
