"""The names of all checks, as pytest collects them: no guest is needed."""

from __future__ import annotations

import contextlib
import difflib
import functools
import io
from fnmatch import fnmatchcase

from dfbuild.errors import InfraError, UsageError, nearest
from dfbuild.suites.run import DIRECTORY, available, directories

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


def suites_with(glob: str) -> frozenset[str]:
    """The suites that may have a check that matches `glob`. Raises `UsageError` if none can."""
    found = _suites_with(glob)
    if not found:
        raise UsageError(f"no check matches {glob!r}", hint=_hint(glob))
    return found


def _suites_with(glob: str) -> frozenset[str]:
    found = {name.partition("/")[0] for name in names() if fnmatchcase(name, glob)}
    # A star matches slashes, too: what is behind it may be all of a check's name.
    begins = [glob.partition("/")[0] + "/", *(glob[: at + 1] for at, letter in enumerate(glob) if letter == "*")]
    found |= {name for name in FROM_GUESTS if any(fnmatchcase(f"{name}/", begin) for begin in begins)}
    return frozenset(found)


def _hint(glob: str) -> str:
    """What was meant by `glob`, which matches nothing: the same of a suite called so, all of that, or a check."""
    suite, _, rest = glob.partition("/")
    near = difflib.get_close_matches(suite, available(), n=1)
    if near and not (rest and suite == near[0]):
        same = f"{near[0]}/{rest}"
        return f"did you mean {same if rest and _suites_with(same) else f'{near[0]}/*'!r}?"
    known = [name for name in names() if not near or name.startswith(f"{suite}/")]
    listed = f"`pytest --collect-only -q --pyargs dfbuild.suites.{suite if near else 'SUITE'}` lists checks"
    return nearest(glob, known, otherwise=f"the suites are {', '.join(available())}; {listed}")
