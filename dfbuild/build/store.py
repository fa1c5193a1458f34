"""The artefact store: every recipe is made once for its key, in a directory that is renamed when it is whole.

Layout below `Workspace.artefacts`:

    <kind>/<key>/               a finished artefact, `artefact.json` in it
    .building/<key>/            being made; whoever holds the key's lock owns it
    .locks/<key>                flock(2), taken while a key is made
    <workspace>/logs/<kind>/<key>/   the logs of the last attempt, whether it went well or not
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dfbuild import process
from dfbuild.build.complaint import shown
from dfbuild.build.recipe import Artefact, Kitchen, Recipe
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed, DeadlineExceeded, InfraError
from dfbuild.workspace import Workspace, atomic_write, mark_used, remove

MANIFEST = "artefact.json"


class ArtefactStore:
    """Finds and makes artefacts. Safe from several threads and several processes on one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._building = workspace.artefacts / ".building"
        self._locks = workspace.artefacts / ".locks"
        for directory in (self._building, self._locks):
            directory.mkdir(parents=True, exist_ok=True)
        self._remove_stale()

    def path(self, recipe: Recipe) -> Path:
        """Where the artefact of `recipe` lies once it is made."""
        return self.workspace.artefacts / recipe.kind / recipe.key

    def logs(self, recipe: Recipe) -> Path:
        """The directory of the logs of the last attempt at `recipe`."""
        return self.workspace.logs / recipe.kind / recipe.key

    def has(self, recipe: Recipe) -> bool:
        """Whether `find` would find it, without using it."""
        return (self.path(recipe) / MANIFEST).is_file()

    def find(self, recipe: Recipe) -> Artefact | None:
        """The finished artefact of `recipe`, or None if it has to be made."""
        path = self.path(recipe)
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
            return None
        if not isinstance(manifest, dict) or manifest.get("key") != recipe.key:
            return None
        mark_used(path)
        return Artefact(recipe.kind, recipe.name, recipe.key, path, manifest.get("facts", {}))

    def make(
        self, recipe: Recipe, needs: Sequence[Artefact], deadline: Deadline, say: Callable[[str], None]
    ) -> Artefact:
        """Make `recipe`, or wait for whoever is making it, and return its artefact.

        `needs` are the artefacts of `recipe.needs` in that order. Raises `BuildFailed` with component, log and
        last lines, also when the recipe took longer than its `minutes`; `InfraError` for a full disk and its like;
        `DeadlineExceeded` and `Cancelled` when `deadline` ended it. A failed or interrupted attempt leaves nothing
        but its logs.
        """
        with self._locked(recipe, deadline, say):
            found = self.find(recipe)
            if found is not None:
                return found
            try:
                return self._make(recipe, needs, deadline, say)
            except OSError as error:
                raise InfraError(f"making {recipe.kind} {recipe.name}: {error}") from error

    def _make(
        self, recipe: Recipe, needs: Sequence[Artefact], deadline: Deadline, say: Callable[[str], None]
    ) -> Artefact:
        logs = self.logs(recipe)
        remove(logs)
        logs.mkdir(parents=True)
        directory = self._building / recipe.key
        remove(directory)
        directory.mkdir(mode=0o700)  # guests' keys may come to be in it, before their own modes are set
        started = time.monotonic()
        kitchen = Kitchen(
            directory=directory,
            needs=tuple(needs),
            workspace=self.workspace,
            deadline=deadline.sooner(recipe.minutes * 60, what=recipe.id),
            log=logs / "step.log",
            say=say,
        )
        try:
            facts = self._call(recipe, kitchen, deadline)
            manifest = {
                "kind": str(recipe.kind),
                "name": recipe.name,
                "key": recipe.key,
                "inputs": recipe.inputs,
                "needs": [need.key for need in recipe.needs],
                "facts": facts,
                "seconds": round(time.monotonic() - started, 3),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            atomic_write(directory / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
            final = self.path(recipe)
            final.parent.mkdir(parents=True, exist_ok=True)
            remove(final)  # a manifest that could not be read
            directory.chmod(0o755)
            directory.rename(final)
        finally:
            remove(directory)
        return Artefact(recipe.kind, recipe.name, recipe.key, final, facts)

    def _call(self, recipe: Recipe, kitchen: Kitchen, outer: Deadline) -> dict[str, object]:
        """The recipe's facts as plain data; its own time running out is its own failure."""
        try:
            return _plain(recipe.make(kitchen))
        except DeadlineExceeded as error:
            outer.check(recipe.id)
            raise BuildFailed(
                f"{recipe.kind} {recipe.name} took longer than {recipe.minutes:g} minutes",
                component=recipe.name,
                log=kitchen.log,
                tail=shown(tail(kitchen.log)),
            ) from error

    @contextlib.contextmanager
    def _locked(self, recipe: Recipe, deadline: Deadline, say: Callable[[str], None]) -> Iterator[None]:
        fd = os.open(self._locks / recipe.key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"{recipe.kind} {recipe.name}: waiting for another process that makes it")
                _lock_slowly(fd, deadline, recipe.id)
            yield
        finally:
            os.close(fd)

    def _remove_stale(self) -> None:
        """Remove what interrupted builds left: unfinished directories whose key nobody has locked."""
        for directory in self._building.iterdir():
            fd = os.open(self._locks / directory.name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(directory)
            except BlockingIOError:
                continue
            finally:
                os.close(fd)


BUILD_SECONDS = 7 * 24 * 3600.0
"""A deadline for all steps of something together, where nobody set one: each has its recipe's minutes as well."""


def build_all(recipe: Recipe, store: ArtefactStore, deadline: Deadline, say: Callable[[str], None]) -> Artefact:
    """Make `recipe` and everything below it, one after the other, as far as it is not made yet."""
    made: dict[str, Artefact] = {}
    for step in recipe.walk():
        found = store.find(step)
        if found is None:
            say(f"{step.kind} {step.name}")
            found = store.make(step, [made[need.key] for need in step.needs], deadline, say)
        made[step.key] = found
    return made[recipe.key]


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, or nothing if there is none; reads at most 16 KiB."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16384))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _plain(facts: Mapping[str, object]) -> dict[str, object]:
    """`facts` as they will be read back, so that a fresh artefact and a found one are equal."""
    plain = json.loads(json.dumps(facts))
    assert isinstance(plain, dict)
    return plain


def _lock_slowly(fd: int, deadline: Deadline, what: str) -> None:
    # flock(2) cannot be told a deadline. flock(1) takes the same lock for us (it belongs to the open file, which
    # the child shares), and a child can be waited for and killed.
    helper = process.spawn(["flock", "--exclusive", str(fd)], pass_fds=(fd,))
    if process.wait(helper, deadline, what=what) != 0:
        raise InfraError(f"cannot lock {what}")
