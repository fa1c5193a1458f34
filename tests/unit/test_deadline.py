"""Deadlines and cancellation."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded

LONG = 30.0


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_an_inner_deadline_never_outlives_the_outer(outer: float, inner: float) -> None:
    deadline = Deadline.after(outer)
    assert deadline.sooner(inner).remaining() <= deadline.remaining() + 1e-3
    assert deadline.sooner(inner).remaining() <= inner + 1e-3


def test_the_error_says_what_was_waited_for() -> None:
    with pytest.raises(DeadlineExceeded, match="the moon"):
        Deadline.after(0, what="the moon").check()
    with pytest.raises(DeadlineExceeded, match="the sun"):
        Deadline.after(LONG, what="the moon").sooner(0, what="the sun").check()


def test_cancellation_comes_before_expiry_and_is_inherited() -> None:
    cancel = Cancel()
    inner = Deadline.after(0, cancel=cancel).sooner(LONG)
    cancel.set()
    with pytest.raises(Cancelled):
        inner.check()


def test_select_returns_what_is_readable_and_wakes_on_cancellation() -> None:
    read, write = os.pipe()
    cancel = Cancel()
    deadline = Deadline.after(LONG, cancel=cancel)
    os.write(write, b"x")
    assert deadline.select(read) == [read]
    assert Deadline.after(1e9).select(read) == [read], "poll(2) waits for 24 days at most"
    os.read(read, 1)
    threading.Timer(0.05, cancel.set).start()
    with pytest.raises(Cancelled):
        deadline.select(read)
    with pytest.raises(DeadlineExceeded):
        Deadline.after(0.01).select(read)
    os.close(read)
    os.close(write)


def test_a_lock_is_waited_for_no_longer_than_that() -> None:
    cancel, lock = Cancel(), threading.Lock()
    with Deadline.after(LONG).holding(lock):
        with pytest.raises(DeadlineExceeded, match="the others"), Deadline.after(0.01).holding(lock, "the others"):
            pytest.fail("two hold it")
        threading.Timer(0.05, cancel.set).start()
        with pytest.raises(Cancelled), Deadline.after(LONG, cancel=cancel).holding(lock):
            pytest.fail("two hold it")
    with Deadline.after(0.01).holding(lock):
        assert lock.locked()
    assert not lock.locked()


def test_wait_on_a_condition_wakes_on_cancellation_without_a_notification() -> None:
    cancel, condition = Cancel(), threading.Condition()
    threading.Timer(0.05, cancel.set).start()
    with condition, pytest.raises(Cancelled):
        Deadline.after(LONG, cancel=cancel).wait(condition, lambda: False)


def test_subscribers_are_called_once_and_at_once_when_late() -> None:
    cancel, calls = Cancel(), []
    with cancel.subscribed(lambda: calls.append("in time")):
        cancel.set()
        cancel.set()
    with cancel.subscribed(lambda: calls.append("late")):
        pass
    assert calls == ["in time", "late"]
