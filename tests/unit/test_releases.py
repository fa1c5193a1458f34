"""Releases' data: what is shipped holds together, and what would not is told where it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfbuild import filter, releases
from dfbuild.errors import UsageError
from dfbuild.model import Cell, Shape, Variant
from dfbuild.releases import Release
from dfbuild.releases.schema import Crash
from dfbuild.suites.run import available
from dfbuild.toml import InvalidFile

SHIPPED = [releases.load(name) for name in releases.available()]
CRASHES = [
    pytest.param(crash, id=f"{release.name}-{crash.name}")
    for release in SHIPPED
    for crash in release.console.crashes
]

SMALL = """\
name = "small"
title = "Hardly anything"
target = "reference"
elf_machine = "EM_X86_64"
probes = "/probes"
suites = ["security"]
[toolchains.gcc-12]
cc = "gcc-12"
comment = "GCC: "
[stack_protectors.on]
[kernels.smp]
[[console.stages]]
name = "login"
pattern = "login: "
deadline = 5
[[console.crashes]]
name = "panic"
literal = "panic: "
pattern = 'panic: (.+)'
title = "panic {1}"
"""


def read(directory: Path, text: str) -> Release:
    (directory / "small.toml").write_text(text)
    return releases.load("./small.toml", directory)


@pytest.mark.parametrize("release", SHIPPED, ids=lambda release: release.name)
def test_what_is_shipped_loads(release: Release) -> None:
    assert release.name in releases.available()
    assert releases.load(release.name) is release, "read once"


@pytest.mark.parametrize("crash", CRASHES)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data())
def test_no_crash_is_missed_for_its_literal(crash: Crash, data: st.DataObject) -> None:
    """The monitor looks for the literal first: whatever the pattern matches must contain it."""
    alphabet = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
    line = data.draw(st.from_regex(re.compile(crash.pattern, re.ASCII | re.MULTILINE), alphabet=alphabet))
    found = re.search(crash.pattern, line, re.ASCII | re.MULTILINE)
    assert found is not None
    assert crash.literal in line
    assert crash.title.format(found[0], *found.groups(""))


def test_a_small_release(tmp_path: Path) -> None:
    release = read(tmp_path, SMALL)
    assert (release.name, release.shell.ssh, release.suites) == ("small", None, ("security",))


def test_unknown_releases_get_a_hint() -> None:
    with pytest.raises(UsageError, match="unknown release 'referense'") as caught:
        releases.load("referense")
    assert "did you mean 'reference'?" in caught.value.hint
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        releases.load("./nothing.toml")


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "message"),
    [
        ('name = "small"', 'name = "tiny"', 1, "name", "expected the file's name, 'small', found 'tiny'"),
        ('target = "reference"', 'target = "os.path"', 3, "target", "expected text that matches"),
        ("elf_machine", "elf_mashine", 4, "elf_mashine", "unknown key"),
        ('"GCC: "', '"GCC: ("', 9, "toolchains.gcc-12.comment", "not a regular expression"),
        ("[kernels.smp]", "[kernels]", 11, "kernels", "expected at least one entry"),
        ("[kernels.smp]", '[kernels."a/b"]', 11, 'kernels."a/b"', "expected a name that is text that matches"),
        ("[kernels.smp]", "[kernels.smp]\nlike = 'up'", 12, "kernels.smp.like", "'up' is no kernel that is built"),
        (
            "[kernels.smp]",
            "[kernels.smp]\ntunables = { 'a.b' = '1\"' }",
            12,
            'kernels.smp.tunables."a.b"',
            "matches",
        ),
        ("deadline = 5", "deadline = 0", 15, "console.stages[0].deadline", "expected more than 0, found 0"),
        ("deadline = 5", 'deadline = "5"', 15, "console.stages[0].deadline", 'expected a number, found "5"'),
        ("deadline = 5", "deadline = inf", 15, "console.stages[0].deadline", "expected a number, found inf"),
        (
            'pattern = "login: "',
            'pattern = "lo[gin: "',
            14,
            "console.stages[0].pattern",
            "not a regular expression",
        ),
        ('pattern = "login: "', 'pattern = "(login: )?"', 14, "console.stages[0].pattern", "nothing at all"),
        ('literal = "panic: "', 'literal = "Panic: "', 18, "console.crashes[0].literal", "does not occur"),
        ('literal = "panic: "', 'literal = ""', 18, "console.crashes[0].literal", "expected some text"),
        ("'panic: (.+)'", "'panic: .+'", 20, "console.crashes[0].title", "{1} stands for nothing"),
        ('"panic {1}"', '"panic {1.__class__}"', 20, "console.crashes[0].title", "stands for nothing"),
        ('"panic {1}"', '"panic {}"', 20, "console.crashes[0].title", "{} stands for nothing"),
        ('"panic {1}"', '"panic {1"', 20, "console.crashes[0].title", "not a format string"),
        ('"panic {1}"', '"panic"\nverdict = "PANICK"', 21, "console.crashes[0].verdict", "expected 'PASS'"),
        ('"panic {1}"', '"panic"\nverdict = "PASS"', 21, "console.crashes[0].verdict", "a crash is no PASS"),
        ('"panic {1}"', '"panic {1:d}"', 20, "console.crashes[0].title", "{1} is put in as it is"),
        ('"panic {1}"', '"panic {1!r}"', 20, "console.crashes[0].title", "{1} is put in as it is"),
        ("'panic: (.+)'", "'panic: (.+)x{4294967296}'", 19, "console.crashes[0].pattern", "not a regular expr"),
        ("", "[[refuse]]\nwhen = 'cpuz=1'\nreason = 'x'\n", 22, "refuse[0].when", "unknown attribute 'cpuz'"),
        ("", "[[refuse]]\nwhen = ''\nreason = 'x'\n", 22, "refuse[0].when", "expected something that is not empty"),
        ("", "[[refuse]]\nwhen = 'nx=on'\n", 21, "refuse[0].reason", "this key is missing"),
        ("", "[[expect]]\ncheck = ''\noutcome = 'n/a'\n", 22, "expect[0].check", "not empty"),
        (
            "",
            "[[expect]]\ncheck = 'nx-*'\noutcome = 'n/a'\n",
            22,
            "expect[0].check",
            "expected a glob over suite/name",
        ),
        ("", "[[expect]]\ncheck = 'sec/x'\noutcome = 'n/a'\n", 22, "expect[0].check", "no suite is called 'sec'"),
        ("", "[[expect]]\ncheck = 'sec*/x'\noutcome = 'na'\n", 23, "expect[0].outcome", "expected 'pass', 'known'"),
        (
            "",
            "[[expect]]\ncheck = '*/x'\noutcome = 'n/a'\nwhen = 'toolchain=gcc-13'\n",
            24,
            "expect[0].when",
            "toolchain is never 'gcc-13'",
        ),
        (
            "",
            "[wire]\ninterface = { e1000 = 'e' }\nconfigure = 'ip {adress}'\n",
            23,
            "wire.configure",
            "{adress} stands for",
        ),
        ("", "[shell.serial]\nprompt = '*'\n", 22, "shell.serial.prompt", "not a regular expression"),
        (
            "",
            "[[console.stages]]\nname = 'login'\npattern = 'x'\ndeadline = 1\n",
            22,
            "console.stages[1].name",
            "'login' is there already",
        ),
    ],
)
def test_errors(tmp_path: Path, old: str, new: str, line: int, key: str, message: str) -> None:
    text = SMALL.replace(old, new, 1) if old else SMALL + new
    assert text != SMALL
    with pytest.raises(InvalidFile) as caught:
        read(tmp_path, text)
    found = [(problem.line, problem.key, problem.message) for problem in caught.value.problems]
    assert [entry[:2] for entry in found if message in entry[2]] == [(line, key)], found
    assert caught.value.file == tmp_path / "./small.toml"


def refusals(toolchain: str = "gcc-12", **fields: str | int) -> list[str]:
    release = releases.load("reference")
    shape = Shape("x", **{**release.shape.given(), **fields})
    attributes = Cell(Variant(release.name, toolchain, "on", "smp"), shape).attributes()
    return [rule.reason for rule in release.refuse if filter.compile(rule.when)(attributes)]


def test_the_reference_guest_refuses_what_cannot_be() -> None:
    assert refusals() == []
    assert refusals(cpu="Haswell-noTSX") == []
    assert refusals(cpu="kvm64") == []
    (reason,) = refusals(cpu="kvm32")
    assert "long mode" in reason
    (reason,) = refusals(memory=71)
    assert "72 MiB" in reason
    assert refusals(hypervisor="xen-pvh", disk="xen-blk", nic="xen-net", console="xen") == []
    (reason,) = refusals("gcc34")
    assert "DragonFly" in reason


@pytest.mark.parametrize("name", releases.available())
def test_suites_of_releases_are_there(name: str) -> None:
    assert set(releases.load(name).suites) <= set(available())
