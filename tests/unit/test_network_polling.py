"""The check of polling, against guests that interrupt as they should and as they should not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from dfbuild.deadline import Deadline
from dfbuild.suites.network import test_polling as polling


class Guest:
    """Echoes, with `plain` interrupts for a word, or `polled` of them once polling is on."""

    def __init__(self, plain: int, polled: int) -> None:
        self.each, self.polled, self.count = plain, polled, 0

    @contextlib.contextmanager
    def connect(self, service: str, deadline: Deadline) -> Iterator[Any]:
        assert service == "echo"
        yield self

    def send(self, data: bytes) -> None:
        self.count += self.each

    def read(self, count: int, deadline: Deadline) -> bytes:
        return b"x" * count

    def ask(self, command: str) -> str:
        if command == "polling-on":
            self.each = self.polled
        return str(self.count)


def run(guest: Guest) -> tuple[dict[str, Any], dict[str, Any]]:
    samples: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    polling.test_polling(
        guest,  # type: ignore[arg-type]
        guest.ask,
        lambda: guest.ask("polling-on"),
        lambda name, values, **more: samples.update({name: values}),
        facts.__setitem__,
        Deadline.after(10),
    )
    return samples, facts


def test_a_card_that_is_polled() -> None:
    samples, facts = run(Guest(2, 0))
    assert set(samples) == {"round-trips", "round-trips-polled"}
    assert facts["interrupts"] == f"{2 * polling.ROUNDS} without polling, 0 with it"


@pytest.mark.parametrize(("plain", "polled", "says"), [(2, 2, "with polling 200"), (0, 0, "polls already")])
def test_a_card_that_is_not(plain: int, polled: int, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        run(Guest(plain, polled))
