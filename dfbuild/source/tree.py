"""A source tree as its user has it: a directory, or a revision in a repository. Nothing is ever written into it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dfbuild import process
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed, InfraError, UsageError
from dfbuild.releases import Release, available, load
from dfbuild.sandbox import Mount, Sandbox
from dfbuild.source.hashes import Hashes
from dfbuild.workspace import Workspace, expanded, mark_used, remove

_HINT = "name a checkout with --src, or a repository with --src and a revision in it with --rev"
_SHA256_DIGITS = 64
_REPOSITORY = Path("/repository")
_GIT = ("git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false")


@dataclass(frozen=True, slots=True)
class Tree:
    """A source tree that can be read. `release` is the name of the release it is of."""

    path: Path
    release: str
    hashes: Hashes

    def still(self) -> Tree:
        """The same tree for one command's time: each part of it is looked at once."""
        return Tree(self.path, self.release, self.hashes.still())

    @contextlib.contextmanager
    def unchanged(self, parts: Iterable[str], was: str) -> Iterator[Callable[[], None]]:
        """Raise `InfraError` unless `parts` are, when the block begins and when it ends, what they were when
        `hash_of` was `was`, and no file of theirs is written inside; instead of a `BuildFailed`, too. What it gives
        does the same in between.

        A user's tree is built from where it lies.
        """
        parts = tuple(parts)
        began = self.hashes.stamps(parts)
        self.require_still(parts, was)

        def require_unwritten() -> None:
            self._require_unwritten(parts, began, was)

        try:
            yield require_unwritten
        except BuildFailed:
            require_unwritten()
            raise
        require_unwritten()

    def _require_unwritten(self, parts: Iterable[str], began: str, was: str) -> None:
        try:
            now = self.hashes.stamps(parts)
        except OSError as error:
            now = str(error)
        if now != began:
            raise changed_meanwhile(self.path)
        self.require_still(parts, was)

    def require_still(self, parts: Iterable[str], was: str) -> None:
        """Raise `InfraError` unless `parts` are what they were when `hash_of` them was `was`."""
        try:
            now = Tree(self.path, self.release, self.hashes.afresh()).hash_of(parts)
        except UsageError as error:
            now = error.message
        if now != was:
            raise changed_meanwhile(self.path)

    def hash_of(self, parts: Iterable[str]) -> str:
        """SHA-256 over the files and directories `parts`, by name; raises `UsageError` for one that is missing."""
        total = hashlib.sha256()
        for part in sorted(set(parts)):
            try:
                total.update(f"{part}\0{self.hashes.of(part)}\0".encode(errors="surrogateescape"))
            except (FileNotFoundError, NotADirectoryError) as error:
                raise UsageError(
                    f"{self.path} has no {part}", hint=f"is the checkout whole, and one of {self.release}?"
                ) from error
        return total.hexdigest()


def changed_meanwhile(path: Path) -> InfraError:
    """The error for a tree that is not what it was for the content key of what was made of it."""
    return InfraError(
        f"{path} was changed while it was built from", hint="what was made of it is gone: run it again"
    )


def open_tree(
    source: str | None,
    workspace: Workspace,
    deadline: Deadline,
    *,
    rev: str = "",
    release: str = "",
    wanted: Release | None = None,
) -> Tree:
    """The tree at `source` (else in `DFBUILD_SRC`), or of revision `rev` in the repository there.

    A revision is exported into the work directory, once. It is of the release `wanted` if it can be that, else of
    the one that it says; `release` overrules both. Raises `UsageError` for a place that is no source tree.
    """
    path = named(source)
    if path is None:
        raise UsageError("no source tree is named", hint=f"{_HINT}; or set DFBUILD_SRC")
    if not path.is_dir():
        raise UsageError(f"{path} is no directory", hint=_HINT)
    if release and (wanted is None or release != wanted.name):
        load(release)  # Is there such a one?
    if rev:
        path = _export(path, rev, workspace, deadline)
        mark_used(path)
    found = opened(path, release or detect(path, wanted), workspace)
    require_apart(path, workspace)
    return found


def named(source: str | None) -> Path | None:
    """The path that `source` is, else that of `DFBUILD_SRC`; None if neither is set. Raises `UsageError`."""
    chosen = source or os.environ.get("DFBUILD_SRC", "")
    return expanded(chosen).absolute() if chosen else None


def require_apart(path: Path, workspace: Workspace) -> None:
    """Raise `UsageError` if the work directory, which need not be there yet, lies in the tree at `path`."""
    if workspace.root.resolve().is_relative_to(path.resolve()):
        raise UsageError(
            f"the work directory {workspace.root} lies in the tree {path}, which it would be a part of",
            hint="name one elsewhere with --work",
        )


