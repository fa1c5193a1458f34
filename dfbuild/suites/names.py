"""The names of all checks, as pytest collects them: no guest is needed."""

from __future__ import annotations

import contextlib
import functools
import io
from fnmatch import fnmatchcase

from dfbuild.errors import InfraError, UsageError
from dfbuild.suites.run import DIRECTORY, available, directories
from dfbuild.toml import nearest

FROM_GUESTS = ("regress",)
"""Suites whose checks are what the guest turns out to have."""


@functools.cache
def names() -> tuple[str, ...]:
    """`suite/name` of every check, in their order, but for those of `FROM_GUESTS`.

    Raises `InfraError` if they can't be read.
    """
    import pytest

    from dfbuild.suites.attached import check_id

    found: list[str] = []

    class Collector:
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            found.extend(check_id(item) for item in items if item.path.parent.name not in FROM_GUESTS)

    options = ["--collect-only", "-q", "-c", str(DIRECTORY / "pytest.ini")]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = pytest.main([*options, *map(str, directories(available()))], plugins=[Collector()])
    if status != pytest.ExitCode.OK:
        raise InfraError(f"the suites cannot be collected:\n{printed.getvalue()}")
    return tuple(found)


def require_match(glob: str) -> None:
    """Raises `UsageError` if no check of any suite can match `glob`."""
    suite = glob.partition("/")[0]
    if any(fnmatchcase(name, suite) for name in FROM_GUESTS):
        return
    if not any(fnmatchcase(name, glob) for name in names()):
        raise UsageError(f"no check matches {glob!r}", hint=nearest(glob, names()))
