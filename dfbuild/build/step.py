"""One sandboxed command of a build step, logged by component."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dfbuild import process
from dfbuild.build.recipe import Kitchen
from dfbuild.build.store import tail
from dfbuild.errors import BuildFailed
from dfbuild.sandbox import Sandbox


def component_log(kitchen: Kitchen, component: str) -> Path:
    """The log of one component of the step, beside the step's own."""
    return kitchen.log.with_name(component.replace("/", "-") + ".log")


def run(kitchen: Kitchen, sandbox: Sandbox, argv: Sequence[str | Path], component: str) -> None:
    """Run `argv` in `sandbox`; the command line and all it prints go to the component's log.

    Raises `BuildFailed` with the last lines for a status other than 0, `DeadlineExceeded` and `Cancelled`.
    """
    log = component_log(kitchen, component)
    words = [str(word) for word in argv]
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(words)}\n")
    status = process.run(sandbox.argv(words), kitchen.deadline, log=log).status
    if status != 0:
        raise BuildFailed(
            f"{component}: {words[0]} ended with status {status}", component=component, log=log, tail=tail(log)
        )
