"""One command of a build step: logged, watched for banners, ended with its deadline."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from dfbuild.build import step
from dfbuild.build.recipe import Kitchen
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed, BuildKilled, DeadlineExceeded, HostFull
from dfbuild.sandbox import Sandbox
from dfbuild.workspace import Workspace

BANNER = re.compile(rb"===> *(.*\S)")


def kitchen(tmp_path: Path, said: list[str], seconds: float = 60) -> Kitchen:
    directory = tmp_path / "kitchen"
    directory.mkdir()
    return Kitchen(
        directory=directory,
        needs=(),
        workspace=Workspace(tmp_path),
        deadline=Deadline.after(seconds, what="the step"),
        log=tmp_path / "logs" / "step.log",
        say=said.append,
    )


def sh(place: Kitchen, script: str, banner: re.Pattern[bytes] | None = BANNER) -> None:
    place.log.parent.mkdir(exist_ok=True)
    step.run(place, Sandbox(writable=(place.directory,)), ["sh", "-c", script], "bin/part", banner)


def test_banners_are_progress_and_everything_is_logged(tmp_path: Path) -> None:
    said: list[str] = []
    place = kitchen(tmp_path, said)
    sh(place, r"printf '===> one \nno ===> banner\n==='; sleep 0.1; printf '> two\377\n===>\nlast'; echo error >&2")
    assert said == ["one", "two�"]
    log = (tmp_path / "logs" / "bin-part.log").read_bytes()
    assert log.startswith(b"$ sh -c ")
    assert log.endswith(b"===> one \nno ===> banner\n===> two\xff\n===>\nlasterror\n")


def test_a_full_disk_is_not_the_trees_fault(tmp_path: Path) -> None:
    with pytest.raises(HostFull, match=r"bin/part: the disk is full, see .*bin-part\.log") as caught:
        sh(kitchen(tmp_path, []), "echo 'cat: write error: No space left on device' >&2; exit 1")
    assert caught.value.hint == f"`dfbuild clean --work {tmp_path}` makes room"


def test_a_program_that_is_run_twice_has_said_what_it_said_this_time(tmp_path: Path) -> None:
    place = kitchen(tmp_path, [])
    place.log.parent.mkdir(exist_ok=True)
    run = step.runner(place)
    assert [run(["sh", "-c", f"echo {word}"], {}) for word in ("one", "two")] == ["one\n", "two\n"]


@pytest.mark.parametrize("banner", [BANNER, None])
def test_a_failure_has_its_component_and_last_lines(tmp_path: Path, banner: re.Pattern[bytes] | None) -> None:
    place = kitchen(tmp_path, [])
    with pytest.raises(BuildFailed, match="status 7") as caught:
        sh(place, "seq 1000; echo the reason; exit 7", banner)
    assert caught.value.component == "bin/part"
    assert caught.value.tail.endswith("1000\nthe reason")


@pytest.mark.parametrize(
    ("script", "killed"), [("kill -KILL $$", True), ("sh -c 'kill -KILL $$'", True), ("exit 1", False)]
)
def test_what_a_signal_ended_is_told_apart(tmp_path: Path, script: str, killed: bool) -> None:
    with pytest.raises(BuildFailed) as caught:
        sh(kitchen(tmp_path, []), script)
    assert isinstance(caught.value, BuildKilled) is killed


def test_output_is_what_was_printed_and_not_what_was_complained_of(tmp_path: Path) -> None:
    place = kitchen(tmp_path, [])
    place.log.parent.mkdir()
    inside = Sandbox(writable=(place.directory,))
    for _ in range(2):
        script = r"echo odd: warning >&2; printf 'one\ntwo\377'"
        assert step.output(place, inside, ["sh", "-c", script], "names") == "one\ntwo\udcff"
    assert "odd: warning" in (tmp_path / "logs/names.log").read_text()
    with pytest.raises(BuildFailed, match=r"^names: x\.c:1: error: odd") as caught:
        step.output(place, inside, ["sh", "-c", "printf prin%s ted; echo x.c:1: error: odd >&2; exit 1"], "names")
    assert "printed" not in caught.value.tail


def test_the_error_is_what_is_told(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"^bin/part: x\.c:1: error: odd") as caught:
        sh(kitchen(tmp_path, []), "seq 1000; echo x.c:1: error: odd; seq 30; exit 1")
    assert caught.value.tail.endswith("29\n30")


def test_what_is_told_is_for_this_host_and_the_log_is_as_it_was(tmp_path: Path) -> None:
    error, command = "/usr/src/sys/x.c:1: error: odd", "cc " + 300 * "-Wwarn "
    with pytest.raises(BuildFailed, match=r"^bin/part: sys/x\.c:1: error: odd") as caught:
        sh(kitchen(tmp_path, []), f"echo {command}; echo {error}; exit 1")
    *_, shortened, last = caught.value.tail.split("\n")
    assert last == "sys/x.c:1: error: odd" and len(shortened) <= 200
    assert caught.value.log is not None
    assert caught.value.log.read_text().endswith(f"{command.strip()}\n{error}\n")


@pytest.mark.parametrize("banner", [BANNER, None])
@pytest.mark.parametrize("script", ["echo x; sleep 1000", "exec >&- 2>&-; sleep 1000", "while :; do echo x; done"])
def test_the_deadline_ends_it(tmp_path: Path, banner: re.Pattern[bytes] | None, script: str) -> None:
    with pytest.raises(DeadlineExceeded):
        sh(kitchen(tmp_path, [], seconds=0.5), script, banner)


def test_lines_without_end_do_not_pile_up(tmp_path: Path) -> None:
    said: list[str] = []
    sh(kitchen(tmp_path, said), "head -c 5000000 /dev/zero; echo; echo '===> after'")
    assert said == ["after"]


def test_a_build_stands_behind_guests(tmp_path: Path) -> None:
    sh(kitchen(tmp_path, []), "nice")
    assert (tmp_path / "logs" / "bin-part.log").read_text().splitlines()[1:] == [str(min(os.nice(0) + 10, 19))]
