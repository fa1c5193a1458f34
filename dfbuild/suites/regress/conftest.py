"""The test cases that the guest has, read from it when checks are collected."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfbuild.errors import DfbuildError
from dfbuild.suites.attached import Attached
from dfbuild.suites.probe import succeeded
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
        for name, entry in _entries(attached).items():
            group, _, rest = name.partition("-")
            mark = pytest.mark.check(group, seconds=_BUILD_SECONDS + entry.timeout * limits)
            found.append(pytest.param(entry, id=rest or group, marks=mark))
    metafunc.parametrize("testcase", found)


def _entries(attached: Attached) -> dict[str, runlist.Entry]:
    try:
        command = attached.release.commands["testcases"]
        answer = attached.shells[attached.via].run(command, attached.within(_ASK_SECONDS, what="the runlist"))
        return dict(runlist.names(runlist.parse(succeeded(answer))))
    except DfbuildError as error:
        raise pytest.UsageError(f"the guest's test cases: {error}") from error
