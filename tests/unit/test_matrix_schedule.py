"""The scheduler: what is admitted, in which order it runs, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.deadline import Cancel, Deadline
from dfbuild.errors import Cancelled, InfraError
from dfbuild.matrix.schedule import NOTHING, Cost, End, Scheduler, Task, admit

LIMIT = Cost(memory=1000, cpus=2, guests=2, boots=1)
PATIENCE = 20.0


def task(
    name: str,
    run: Callable[[Callable[[], None]], End] = lambda booted: End.SUCCEEDED,
    *,
    cost: Cost = NOTHING,
    needs: tuple[str, ...] = (),
    rank: int = 0,
    blocked: Callable[[str], None] = lambda culprit: None,
) -> Task:
    return Task(name, cost, run, blocked, frozenset(needs), rank)


costs = st.builds(
    Cost,
    memory=st.integers(0, 1500),
    cpus=st.integers(0, 3),
    guests=st.integers(0, 2),
    boots=st.integers(0, 2),
)


@given(st.lists(costs, max_size=8), st.lists(costs.filter(lambda c: c.fits(LIMIT)), max_size=3))
def test_admission_never_exceeds_the_limit_unless_alone(wanted: list[Cost], running: list[Cost]) -> None:
    ready = [task(str(i), cost=cost, rank=i) for i, cost in enumerate(wanted)]
    chosen = admit(ready, running, LIMIT)
    if sum(running, NOTHING).fits(LIMIT) and not (not running and len(chosen) == 1):
        assert sum((t.cost for t in chosen), sum(running, NOTHING)).fits(LIMIT)
    if ready and not running:
        assert chosen, "something must be able to start on an idle machine"


def test_better_ranks_go_first() -> None:
    one_guest = Cost(guests=2)
    late, early = task("late", cost=one_guest, rank=5), task("early", cost=one_guest, rank=1)
    assert [t.id for t in admit([late, early], [], LIMIT)] == ["early"]


@given(st.integers(1, 12).flatmap(lambda n: st.lists(st.sets(st.integers(0, n)), min_size=n, max_size=n)))
def test_needs_run_first_and_failures_block(needs: list[set[int]]) -> None:
    """In any DAG each task runs after all it needs; what stands on a failed task is blocked, not run."""
    ended: list[str] = []
    blocked: list[str] = []
    failing = {"3", "7"}

    def build(i: int) -> Task:
        name = str(i)

        def run(booted: Callable[[], None]) -> End:
            ended.append(name)
            return End.FAILED if name in failing else End.SUCCEEDED

        return task(
            name,
            run,
            needs=tuple(str(n) for n in needs[i] if n < i),
            blocked=lambda culprit: blocked.append(name),
            cost=Cost(cpus=1),
        )

    tasks = [build(i) for i in range(len(needs))]
    Scheduler(tasks, LIMIT, Cancel()).run()
    assert sorted(ended + blocked, key=int) == [t.id for t in tasks]
    for t in tasks:
        bad = {n for n in t.needs if n in blocked or n in failing}
        assert (t.id in blocked) == bool(bad)
        if t.id in ended:
            assert all(ended.index(n) < ended.index(t.id) for n in t.needs)


def test_a_boot_frees_its_place_before_the_guest_ends() -> None:
    """Two guests, one boot at a time: the second starts when the first has booted, while that still runs."""
    second_started = threading.Event()

    def first(booted: Callable[[], None]) -> End:
        booted()
        return second_started.wait(PATIENCE)

    def second(booted: Callable[[], None]) -> End:
        second_started.set()
        return End.SUCCEEDED

    cost = Cost(memory=100, cpus=1, guests=1, boots=1)
    Scheduler([task("a", first, cost=cost), task("b", second, cost=cost, rank=1)], LIMIT, Cancel()).run()
    assert second_started.is_set()


def test_cancel_ends_what_runs_and_starts_nothing_more() -> None:
    cancel = Cancel()
    started: list[str] = []

    def endless(booted: Callable[[], None]) -> End:
        started.append("a")
        cancel.set()
        Deadline.after(PATIENCE, cancel=cancel).check()
        return End.SUCCEEDED

    scheduler = Scheduler([task("a", endless), task("b", endless, needs=("a",))], LIMIT, cancel)
    with pytest.raises(Cancelled):
        scheduler.run()
    assert started == ["a"]


def test_an_escaping_error_stops_the_rest_and_is_raised() -> None:
    ran: list[str] = []

    def broken(booted: Callable[[], None]) -> End:
        raise InfraError("disk full")

    def after(booted: Callable[[], None]) -> End:
        ran.append("b")
        return End.SUCCEEDED

    one_at_a_time = Cost(memory=0, cpus=1, guests=0, boots=0)
    tasks = [task("a", broken, cost=Cost(cpus=1)), task("b", after, cost=Cost(cpus=1), rank=1)]
    with pytest.raises(InfraError, match="disk full"):
        Scheduler(tasks, one_at_a_time, Cancel()).run()
    assert ran == []


def test_unknown_needs_are_refused() -> None:
    with pytest.raises(ValueError, match="ghost"):
        Scheduler([task("a", needs=("ghost",))], LIMIT, Cancel())


def test_a_task_that_wants_another_turn_waits_for_its_place_again() -> None:
    """Nothing of what it gave back is taken without asking: a boot's place above all."""
    cost = Cost(boots=1)
    booting: list[str] = []
    turns: list[str] = []

    def boots(name: str, ends: list[End]) -> Callable[[Callable[[], None]], End]:
        def run(booted: Callable[[], None]) -> End:
            booting.append(name)
            assert len(booting) == 1
            turns.append(name)
            booting.remove(name)
            booted()
            return ends.pop(0)

        return run

    tasks = [
        task("one", boots("one", [End.AGAIN, End.SUCCEEDED]), cost=cost),
        task("two", boots("two", [End.SUCCEEDED]), cost=cost),
        task("after", boots("after", [End.SUCCEEDED]), cost=cost, needs=("one",)),
    ]
    Scheduler(tasks, LIMIT, Cancel()).run()
    assert sorted(turns) == ["after", "one", "one", "two"]
    assert turns[-1] == "after"
