"""Source trees: which release they are, hashes of their parts, and revisions out of repositories."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild import releases
from dfbuild.build.dragonfly import within
from dfbuild.build.recipe import Kitchen, Recipe
from dfbuild.build.store import ArtefactStore
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed, InfraError, UsageError
from dfbuild.model import StepKind
from dfbuild.source import Tree, detect, open_tree, patched
from dfbuild.source.hashes import Hashes
from dfbuild.workspace import Workspace

PARAM = "sys/sys/param.h"


def tree(path: Path, version: int = 120006) -> Path:
    (path / PARAM).parent.mkdir(parents=True)
    (path / PARAM).write_text(f"#undef X\n#define __DragonFly_version {version}\t/* \xe9 */\n", encoding="latin-1")
    (path / "bin").mkdir()
    (path / "bin/one").write_text("1")
    return path


def git(directory: Path, *words: str) -> str:
    argv = ["git", "-c", "user.name=n", "-c", "user.email=e@x", "-c", "init.defaultBranch=main", *words]
    return subprocess.run(argv, cwd=directory, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work")


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(60)


@pytest.mark.parametrize(("version", "name"), [(100000, "1.0"), (120006, "1.2"), (140000, "1.4")])
def test_releases_are_told_apart(tmp_path: Path, version: int, name: str) -> None:
    assert detect(tree(tmp_path / "tree", version)) == name


@given(version=st.integers(100000, 999999))
def test_no_two_releases_claim_a_tree(version: int) -> None:
    import re

    line = f"#define __DragonFly_version {version}\n"
    known = [releases.load(name).source for name in releases.available()]
    claims = [s for s in known if s is not None and s.file == PARAM and re.search(s.pattern, line, re.MULTILINE)]
    assert len(claims) <= 1


def test_what_is_no_source_tree_is_refused_with_the_cure(
    tmp_path: Path, workspace: Workspace, deadline: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DFBUILD_SRC", raising=False)
    for source in (None, "", str(tmp_path), str(tmp_path / "none"), str(tree(tmp_path / "newer", 999999))):
        with pytest.raises(UsageError) as caught:
            open_tree(source, workspace, deadline)
        assert "--src" in caught.value.hint
    plain = str(tree(tmp_path / "plain"))
    with pytest.raises(UsageError, match="unknown release 'bogus'"):
        open_tree(plain, workspace, deadline, release="bogus")


def test_a_tree_can_be_named_by_environment_and_its_release_by_hand(
    tmp_path: Path, workspace: Workspace, deadline: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFBUILD_SRC", str(tree(tmp_path / "tree")))
    assert open_tree(None, workspace, deadline).release == "1.2"
    assert open_tree(None, workspace, deadline, release="1.4").release == "1.4"


def test_a_release_of_one_s_own_takes_its_trees_first(
    tmp_path: Path, workspace: Workspace, deadline: Deadline
) -> None:
    mine = releases.load("1.2").model_copy(update={"name": "mine"})
    known, other = str(tree(tmp_path / "tree")), str(tree(tmp_path / "other", 140000))
    assert open_tree(known, workspace, deadline, wanted=mine).release == "mine"
    assert open_tree(other, workspace, deadline, wanted=mine).release == "1.4"


def test_hashes_follow_content_links_and_executable_bits_only(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    hashes = Hashes(root, tmp_path / "memory")
    seen = [hashes.of("bin")]
    os.utime(root / "bin/one", (5, 5))
    (root / "bin/CVS").mkdir()
    (root / "bin/CVS/Entries").write_text("x")
    assert hashes.of("bin") == seen[0]
    assert Hashes(root, tmp_path / "other").of("bin") == seen[0]
    for change in (
        lambda: (root / "bin/one").write_text("2"),
        lambda: (root / "bin/one").chmod(0o755),
        lambda: (root / "bin/two").symlink_to("one"),
        lambda: (root / "bin/one").rename(root / "bin/three"),
        lambda: (root / "bin/empty").mkdir(),
    ):
        change()
        seen.append(hashes.of("bin"))
    assert len(set(seen)) == len(seen)
    assert hashes.of(PARAM) != hashes.of("bin")


def test_hashes_are_remembered_and_a_spoilt_memory_is_not_believed(tmp_path: Path) -> None:
    root, memory = tree(tmp_path / "tree"), tmp_path / "memory"
    whole = Hashes(root, memory).of("bin")
    written = memory.stat().st_mtime_ns
    assert Hashes(root, memory).of("bin") == whole
    assert memory.stat().st_mtime_ns == written
    for text in ("", "[]", "{", '{"bin/one": 7}', '{"bin/one": []}', '{"bin/one": [1, 2, 3, 4, "x"]}'):
        memory.write_text(text)
        assert Hashes(root, memory).of("bin") == whole


@pytest.mark.parametrize("change", ["write", "remove", "put back", "dated back", "break", "linked", "nothing"])
def test_what_is_built_from_a_tree_that_changes_meanwhile_is_not_kept(
    tmp_path: Path, workspace: Workspace, deadline: Deadline, change: str
) -> None:
    root = tree(tmp_path / "tree")
    still = open_tree(str(root), workspace, deadline).still()

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        made = (root / "bin/one").read_text()
        match change:
            case "write":
                (root / "bin/one").write_text("edited")
            case "remove":
                (root / "bin/one").unlink()
            case "put back":
                (root / "bin/one").write_text("edited")
                (root / "bin/one").write_text(made)
            case "dated back":
                status = (root / "bin/one").stat()
                (root / "bin/one").write_text("2"[: len(made)])
                os.utime(root / "bin/one", ns=(status.st_atime_ns, status.st_mtime_ns))
            case "linked":
                os.link(root / "bin/one", tmp_path / "another")
            case "break":
                (root / "bin/one").write_text("edited")
                raise BuildFailed("edited: syntax error", component="bin")
        return {"made": made}

    recipe = Recipe(StepKind.WORLD, "world", {"tree": still.hash_of(["bin"])}, within.steady(still, ["bin"], make))
    store = ArtefactStore(workspace)
    if change in ("linked", "nothing"):
        assert store.make(recipe, (), deadline, print).facts == {"made": (root / "bin/one").read_text()}
        return
    with pytest.raises(InfraError, match="was changed while it was built from"):
        store.make(recipe, (), deadline, print)
    assert store.find(recipe) is None


def test_what_changes_between_key_and_build_is_told_before_anything_is_built(
    tmp_path: Path, workspace: Workspace, deadline: Deadline
) -> None:
    root = tree(tmp_path / "tree")
    still = open_tree(str(root), workspace, deadline).still()
    was = still.hash_of(["bin"])
    (root / "bin/one").write_text("edited")
    with pytest.raises(InfraError, match="was changed"), still.unchanged(["bin"], was):
        pytest.fail("built")


def test_a_tree_is_asked_in_the_middle_of_a_build(tmp_path: Path, workspace: Workspace, deadline: Deadline) -> None:
    root = tree(tmp_path / "tree")
    opened = open_tree(str(root), workspace, deadline)
    block = opened.unchanged(["bin"], opened.hash_of(["bin"]))
    with pytest.raises(InfraError, match="was changed"), block as require_unchanged:
        require_unchanged()
        (root / "bin/one").write_text("edited")
        with pytest.raises(InfraError, match="was changed"):
            require_unchanged()


@pytest.mark.parametrize("name", [".one.swp", "one~", ".#one", "#one#"])
def test_what_editors_keep_beside_a_file_is_no_source(
    name: str, tmp_path: Path, workspace: Workspace, deadline: Deadline
) -> None:
    root = tree(tmp_path / "tree")
    opened = open_tree(str(root), workspace, deadline)
    was = opened.hash_of(["bin"])
    with opened.unchanged(["bin"], was):
        (root / "bin" / name).write_text("not yet saved")
    assert opened.hash_of(["bin"]) == was


def test_a_work_directory_in_the_tree_is_refused(tmp_path: Path, deadline: Deadline) -> None:
    root = tree(tmp_path / "tree")
    with pytest.raises(UsageError, match="lies in the tree"):
        open_tree(str(root), Workspace(root / "work"), deadline)


def test_a_tree_that_stands_still_is_looked_at_once(
    tmp_path: Path, workspace: Workspace, deadline: Deadline
) -> None:
    opened = open_tree(str(tree(tmp_path / "tree")), workspace, deadline)
    still = opened.still()
    before = still.hash_of(["bin"])
    assert before == opened.hash_of(["bin"])
    (opened.path / "bin/one").write_text("2")
    assert still.hash_of(["bin"]) == before
    assert opened.hash_of(["bin"]) == opened.still().hash_of(["bin"]) != before


@pytest.mark.parametrize(
    ("link", "target", "refused"),
    [
        ("bin/two", "one", False),
        ("bin/two", "../sys/nowhere", False),
        ("bin/two", "../../elsewhere", True),
        ("bin/two", "/etc/passwd", True),
        ("lib", "bin", True),
    ],
)
def test_links_lead_to_what_is_hashed(
    tmp_path: Path, workspace: Workspace, deadline: Deadline, link: str, target: str, refused: bool
) -> None:
    root = tree(tmp_path / "tree")
    (root / link).symlink_to(target)
    opened = open_tree(str(root), workspace, deadline)
    if refused:
        with pytest.raises(UsageError, match=f"{link} is a symbolic link to {target}"):
            opened.hash_of([link.partition("/")[0]])
    else:
        assert opened.hash_of(["bin"])


def test_a_missing_part_is_the_users_mistake(tmp_path: Path, workspace: Workspace, deadline: Deadline) -> None:
    opened = open_tree(str(tree(tmp_path / "tree")), workspace, deadline)
    assert opened.hash_of(["bin", PARAM]) == opened.hash_of([PARAM, "bin", "bin"])
    with pytest.raises(UsageError, match="no sbin/init"):
        opened.hash_of(["bin", "sbin/init"])


@pytest.mark.parametrize("bare", [False, True])
def test_revisions_come_out_of_repositories(
    tmp_path: Path, workspace: Workspace, deadline: Deadline, bare: bool
) -> None:
    repository = tree(tmp_path / "tree")
    git(repository, "init", "-q")
    for number in (1, 2):
        (repository / "bin/one").write_text(str(number))
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", str(number))
    git(repository, "tag", "first", "HEAD~1")
    if bare:
        git(tmp_path, "clone", "-q", "--bare", str(repository), "bare.git")
        repository = tmp_path / "bare.git"
    index = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}
    first = open_tree(str(repository), workspace, deadline, rev="first")
    assert (first.path / "bin/one").read_text() == "1"
    assert first.release == "1.2"
    assert first.path.is_relative_to(workspace.root)
    assert open_tree(str(repository), workspace, deadline, rev="HEAD~1").path == first.path
    assert (open_tree(str(repository), workspace, deadline, rev="main").path / "bin/one").read_text() == "2"
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*")} == index
    for wrong in ("none-such", "--output=x", "first:bin/one"):
        with pytest.raises(UsageError, match="has no revision"):
            open_tree(str(repository), workspace, deadline, rev=wrong)


def test_what_comes_out_is_what_is_in_it_whatever_the_repository_says(
    tmp_path: Path, workspace: Workspace, deadline: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tree(tmp_path / "tree")
    git(repository, "init", "-q")
    (repository / "bin/one").write_text("1\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "x")
    git(repository, "config", "core.autocrlf", "true")
    (repository / ".git/info").mkdir(exist_ok=True)
    (repository / ".git/info/attributes").write_text("sys export-ignore\n")
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "elsewhere"))
    exported = open_tree(str(repository), workspace, deadline, rev="main")
    assert (exported.path / "bin/one").read_bytes() == b"1\n" and (exported.path / PARAM).is_file()


def test_a_submodule_has_revisions_too(tmp_path: Path, workspace: Workspace, deadline: Deadline) -> None:
    inner, outer = tree(tmp_path / "inner"), tmp_path / "outer"
    outer.mkdir()
    for repository in (inner, outer):
        git(repository, "init", "-q")
        git(repository, "add", ".")
        git(repository, "commit", "-q", "--allow-empty", "-m", "x")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "dragonfly")
    assert (
        open_tree(str(outer / "dragonfly"), workspace, deadline, rev="HEAD").path / "bin/one"
    ).read_text() == "1"


def test_what_a_repository_has_git_run_can_do_nothing(
    tmp_path: Path, workspace: Workspace, deadline: Deadline
) -> None:
    repository = tree(tmp_path / "tree")
    git(repository, "init", "-q")
    (repository / ".gitattributes").write_text("* filter=x\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "x")
    touched = tmp_path / "touched"
    git(repository, "config", "filter.x.smudge", f"sh -c 'touch {touched}; cat'")
    exported = open_tree(str(repository), workspace, deadline, rev="main")
    assert (exported.path / "bin/one").read_text() == "1"
    assert not touched.exists()


def test_a_directory_that_is_no_repository_has_no_revisions(
    tmp_path: Path, workspace: Workspace, deadline: Deadline
) -> None:
    with pytest.raises(UsageError, match="is no git repository, and --rev"):
        open_tree(str(tree(tmp_path / "tree")), workspace, deadline, rev="main")


GOOD = """\
diff --git a/bin/one b/bin/one
--- a/bin/one
+++ b/bin/one
@@ -1 +1 @@
-1
\\ No newline at end of file
+one
diff --git a/bin/two b/bin/two
new file mode 100755
--- /dev/null
+++ b/bin/two
@@ -0,0 +1 @@
+two
"""


def patch(directory: Path, text: str, name: str = "fix.patch") -> Path:
    (directory / name).write_text(text)
    return directory / name


def snapshot(opened: Tree) -> dict[Path, int]:
    return {path: path.lstat().st_ctime_ns for path in opened.path.rglob("*")}


def test_patches_go_into_a_copy_and_the_tree_stays_as_it_is(
    tmp_path: Path, workspace: Workspace, deadline: Deadline
) -> None:
    given_tree = open_tree(str(tree(tmp_path / "tree")), workspace, deadline)
    before = snapshot(given_tree)
    made = patched(given_tree, [patch(tmp_path, GOOD)], workspace, deadline)
    assert snapshot(given_tree) == before
    assert (made.path / "bin/one").read_text() == "one\n"
    assert os.access(made.path / "bin/two", os.X_OK)
    assert made.path.is_relative_to(workspace.root)
    assert made.release == given_tree.release
    assert made.hash_of([PARAM]) == given_tree.hash_of([PARAM])
    assert made.hash_of(["bin"]) != given_tree.hash_of(["bin"])
    # The same again is the same copy, and what the user changes meanwhile another one.
    assert patched(given_tree, [patch(tmp_path, GOOD, "again.patch")], workspace, deadline).path == made.path
    (given_tree.path / "bin/three").write_text("3")
    assert (patched(given_tree, [patch(tmp_path, GOOD)], workspace, deadline).path / "bin/three").exists()


def test_patched_copies_share_what_no_patch_changes(
    tmp_path: Path, workspace: Workspace, deadline: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_tree = open_tree(str(tree(tmp_path / "tree")), workspace, deadline)
    said: list[str] = []
    other = "--- a/bin/one\n+++ b/bin/one\n@@ -1 +1 @@\n-1\n\\ No newline at end of file\n+other\n"
    patches = [patch(tmp_path, GOOD), patch(tmp_path, other, "other.patch")]
    first = patched(given_tree, patches[:1], workspace, deadline, said.append)
    second = patched(given_tree, patches[1:], workspace, deadline, said.append)
    assert len(said) == 1
    assert (first.path / PARAM).samefile(second.path / PARAM)
    assert not (first.path / PARAM).samefile(given_tree.path / PARAM)
    assert [(found.path / "bin/one").read_text() for found in (first, second)] == ["one\n", "other\n"]
    # What the tree itself has is known: only what a patch put there is read.
    read: list[str] = []

    def file_digest(file: IO[bytes], name: str) -> object:
        read.append(Path(file.name).name)
        return digest(file, name)

    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", file_digest)
    assert first.hash_of([PARAM]) == second.hash_of([PARAM]) == given_tree.hash_of([PARAM])
    assert first.hash_of(["bin"]) != second.hash_of(["bin"])
    assert sorted(read) == ["one", "one", "two"]


def test_a_copy_for_patches_in_which_somebody_wrote_is_none(
    tmp_path: Path, workspace: Workspace, deadline: Deadline
) -> None:
    given_tree = open_tree(str(tree(tmp_path / "tree")), workspace, deadline)
    patched(given_tree, [patch(tmp_path, GOOD)], workspace, deadline)
    (copy,) = workspace.sources.glob("copied-*/")
    (copy / PARAM).write_text("else\n")
    with pytest.raises(InfraError, match="somebody wrote there"):
        patched(given_tree, [patch(tmp_path, GOOD + "\n", "b.patch")], workspace, deadline)


def test_a_tree_for_reading_only_is_patched(tmp_path: Path, workspace: Workspace, deadline: Deadline) -> None:
    given_tree = open_tree(str(tree(tmp_path / "tree")), workspace, deadline)
    modes = {path: path.stat().st_mode for path in [given_tree.path, *given_tree.path.rglob("*")]}
    for path, mode in modes.items():
        path.chmod(mode & 0o555)
    made = patched(given_tree, [patch(tmp_path, GOOD)], workspace, deadline)
    assert (made.path / "bin").stat().st_mode & 0o700 == 0o700
    for path, mode in modes.items():
        path.chmod(mode)


def test_patches_are_applied_one_upon_the_other(tmp_path: Path, workspace: Workspace, deadline: Deadline) -> None:
    given_tree = open_tree(str(tree(tmp_path / "tree")), workspace, deadline)
    second = "--- a/bin/one\n+++ b/bin/one\n@@ -1 +1 @@\n-one\n+more\n"
    files = [patch(tmp_path, GOOD), patch(tmp_path, second, "second.patch")]
    assert (patched(given_tree, files, workspace, deadline).path / "bin/one").read_text() == "more\n"
    with pytest.raises(UsageError, match="bin/one:1") as caught:
        patched(given_tree, files[::-1], workspace, deadline)
    assert caught.value.file == files[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no patch at all\n",
        GOOD.replace("-1\n", "-7\n"),
        GOOD.replace("bin/two", "../two"),
        GOOD.replace("bin/two", ".git/hooks/two"),
    ],
)
def test_patches_that_do_not_apply_leave_nothing(
    text: str, tmp_path: Path, workspace: Workspace, deadline: Deadline
) -> None:
    given_tree = open_tree(str(tree(tmp_path / "tree")), workspace, deadline)
    with pytest.raises(UsageError, match=r"fix\.patch"):
        patched(given_tree, [patch(tmp_path, text)], workspace, deadline)
    assert list((workspace.root / "sources").glob("*")) == []
    with pytest.raises(UsageError, match="cannot read the patch"):
        patched(given_tree, [tmp_path / "none.patch"], workspace, deadline)
