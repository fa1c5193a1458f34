"""The one thread that starts hypervisors.

`bwrap --die-with-parent` asks the kernel for a signal when its parent *thread* ends (PR_SET_PDEATHSIG, prctl(2)):
a guest started from a worker thread would die with that worker. So all guests are started from a thread that
lives exactly as long as the process. A process that dies before bwrap has asked is covered too: QEMU then finds
nobody listening on its sockets and ends.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from dfbuild import process

_Request = tuple["Future[subprocess.Popen[bytes]]", Sequence[str], dict[str, Any]]


class Spawner:
    """Runs `process.spawn` in a daemon thread that is started at the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: queue.SimpleQueue[_Request] | None = None

    def spawn(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """As `process.spawn`, errors included."""
        with self._lock:
            if self._requests is None:
                self._requests = queue.SimpleQueue()
                threading.Thread(
                    target=self._serve, args=(self._requests,), name="dfbuild-spawner", daemon=True
                ).start()
        future: Future[subprocess.Popen[bytes]] = Future()
        self._requests.put((future, argv, options))
        return future.result()

    @staticmethod
    def _serve(requests: queue.SimpleQueue[_Request]) -> None:
        while True:
            future, argv, options = requests.get()
            try:
                future.set_result(process.spawn(argv, **options))
            except BaseException as error:  # noqa: BLE001 - it is raised in the caller
                future.set_exception(error)

    def forget(self) -> None:
        """In a forked child there is no thread: start a new one when it is needed."""
        self._lock = threading.Lock()
        self._requests = None


SPAWNER = Spawner()
os.register_at_fork(after_in_child=SPAWNER.forget)
