"""Reading what the programs in the guest print."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.deadline import Deadline
from dfbuild.shell.protocol import Answer
from dfbuild.suites.probe import ProbeError, Probes, Report, integers, parse


def answer(output: str | bytes, status: int = 0) -> Answer:
    return Answer("/probe", status, output.encode() if isinstance(output, str) else output)


def test_a_report() -> None:
    report = parse("hogs", answer("home=0 1\r\ncpu=1.5 2\r\nstack=ran\r\nempty=\r\nend=ok\r\n"))
    assert report.integers("home", 2) == (0, 1)
    assert report.numbers("cpu") == (1.5, 2.0)
    assert report["stack"] == "ran"
    assert report.one_of("stack", "ran", "blocked") == "ran"
    assert "empty" in report
    assert "end" not in report


def test_hexadecimal() -> None:
    assert Report("layout", {"stack": "ff 10"}).integers("stack", base=16) == (255, 16)


@pytest.mark.parametrize(
    "seen",
    [
        answer("a=1\nend=ok\n", status=139),
        answer("a=1\nend=ok\n", status=2),
        answer("a=1\n"),
        answer(""),
        answer("a=1\nend=ok\nSegmentation fault\n"),
        answer("sh: nx: not found\n", status=127),
        answer(b"a=\xff\x00\nend=o"),
        answer("A=1\nend=ok"),
    ],
)
def test_half_a_report_is_none(seen: Answer) -> None:
    with pytest.raises(ProbeError):
        parse("nx", seen)


@given(st.binary(), st.integers(0, 255))
def test_nothing_but_a_report_or_an_error(output: bytes, status: int) -> None:
    try:
        report = parse("nx", answer(output, status))
    except ProbeError:
        return
    assert status == 0
    assert "end" not in report


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_numbers_come_back(values: list[float]) -> None:
    printed = " ".join(f"{value:.3f}" for value in values)
    found = parse("latency", answer(f"fork={printed}\nend=ok\n")).numbers("fork", len(values))
    assert found == pytest.approx(values, abs=0.001)


@pytest.mark.parametrize("text", ["", "x", "1 x", "nan", "inf 1", "1"])
def test_a_list_that_is_not_one(text: str) -> None:
    with pytest.raises(ProbeError, match="fork"):
        Report("latency", {"fork": text}).numbers("fork", 2)


def test_a_value_that_proves_nothing() -> None:
    with pytest.raises(ProbeError, match="proves nothing"):
        Report("nx", {"stack": "crashed"}).one_of("stack", "ran", "blocked")
    with pytest.raises(ProbeError, match="heap"):
        Report("nx", {"stack": "ran"})["heap"]


@dataclass
class OneShell:
    """Answers every command alike."""

    output: str
    via: str = "fake"
    commands: list[str] = field(default_factory=list)

    def run(self, command: str, deadline: Deadline, *, stdin: bytes = b"") -> Answer:
        deadline.check()
        self.commands.append(command)
        return answer(self.output)

    def put(self, source: Path, target: str, deadline: Deadline) -> None: ...
    def get(self, source: str, target: Path, deadline: Deadline) -> None: ...
    def close(self) -> None: ...


def test_running_one() -> None:
    shell = OneShell("a=1\nend=ok")
    probe = Probes(shell, "/usr/libexec/x y", Deadline.after(10).sooner)
    assert probe("hogs", 2, 500, "free").integers("a") == (1,)
    assert shell.commands == ["'/usr/libexec/x y/hogs' 2 500 free"]


def test_what_a_command_says_is_as_many_integers_as_are_asked_for() -> None:
    assert integers("1024 5000\n", 2) == integers("1024\n5000") == [1024, 5000]
    for said, count in (("", None), ("none", None), ("1 2", 1), ("1", 2), ("1.5", 1)):
        with pytest.raises(ProbeError, match="the guest said"):
            integers(said, count)
