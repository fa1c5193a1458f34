"""The pytest plugin: `pytest --dfbuild-guest NAME` runs the suites, or anybody's own checks, in a guest that is up.

Without the option it does nothing but say so to whoever runs the suites. It is loaded wherever dfbuild is
installed, so it imports next to nothing before it is asked for.
"""

from __future__ import annotations

from pathlib import Path

import pytest

_SUITES = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dfbuild", "dfbuild: checks in a guest that is up")
    group.addoption("--dfbuild-guest", metavar="NAME", help="a kept guest's name, or the path of its guest.json")
    group.addoption(
        "--dfbuild-via",
        choices=("ssh", "serial"),
        default="ssh",
        help="what the shell fixture is (default: %(default)s)",
    )
    group.addoption("--dfbuild-check", metavar="GLOB", help="only checks whose suite/name matches")
    group.addoption(
        "--dfbuild-deadline",
        type=float,
        default=1800.0,
        metavar="SECONDS",
        help="for all checks together (default: %(default)s)",
    )
    group.addoption(
        "--dfbuild-report-fd", type=int, metavar="FD", help="write results as JSON lines to descriptor FD"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "check(name, seconds=60): the check's name, where it is not the function's, and how long it may take",
    )
    if config.getoption("dfbuild_guest") is None:
        return
    if config.args_source is not config.ArgsSource.ARGS:
        config.args = [str(_SUITES)]
    from dfbuild.suites import fixtures
    from dfbuild.suites.attached import Attached

    config.pluginmanager.register(Attached.attach(config), "dfbuild-attached")
    config.pluginmanager.register(fixtures, "dfbuild-fixtures")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("dfbuild_guest") is not None or config.option.collectonly:
        return
    if any(_SUITES in item.path.parents for item in items):
        raise pytest.UsageError("the suites run in a guest that is up: say which with --dfbuild-guest NAME")
