"""Run tasks as a DAG: as many at once as their needs and the machine's limits admit.

`admit` decides, and is pure; `Scheduler` starts threads and waits. A guest's task holds its memory to the end
but its boot only until it says so: two emulated guests that starve each other can hang while the kernel
calibrates its timers, so fewer may boot than may run.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from dfbuild.deadline import Cancel
from dfbuild.errors import Cancelled


@dataclass(frozen=True, slots=True)
class Cost:
    """What a task occupies while it runs: memory in MiB, host CPUs, a guest's place, a boot's place."""

    memory: int = 0
    cpus: int = 1
    guests: int = 0
    boots: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.memory + other.memory,
            self.cpus + other.cpus,
            self.guests + other.guests,
            self.boots + other.boots,
        )

    def fits(self, limit: Cost) -> bool:
        """True if no part exceeds `limit`'s."""
        return (
            self.memory <= limit.memory
            and self.cpus <= limit.cpus
            and self.guests <= limit.guests
            and self.boots <= limit.boots
        )


NOTHING = Cost(0, 0, 0, 0)


class End(Enum):
    """How a task's turn ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    AGAIN = "again"
    """It wants another turn, and waits for it as for the first."""


@dataclass(frozen=True, slots=True)
class Task:
    """A unit of work. `run` gets a function to call once its boot is over, and returns how it ended.

    `needs` are ids of tasks that must have succeeded first; if one fails, `blocked` is called with its id
    instead of `run`. `rank` orders tasks that could start: lower first.
    """

    id: str
    cost: Cost
    run: Callable[[Callable[[], None]], End]
    blocked: Callable[[str], None]
    needs: frozenset[str] = frozenset()
    rank: int = 0


def host_limits(memory: int | None, guests: int | None, boots: int | None) -> Cost:
    """The machine's limits where the user set none: three quarters of the free memory, a guest per CPU."""
    cpus = len(os.sched_getaffinity(0))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    with open("/proc/meminfo", encoding="ascii") as meminfo:  # noqa: PTH123 - not a file to be found
        for line in meminfo:
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) >> 10
    return Cost(
        memory=memory or free * 3 // 4,
        cpus=cpus,
        guests=guests or cpus,
        boots=boots or max(1, cpus // 2),
    )


def admit(ready: Sequence[Task], running: Collection[Cost], limit: Cost) -> list[Task]:
    """Which of the `ready` tasks may start now, best rank first.

    A task that alone exceeds the limit is admitted when nothing else runs: slow beats never.
    """
    load = sum(running, NOTHING)
    chosen: list[Task] = []
    for task in sorted(ready, key=lambda t: t.rank):
        if (load + task.cost).fits(limit) or (not running and not chosen):
            chosen.append(task)
            load = load + task.cost
    return chosen


@dataclass(frozen=True, slots=True)
class _Booted:
    id: str


@dataclass(frozen=True, slots=True)
class _Ended:
    id: str
    how: End
    error: BaseException | None


class Scheduler:
    """Runs tasks to their ends. An exception that escapes a task stops the rest and is raised again."""

    def __init__(self, tasks: Sequence[Task], limit: Cost, cancel: Cancel) -> None:
        self._tasks: Mapping[str, Task] = {task.id: task for task in tasks}
        unknown = {need for task in tasks for need in task.needs} - self._tasks.keys()
        if unknown:
            raise ValueError(f"tasks need what is not there: {sorted(unknown)}")
        self._limit, self._cancel = limit, cancel
        self._events: queue.SimpleQueue[_Booted | _Ended | None] = queue.SimpleQueue()

    def run(self) -> None:
        """Run everything. Raises `Cancelled` once what was running has ended, or the first task's error."""
        waiting = dict(self._tasks)
        running: dict[str, Cost] = {}
        succeeded: set[str] = set()
        failed: set[str] = set()
        error: BaseException | None = None
        with self._cancel.subscribed(lambda: self._events.put(None)):
            while waiting or running:
                if error is None and not self._cancel.is_set:
                    self._drop_blocked(waiting, failed)
                    ready = [task for task in waiting.values() if task.needs <= succeeded]
                    for task in admit(ready, running.values(), self._limit):
                        running[task.id] = waiting.pop(task.id).cost
                        threading.Thread(target=self._work, args=(task,), name=task.id, daemon=True).start()
                if not running:
                    break
                match self._events.get():
                    case _Booted(id):
                        cost = running[id]
                        running[id] = Cost(cost.memory, cost.cpus, cost.guests, 0)
                    case _Ended(id, how, problem):
                        del running[id]
                        if how is End.AGAIN:
                            waiting[id] = self._tasks[id]
                        else:
                            (succeeded if how is End.SUCCEEDED else failed).add(id)
                        if problem is not None and not isinstance(problem, Cancelled):
                            error = error or problem
                            self._cancel.set()
        if error is not None:
            raise error
        if self._cancel.is_set:
            raise Cancelled("interrupted")

    def _drop_blocked(self, waiting: dict[str, Task], failed: set[str]) -> None:
        found = True
        while found:
            found = False
            for task in list(waiting.values()):
                culprit = next(iter(task.needs & failed), None)
                if culprit is not None:
                    del waiting[task.id]
                    failed.add(task.id)
                    task.blocked(culprit)
                    found = True

    def _work(self, task: Task) -> None:
        error: BaseException | None = None
        how = End.FAILED
        try:
            how = task.run(lambda: self._events.put(_Booted(task.id)))
        except BaseException as problem:  # noqa: BLE001 - carried to the thread that waits, and raised there
            error = problem
        self._events.put(_Ended(task.id, how, error))
