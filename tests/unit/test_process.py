"""Host programs under a deadline: nothing outlives the call, nothing is blamed on the wrong one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, MissingTool
from dfbuild.process import run, spawn, wait

LONG = 30.0


def test_status_and_output() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 7"], Deadline.after(LONG))
    assert (done.status, done.output) == (7, "out\nerr\n")


def test_more_output_than_a_pipe_holds() -> None:
    assert len(run(["head", "-c", "3000000", "/dev/zero"], Deadline.after(LONG)).output) == 3_000_000


def test_output_goes_to_a_log_and_is_appended(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    for word in ("one", "two"):
        assert run(["echo", word], Deadline.after(LONG), log=log).output == ""
    assert log.read_text() == "one\ntwo\n"


def test_a_missing_program_is_named_with_the_cure() -> None:
    with pytest.raises(MissingTool, match="no-such-program"):
        run(["no-such-program"], Deadline.after(LONG))


def test_a_passed_deadline_kills_the_whole_group() -> None:
    """A grandchild that holds the output open is killed too."""
    read, write = os.pipe()
    process = spawn(["sh", "-c", "sleep 1000 & sleep 1000"], stdout=write)
    os.close(write)
    with pytest.raises(DeadlineExceeded):
        wait(process, Deadline.after(0.1))
    Deadline.after(LONG).select(read)
    assert os.read(read, 1) == b"", "the pipe's last writer has gone"
    os.close(read)


def test_cancellation_wakes_the_wait() -> None:
    cancel = Cancel()
    threading.Timer(0.05, cancel.set).start()
    with pytest.raises(Cancelled):
        run(["sleep", "1000"], Deadline.after(LONG, cancel=cancel))


def test_a_process_that_was_reaped_has_its_status() -> None:
    process = spawn(["sh", "-c", "exit 3"])
    process.wait()
    assert wait(process, Deadline.after(LONG)) == 3
