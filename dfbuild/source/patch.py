"""A source tree with patches: a copy of its own in the work directory, since the tree is never written into."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from dfbuild import process
from dfbuild.deadline import Deadline
from dfbuild.errors import InfraError, UsageError
from dfbuild.sandbox import Sandbox
from dfbuild.source.hashes import no_source
from dfbuild.source.tree import Tree, opened
from dfbuild.workspace import Workspace, mark_used, remove


def patched(
    tree: Tree,
    patches: Sequence[Path],
    workspace: Workspace,
    deadline: Deadline,
    say: Callable[[str], None] = lambda _: None,
) -> Tree:
    """`tree` with the files `patches` applied one after the other, as git-apply(1) does with `-p1`.

    The same tree and patches are the same copy, made once; copies share the files that no patch changes. Raises
    `UsageError` for a patch that is not there or does not apply, naming file and line of the tree where it does
    not. `say` gets a line before the tree is copied.
    """
    texts = [_read(patch) for patch in patches]
    names = sorted(entry.name for entry in tree.path.iterdir() if not no_source(entry.name))
    was = tree.hash_of(names)
    total = hashlib.sha256(was.encode())
    for text in texts:
        total.update(hashlib.sha256(text).digest())
    target = workspace.sources / f"patched-{total.hexdigest()[:20]}"
    found = opened(target, tree.release, workspace)
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=target.parent, prefix=".patched-"))
        try:
            given = list(zip(patches, texts, strict=True))
            if len(given) == 1:  # A later one may need what an earlier one makes.
                _apply(*given[0], place / "checked", place, deadline, check=tree.path)
            base = _base(tree, names, was, place / "base", workspace, deadline, say)
            _patch(base, given, place, deadline)
            found.hashes.taken_over(base.hashes)
            _put(place / "tree", target)
        finally:
            remove(place)
    mark_used(target)
    return found


def _read(patch: Path) -> bytes:
    try:
        text = patch.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the patch {patch}: {error.strerror}", hint="--patch FILE") from error
    if not text.strip():
        raise UsageError("the patch is empty", file=patch, hint="`git diff` writes one")
    return text


def _base(
    tree: Tree,
    names: Sequence[str],
    was: str,
    copy: Path,
    workspace: Workspace,
    deadline: Deadline,
    say: Callable[[str], None],
) -> Tree:
    """The tree as it is without patches, where nobody writes to it any more: an exported revision is that, of a
    checkout a copy is made, once."""
    if tree.path.parent == workspace.sources:
        return tree
    target = workspace.sources / f"copied-{was[:20]}"
    base = opened(target, tree.release, workspace)
    if not target.is_dir():
        say(f"copying {tree.path}, for patches")
        copy.mkdir()
        with tree.unchanged(names, was):
            _run(["cp", "-a", "--", *(tree.path / name for name in names), copy], deadline)
            _run(["chmod", "-R", "u+rwX", copy], deadline)  # A checkout may be for reading only.
        _put(copy, target)
    mark_used(target)
    if base.hash_of(names) != was:
        raise InfraError(
            f"{target} is not what {tree.path} was when it was copied", hint="somebody wrote there: remove it"
        )
    return base


def _patch(base: Tree, patches: Sequence[tuple[Path, bytes]], place: Path, deadline: Deadline) -> None:
    """Make `place`/tree of hard links to `base`, and of what the patches change: git-apply(1) puts a new file where
    it changes one."""
    copy = place / "tree"
    _run(["cp", "-al", "--", base.path, copy], deadline)
    for number, (patch, text) in enumerate(patches):
        _apply(patch, text, place / str(number), copy, deadline)


def _put(made: Path, target: Path) -> None:
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():  # somebody else was quicker
            raise


def _run(argv: Sequence[str | Path], deadline: Deadline) -> None:
    done = process.run(argv, deadline)
    if done.status != 0:
        raise InfraError(f"cannot copy a tree for its patches: {done.output.strip()}")


def _apply(
    patch: Path, text: bytes, here: Path, copy: Path, deadline: Deadline, *, check: Path | None = None
) -> None:
    """Apply one patch to `copy`, or only look whether it applies to the tree `check`.

    In a sandbox, for it may name any file.
    """
    here.write_bytes(text)
    sandbox = Sandbox(
        writable=(copy,),
        readable=(here, *([check] if check else [])),
        cwd=check or copy,
        # No repository is asked, not even the tree's own: it may be somebody else's.
        environment={
            "GIT_DIR": str(copy / "none"),
            "GIT_WORK_TREE": str(check or copy),
            "GIT_CONFIG_NOSYSTEM": "1",
        },
    )
    argv: list[str | Path] = ["git", "apply", *(["--check"] if check else []), "-p1", "--whitespace=nowarn", here]
    done = process.run(sandbox.argv(argv), deadline.sooner(60, what="git apply"))
    if done.status != 0:
        said = done.output.replace(f"{here}", patch.name).strip().splitlines()
        raise UsageError(
            f"the patch does not apply: {'; '.join(line.removeprefix('error: ') for line in said[:4])}",
            file=patch,
            hint=_cure(done.output),
        )


def _cure(said: str) -> str:
    """What to do about what git-apply(1) says."""
    if "patch does not apply" in said:
        return "the file is another one than it was made for, by its lines or their ends, or has the change already"
    if "No valid patches" in said or "corrupt patch" in said or "unrecognized input" in said:
        return "it is no patch, or not a whole one; `git diff` and `diff -u` write them"
    return "paths are of the tree below one directory more, as `git diff` writes them (a/sys/…, b/sys/…)"
