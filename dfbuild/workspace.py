"""dfbuild's own directory: where artefacts, runs and logs lie, and how files get there atomically."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dfbuild.errors import InfraError, UsageError

_LOCK = ".lock"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


def expanded(name: str) -> Path:
    """The path `name`, its `~` as a shell has it. Raises `UsageError` for what is none, and the home of nobody."""
    try:
        path = Path(name).expanduser()
        os.fsencode(path)
    except (RuntimeError, UnicodeError):
        path = None
    if path is None or "\0" in name:
        raise UsageError(f"{name!r} is no path", hint="its first part may be ~ or ~USER of a user of this host")
    return path


def require_name(name: str, what: str) -> str:
    """`name`, if `what` in the work directory can be called so; raises `UsageError`."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} can't be {what}'s name", hint="letters, digits, '.', '_', '+' and '-', at most 64"
        )
    return name


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write `data` to `path` so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = data.encode() if isinstance(data, str) else data
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(raw)
        Path(temporary).chmod(0o644)
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_among(top: Path, path: Path, data: bytes) -> None:
    """Write `path` below the directory `top`, whose content somebody else made: through none of its links.

    Raises `InfraError` where the way to it leads out of `top`.
    """
    if not path.parent.resolve().is_relative_to(top.resolve()):
        raise InfraError(
            f"{path.parent} leads out of {top}", hint="what was built there made a link of it: remove it"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(data)


def remove(path: Path) -> None:
    """Remove a file, or a tree with directories that nobody may write to; nothing if it is not there."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for directory, _, _ in os.walk(path):
        Path(directory).chmod(0o700)
    shutil.rmtree(path)


def mark_used(path: Path) -> None:
    """Note in the time stamp of a directory that it is used now, for the cleaning; not where it is read-only."""
    with contextlib.suppress(OSError):
        os.utime(path)


@dataclass(frozen=True, slots=True)
class Workspace:
    """The work directory. Everything that dfbuild writes lies below `root`, sockets excepted."""

    root: Path

    @classmethod
    def locate(cls, option: str | None = None) -> Workspace:
        """From `--work`, else `DFBUILD_WORK`, else the user's data directory."""
        chosen = option or os.environ.get("DFBUILD_WORK")
        if not chosen:
            return cls.default()
        root = expanded(chosen).absolute()
        if root == Path("/"):
            raise UsageError("the work directory cannot be /", hint="name an empty directory with --work")
        if root.exists() and not root.is_dir():
            raise UsageError(
                f"{root} cannot be the work directory: it is a file", hint="name another one with --work"
            )
        return cls(root)

    @classmethod
    def default(cls) -> Workspace:
        """The one below the user's data directory."""
        import platformdirs

        return cls(platformdirs.user_data_path("dfbuild"))

    @classmethod
    def existing(cls, option: str | None = None) -> Workspace:
        """As `locate`, for what only looks. Raises `UsageError` if one that was named is not there."""
        workspace = cls.locate(option)
        if (option or os.environ.get("DFBUILD_WORK")) and not workspace.root.is_dir():
            raise UsageError(
                f"there is no work directory {workspace.root}", hint="name one that a run made, with --work"
            )
        return workspace

    @contextlib.contextmanager
    def in_use(self, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """Nothing is cleaned away inside: by all that makes artefacts, or has guests that run of them.

        Waits for a cleaning that is at work, and tells `say` of that.
        """
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._locked(fcntl.LOCK_SH | fcntl.LOCK_NB))
            except BlockingIOError:
                say(f"waiting for a cleaning of {self.root}")
                held.enter_context(self._locked(fcntl.LOCK_SH))
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody uses the work directory inside, or begins to. Raises `UsageError` if somebody does."""
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                raise UsageError(
                    f"a dfbuild is at work in {self.root}",
                    hint="wait for it, or end it; `dfbuild guest list` names the guests that are up",
                ) from None
            yield

    @contextlib.contextmanager
    def running(self, run: str) -> Iterator[None]:
        """Nobody else runs the run inside. Raises `UsageError` if somebody does."""
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB, self.run(run)))
            except BlockingIOError:
                raise UsageError(
                    f"run {run} is being run by another dfbuild", hint="wait for it, or end it"
                ) from None
            yield

    def is_running(self, run: str) -> bool:
        """Whether somebody runs the run just now."""
        try:
            with (self.run(run) / _LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            pass
        return False

    @contextlib.contextmanager
    def _locked(self, how: int, directory: Path | None = None) -> Iterator[None]:
        directory = directory or self.root
        try:
            directory.mkdir(parents=True, exist_ok=True)
            file = (directory / _LOCK).open("ab")
        except OSError as error:
            raise UsageError(
                f"{self.root} cannot be the work directory: {error.strerror}", hint="name another one with --work"
            ) from error
        with file:
            fcntl.flock(file, how)
            yield

    @property
    def artefacts(self) -> Path:
        """`<kind>/<key>/`: finished build steps by content key."""
        return self.root / "artefacts"

    @property
    def objects(self) -> Path:
        """`<key>/`: object trees and saved guests that builds go on from."""
        return self.root / "objects"

    @property
    def sources(self) -> Path:
        """`<name>/`: copies of the user's tree at a revision, or with patches."""
        return self.root / "sources"

    @property
    def logs(self) -> Path:
        """`<kind>/<key>/`: the logs of the last attempt at each artefact."""
        return self.root / "logs"

    @property
    def bases(self) -> Path:
        """`<name>.json`: disks that were taken in from elsewhere."""
        return self.root / "bases"

    @property
    def identities(self) -> Path:
        """SSH keys, made once per work directory."""
        return self.root / "identities"

    @property
    def cache(self) -> Path:
        """Verdicts about this host that are cheap to find again."""
        return self.root / "cache"

    @property
    def guests(self) -> Path:
        """`<name>/`: state files of guests that are kept up."""
        return self.root / "guests"

    @property
    def database(self) -> Path:
        return self.root / "results.sqlite"

    def run(self, run: str) -> Path:
        """A run's directory: transcripts, logs and reports, cell by cell."""
        return self.root / "runs" / run
