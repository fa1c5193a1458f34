"""Polling against interrupts: a kernel that asks its network card itself need not be interrupted by it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from dfbuild.deadline import Deadline
from dfbuild.model import Better
from dfbuild.suites.network.conftest import Services
from dfbuild.suites.probe import integers

Ask = Callable[[str], str]
Fact = Callable[[str, object], None]
Samples = Callable[..., None]

ROUNDS = 100
"""Words that go to the guest and come back, one after the other. Cards hold interrupts back and tell of several."""
SOME = ROUNDS // 10
SHARE = 0.25
"""Of the interrupts, at most, with polling."""
WORD = b"ping"


@pytest.fixture
def polling(ask: Ask) -> Iterator[Callable[[], str]]:
    """Turns polling on; it ends with the check."""
    yield lambda: ask("polling-on")
    ask("polling-off")


def test_polling(
    services: Services,
    ask: Ask,
    polling: Callable[[], str],
    samples: Samples,
    fact: Fact,
    deadline: Deadline,
) -> None:
    """The same words cost the card's interrupts without polling, and next to none with it."""
    plain, plain_rate = _talk(services, ask, deadline)
    polling()
    _talk(services, ask, deadline)  # the driver changes over with the next interrupt
    polled, polled_rate = _talk(services, ask, deadline)
    fact("interrupts", f"{plain} without polling, {polled} with it")
    samples("round-trips", [plain_rate], unit="1/s", better=Better.HIGHER)
    samples("round-trips-polled", [polled_rate], unit="1/s", better=Better.HIGHER)
    assert plain >= SOME, f"{ROUNDS} round trips without polling made {plain} interrupts: it polls already"
    assert polled <= SHARE * plain, f"{ROUNDS} round trips made {plain} interrupts, with polling {polled}"


def _talk(services: Services, ask: Ask, deadline: Deadline) -> tuple[int, float]:
    """Interrupts that a conversation costs, and round trips a second."""
    before = integers(ask("wire-interrupts"), 1)[0]
    with services.connect("echo", deadline) as conversation:
        begin = time.monotonic()
        for _ in range(ROUNDS):
            conversation.send(WORD)
            conversation.read(len(WORD), deadline)
        seconds = time.monotonic() - begin
    return integers(ask("wire-interrupts"), 1)[0] - before, ROUNDS / seconds
