"""Subsystems of one machine have their own packages, which are upgraded one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dfbuild.suites.packages.conftest import SUBSYSTEMS, Packages
from dfbuild.suites.probe import Report

Fact = Callable[[str, object], None]


def test_isolated(packages: Packages, fact: Fact) -> None:
    """By one path every subsystem runs a program of its own."""
    said = {name: packages.tool(name) for name in SUBSYSTEMS}
    fact("said", ", ".join(said.values()))
    assert said == {name: f"{name} 1" for name in SUBSYSTEMS}


def test_upgrade(packages: Packages) -> None:
    """An upgrade for one is seen by it alone: the others' package is the same to the byte."""
    one, *others = SUBSYSTEMS
    content = f"cat {packages.directory}/view/tool"
    before = {name: packages.within_subsystem(name, content) for name in SUBSYSTEMS}
    packages.install(one, "2")
    try:
        said = packages.tool(one)
        after = {name: packages.within_subsystem(name, content) for name in SUBSYSTEMS}
    finally:
        packages.install(one, "1")
    assert said == f"{one} 2", f"the upgraded subsystem still runs {said!r}"
    assert after[one] != before[one]
    changed = [name for name in others if after[name] != before[name]]
    assert not changed, f"the upgrade of {one} changed {', '.join(changed)}"


@pytest.mark.parametrize("level", SUBSYSTEMS)
def test_level(level: str, views: Report) -> None:
    """A process's variable comes before its user's, and that before the system's."""
    seen = views[level]
    assert seen == level, f"with variables up to the {level}'s set, the path leads to {seen!r}"


def test_level_again(views: Report) -> None:
    """When the nearer variables are gone, the system's counts once more."""
    assert views["again"] == "system", f"the path leads to {views['again']!r}"


@pytest.mark.parametrize("heir", ["child", "program"])
def test_inherited(heir: str, views: Report) -> None:
    """Children have their parent's variables, and so have the programs that they run."""
    assert views[heir] == "process", f"the {heir} is led to {views[heir]!r}"


def test_stranger(views: Report) -> None:
    """A user's variable is none of another user's business."""
    assert views["stranger"] == "system", f"another user is led to {views['stranger']!r}"


def test_unset(views: Report) -> None:
    """Without the variable the path leads nowhere."""
    assert views["unset"] == "ENOENT", f"the path leads to {views['unset']!r}"


def test_loop(views: Report) -> None:
    """A link that leads to itself is an error of whoever follows it, not the kernel's end."""
    assert views["loop"] == "ELOOP", f"the path leads to {views['loop']!r}"


def test_long(views: Report) -> None:
    """The longest value there can be leads nowhere, and harms nobody."""
    assert views["long"] in ("ENOENT", "ENAMETOOLONG"), f"the path leads to {views['long']!r}"


def test_disabled(packages: Packages, ask: Callable[[str], str]) -> None:
    """While they are turned off, as they are by default, links are taken as they stand."""
    ask("variants-off")
    try:
        answer = packages.within_subsystem(
            "user", f"cat {packages.directory}/view/word 2>/dev/null || echo nowhere"
        )
    finally:
        ask("variants-on")
    assert answer == "nowhere", f"the path leads to {answer!r}"
