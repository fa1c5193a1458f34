"""The test cases that the guest has, read from it when checks are collected."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfbuild.errors import DfbuildError
from dfbuild.suites.attached import Attached
from dfbuild.suites.probe import ProbeError, succeeded
from dfbuild.suites.regress import runlist

_BUILD_SECONDS = 120.0
"""What the guest's compiler may take for a test case."""
_ASK_SECONDS = 60.0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A check for every line of the runlist; none where no guest is attached, or one that has no such suite."""
    if "testcase" not in metafunc.fixturenames:
        return
    attached = metafunc.config.pluginmanager.get_plugin("dfbuild-attached")
    found = []
    if isinstance(attached, Attached) and Path(__file__).parent.name in attached.release.suites:
        limits = attached.release.console.slower(attached.session.manifest.accel)
        try:
            entries = _entries(attached)
        except DfbuildError as error:
            # What the guest's list has wrong is that check's to say: the others know nothing of it.
            found.append(pytest.param(error, id="runlist", marks=pytest.mark.check("runlist")))
            entries = {}
        for name, entry in entries.items():
            group, _, rest = name.partition("-")
            mark = pytest.mark.check(group, seconds=_BUILD_SECONDS + entry.timeout * limits)
            found.append(pytest.param(entry, id=rest or group, marks=mark))
    metafunc.parametrize("testcase", found)


def _entries(attached: Attached) -> dict[str, runlist.Entry]:
    """By name. Raises `ProbeError` for a list that is none, and as the shell does."""
    command = attached.release.commands["testcases"]
    answer = attached.shells[attached.via].run(command, attached.within(_ASK_SECONDS, what="the runlist"))
    found = dict(runlist.names(runlist.parse(succeeded(answer))))
    if not found:
        raise ProbeError("the guest's runlist is empty")
    return found
