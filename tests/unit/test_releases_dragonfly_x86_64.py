"""What is known about the 64-bit line, held against recorded consoles and against the suites' own checks."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

import pytest

from dfbuild import releases
from dfbuild.build.dragonfly import data
from dfbuild.console.monitor import Monitor
from dfbuild.console.stages import BootTracker
from dfbuild.suites.names import FROM_GUESTS, names

RECORDED = Path(__file__).parents[1] / "recorded" / "dragonfly"
MASTER = releases.load("master")


@pytest.mark.parametrize(
    "before", [b"|\x08/\x08-\x08\\\x08" * 2000, b"\r\ndfly login: ", b"# ", b"\xe4\xe2\x8a", b"x\r"], ids=repr
)
def test_a_panic_begins_no_line_of_its_own(before: bytes) -> None:
    monitor = Monitor(MASTER.console.crashes)
    crash = monitor.feed(
        before + b"panic: stack smashed in the function around 0xffffffff80b6ab56\r\ncpuid = 0\r\n", 0
    )
    assert crash and crash.title == "panic: stack smashed in the function around 0xffffffff80b6ab56"


@pytest.mark.parametrize("log", ["5.9-x86_64-disk-boot.log", "5.9-x86_64-uefi-disk-boot.log"])
def test_a_boot_from_disk_is_followed(log: str) -> None:
    data = (RECORDED / log).read_bytes()
    boot = BootTracker(MASTER.console.stages, silence=60.0, power_on=0.0)
    for offset in range(0, len(data), 7):
        boot.feed(data[offset : offset + 7], offset, 1.0)
    assert [stage.stage for stage in boot.reached] == ["boot2", "loader", "kernel", "root", "login"]


def test_every_expectation_is_of_a_check_that_there_is() -> None:
    for entry in MASTER.expect:
        if entry.check.partition("/")[0] not in FROM_GUESTS:
            assert [check for check in names() if fnmatchcase(check, entry.check)], entry.check


def test_every_question_of_the_suites_has_a_command() -> None:
    assert {"cpu-count", "cpu-threads", "port-range", "mark", "aslr-on", "aslr-off"} <= MASTER.commands.keys()


@pytest.mark.parametrize(
    ("release", "name", "compiler"),
    [
        ("master", "gcc80", "GCC: 8.3 [DragonFly] Release/2019-02-22"),
        ("5.8", "gcc80", "GCC: 8.3 [DragonFly] Release/2019-02-22"),
        ("5.6", "gcc80", "GCC: 8.3 [DragonFly] Release/2019-02-22"),
        ("5.4", "gcc80", "GCC: 8.1 [DragonFly] Release/2018-05-02"),
        ("5.2", "gcc50", "GCC: 5.4.1 [DragonFly] Release/2016-08-27"),
        ("5.0", "gcc50", "GCC: 5.4.1 [DragonFly] Release/2016-08-27"),
    ],
)
def test_the_releases_of_the_line_and_what_their_compiler_leaves_in_objects(
    release: str, name: str, compiler: str
) -> None:
    toolchain = releases.load(release).toolchains[name]
    assert re.search(toolchain.comment, compiler, re.MULTILINE)


def test_kernels_that_differ_in_what_the_loader_says_are_built_once() -> None:
    assert {MASTER.kernels[name].like or name for name in ("nx0", "nx1", "nx2")} == {"nx1"}
    assert MASTER.kernels["nx2"].tunables == {"machdep.pmap_nx_enable": "2"}


def test_the_hosts_compilers_make_worlds_with_the_trees_own_in_them() -> None:
    build = data.of(MASTER)
    assert build.native == ("gcc80",)
    for name, compiler in build.compilers.items():
        assert build.userland(name) == name
        assert build.compilers_of(name) == tuple(dict.fromkeys(["gcc80", name]))
        assert {*compiler.components.values()} <= {*build.native}


def test_older_releases_have_worlds_of_the_trees_own_compilers() -> None:
    build = data.of(releases.load("5.2"))
    assert {build.userland(name) for name in build.compilers} == {"gcc50"}


def test_a_compiler_of_the_host_is_installed_with_what_doctor_names() -> None:
    host = tomllib.loads(resources.files("dfbuild").joinpath("host.toml").read_text(encoding="utf-8"))
    packages = {program["name"]: program["package"] for program in host["programs"]}
    for name, compiler in data.of(MASTER).compilers.items():
        if compiler.host is not None:
            commands = [compiler.host, str(compiler.cxx)]
            assert MASTER.toolchains[name].packages == tuple(
                dict.fromkeys(packages[command] for command in commands)
            )


def test_what_clang_alone_needs_changed_is_changed_for_clang_alone() -> None:
    build = data.of(MASTER)
    own = {edit.file for edit in build.compilers["clang-14"].edits}
    assert "sys/vm/vm_page.c" in own
    assert not own & {edit.file for edit in build.edits}
    assert not build.compilers["gcc-12"].edits


@pytest.mark.parametrize(("protector", "kernel", "world"), [
    ("off", False, False), ("strong", True, True), ("kernel", True, False), ("world", False, True),
])  # fmt: skip
def test_kernel_and_world_are_protected_each_for_itself(protector: str, kernel: bool, world: bool) -> None:
    setting = MASTER.stack_protectors[protector]
    for part, protected in ((setting.of_kernel, kernel), (setting.of_world, world)):
        assert part == MASTER.stack_protectors["strong" if protected else "off"].of_world


def test_places_and_environment_are_of_the_machine() -> None:
    build = data.of(MASTER)
    cross = build.environment("gcc80")
    assert (cross["MACHINE"], cross["MACHINE_PLATFORM"]) == ("x86_64", "pc64")
    assert cross["BINUTILSVER"] == "binutils227"
    assert "x86_64" in str(build.places.world)
