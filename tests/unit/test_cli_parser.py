"""The command line: quick to answer, exit statuses that mean something."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from results_samples import fill

from dfbuild.cli import main
from dfbuild.cli.parser import build
from dfbuild.workspace import Workspace

HEAVY = {
    "pydantic",
    "paramiko",
    "rich",
    "scapy",
    "scipy",
    "jinja2",
    "qemu",
    "pexpect",
    "pytest",
    "asyncio",
    "sqlite3",
}


def test_help_imports_nothing_heavy() -> None:
    """`--help` is answered at once because nothing is imported that it does not need."""
    code = (
        "import sys; from dfbuild.cli.parser import build; build().format_help(); "
        "print(' '.join({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_every_command_names_a_function_that_exists() -> None:
    """The parser names functions as text; each must be there when it is called."""
    import argparse
    import importlib

    def targets(parser: argparse.ArgumentParser) -> set[str]:
        found = {parser.get_default("run")} - {None}
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for sub in action.choices.values():
                    found |= targets(sub)
        return found

    names = targets(build())
    assert len(names) >= 10
    for name in names:
        module, function = name.split(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_a_wrong_option_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as exit:
        main(["matrix", "--nonsense"])
    assert exit.value.code == 2


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["reprot"], "report"),
        (["image", "improt"], "import"),
        (["matrix", "x.toml", "--via", "serail"], "serial"),
        (["nothing-like-it"], ""),
    ],
)
def test_a_misspelt_word_is_told_with_what_may_be_meant(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main(words)
    assert exit.value.code == 2
    told = capsys.readouterr().err
    assert "invalid choice" in told
    assert told.endswith(f"\n  hint: did you mean {meant!r}?\n") if meant else "hint" not in told


def test_a_missing_file_is_a_usage_error_with_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "/nonexistent/matrix.toml"]) == 2
    assert "/nonexistent/matrix.toml" in capsys.readouterr().err


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets `dfbuild runs` end with an `OSError` of these arguments."""

    def refuse(*what: object) -> None:
        def runs(arguments: object) -> int:
            raise OSError(*what)

        monkeypatch.setattr("dfbuild.cli.report.runs", runs)

    return refuse


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("named", [True, False])
def test_a_full_disk_is_told_with_where_it_is_and_what_can_go(
    number: int,
    named: bool,
    refused: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    work = tmp_path / "my work"
    refused(number, "not so", *([str(work / "log")] if named else []))
    what = os.strerror(number)
    where = f"{work}/log: {what}" if named else f"{what}; the work directory is {work}"
    assert main(["runs", "--work", str(work)]) == 3
    told = capsys.readouterr().err
    assert told.startswith(f"dfbuild: {where}\n  hint: `dfbuild clean --work '{work}'` removes ")
    monkeypatch.setenv("DFBUILD_WORK", str(work))
    assert main(["runs"]) == 3
    assert capsys.readouterr().err.startswith(f"dfbuild: {where}\n  hint: `dfbuild clean` removes ")


def test_an_error_that_says_too_little_is_told_with_where_it_was(
    refused: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    refused(errno.EBADF, "not so")
    assert main(["runs"]) == 3
    told = capsys.readouterr().err
    assert "Traceback" in told and told.endswith("dfbuild: a defect of dfbuild: see above\n")


@pytest.mark.parametrize(
    ("words", "variable"),
    [(["runs", "--work", "~nobody-at-all/x"], ""), (["runs"], "~nobody-at-all/x"), (["matrix", "x\0.toml"], "")],
)
def test_what_is_no_path_is_a_usage_error(
    words: list[str], variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DFBUILD_WORK", variable)
    assert main(words) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_the_characters_gets_their_numbers(encoding: str, tmp_path: Path) -> None:
    run = fill(Workspace(tmp_path), worse=True)
    done = subprocess.run(
        [sys.executable, "-m", "dfbuild", "report", run, "--work", str(tmp_path)],
        env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, text=True, encoding=encoding,
    )  # fmt: skip
    assert "\\u20" in done.stdout and not done.stderr


def test_a_file_that_the_host_refuses_is_told_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace(tmp_path)
    run = fill(workspace)
    file = tmp_path / ("x" * 300)
    assert main(["report", run, "--work", str(tmp_path), "--html", str(file)]) == 3
    assert capsys.readouterr().err == f"dfbuild: {file}: {os.strerror(errno.ENAMETOOLONG)}\n"


def test_a_run_with_options_of_another_version_is_shown(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    run = fill(workspace)
    with sqlite3.connect(workspace.database) as db:
        db.execute(
            "UPDATE runs SET command = ?", (json.dumps(["dfbuild", "matrix", "--jobs", "4", "--guests", "0"]),)
        )
    assert main(["report", run, "--work", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    "words", [["matrix", "x.toml"], ["clean"], ["runs"], ["guest", "list"], ["image", "list"], ["doctor"]]
)
def test_a_work_directory_that_is_a_file_is_a_usage_error(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main([*words, "--work", str(file)]) == 2
    assert capsys.readouterr().err.startswith(
        f"dfbuild: {file} cannot be the work directory: it is a file\n  hint: "
    )


@pytest.mark.parametrize(
    "words",
    [
        ["matrix", "--resume"],
        ["clean"],
        ["runs"],
        ["report"],
        ["guest", "list"],
        ["image", "list"],
        ["image", "remove", "x"],
    ],
)
@pytest.mark.parametrize("by_variable", [False, True])
def test_what_only_looks_makes_no_work_directory(
    words: list[str],
    by_variable: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "none" / "such"
    monkeypatch.setenv("DFBUILD_WORK", str(place))
    assert main([*words, *([] if by_variable else ["--work", str(place)])]) == 2
    assert capsys.readouterr().err.startswith(f"dfbuild: there is no work directory {place}\n  hint: ")
    assert not place.parent.exists()


def test_an_empty_variable_names_no_work_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DFBUILD_WORK", raising=False)
    usual = Workspace.locate()
    monkeypatch.setenv("DFBUILD_WORK", "")
    assert Workspace.locate() == Workspace.locate("") == usual


@pytest.mark.parametrize("word", ["--guests", "--boots", "--memory"])
@pytest.mark.parametrize("number", ["0", "-3", "1.5", "x"])
def test_limits_are_one_or_more(word: str, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["matrix", "x.toml", word, number])
    assert exit.value.code == 2
    assert f"argument {word}: {number!r} is not a whole number above 0" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completions_know_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completions", shell]) == 0
    assert "doctor" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["matrix", "release", "report"])
def test_schemas_are_json_schemas(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    import jsonschema

    assert main(["schema", what]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]