def opened(path: Path, release: str, workspace: Workspace) -> Tree:
    """The tree at `path`, known to be of `release`."""
    if path.parent == workspace.sources:
        return Tree(path, release, Hashes(path, memory_beside(path), linked=True))
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Tree(path, release, Hashes(path, workspace.cache / f"source-{name}.json"))


def memory_beside(copy: Path) -> Path:
    """The file in which the hashes of a tree below the work directory's sources are remembered."""
    return copy.with_name(f"{copy.name}.json")


def detect(path: Path, wanted: Release | None = None) -> str:
    """The name of the release that the tree at `path` is of, by the files and patterns that releases name.

    `wanted` is asked first: a release of the user's own may be like one that dfbuild knows.
    """
    known = [wanted] if wanted is not None else []
    known += [load(name) for name in available()]
    return matching(path, {release.name: release for release in known if release.source is not None})


def matching(path: Path, releases: Mapping[str, Release]) -> str:
    """The one of `releases` that the tree at `path` says it is; raises `UsageError` if it is none of them."""
    looked: set[str] = set()
    for name, release in releases.items():
        if release.source is None:
            continue
        looked.add(release.source.file)
        try:
            text = (path / release.source.file).read_text(encoding="latin-1")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UsageError(f"{error.filename} cannot be read: {error.strerror}", hint=_HINT) from error
        if re.search(release.source.pattern, text, re.MULTILINE):
            return name
    known = ", ".join(sorted(releases)) or "none"
    raise UsageError(
        f"{path} is no source tree of a release that dfbuild knows ({known}): see {', '.join(sorted(looked))}",
        hint=f"{_HINT}; or say which release it is with --release",
    )


def _export(repository: Path, rev: str, workspace: Workspace, deadline: Deadline) -> Path:
    """The files of `rev` below the work directory, by the hash of its tree."""
    directory = _git_directory(repository)
    if not directory.exists():
        raise UsageError(f"{repository} is no git repository, and --rev names a revision of one", hint=_HINT)
    # A hook's environment may name another repository's parts.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_DIR": str(directory)}
    tree = _git(["rev-parse", "--verify", "--end-of-options", f"{rev}^{{tree}}"], environment, deadline)
    if tree.status != 0:
        raise UsageError(f"{repository} has no revision {rev!r}", hint="git -C DIR branch --all; git -C DIR tag")
    name = tree.output.split()[-1]  # before it stand warnings, as of a name that two things have
    target = workspace.sources / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=target.parent, prefix=".export-"))
    packed, unpacked, empty = place / "tar", place / "tree", place / "git"
    unpacked.mkdir()
    try:
        common = _git(["rev-parse", "--path-format=absolute", "--git-common-dir"], environment, deadline)
        if common.status != 0:
            raise InfraError(f"cannot read {repository}: {common.output.strip()}")
        # Files by a tree's hash are what is in it: the repository's own configuration, which may change them on the
        # way out, is not there, only its objects.
        sandbox = Sandbox(
            writable=(place,),
            mounts=(Mount(_REPOSITORY, Path(common.output.strip())),),
            environment={
                "GIT_DIR": str(empty),
                "GIT_OBJECT_DIRECTORY": str(_REPOSITORY / "objects"),
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_NO_LAZY_FETCH": "1",
            },
        )
        kind = "sha256" if len(name) == _SHA256_DIGITS else "sha1"
        commands: tuple[list[str | Path], ...] = (
            ["env", "-u", "GIT_OBJECT_DIRECTORY", *_GIT, "init", "-q", "--bare", f"--object-format={kind}", empty],
            [*_GIT, "archive", "--format=tar", "-o", packed, name],
            ["tar", "-x", "--no-same-owner", "-f", packed, "-C", unpacked],
        )
        for argv in commands:
            done = process.run(sandbox.argv(argv), deadline)
            if done.status != 0:
                raise InfraError(f"cannot export {rev} of {repository}: {done.output.strip()}")
        unpacked.chmod(0o755)
        unpacked.rename(target)
    except OSError:
        if not target.is_dir():  # somebody else was quicker
            raise
    finally:
        remove(place)
    return target


def _git_directory(repository: Path) -> Path:
    """The repository itself if it is bare, else what is in its checkout."""
    return repository if (repository / "objects").is_dir() else repository / ".git"


def _git(words: list[str], environment: Mapping[str, str], deadline: Deadline) -> process.Completed:
    return process.run([*_GIT, *words], deadline.sooner(60, what="git"), environment=environment)
