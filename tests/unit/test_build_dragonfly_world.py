"""What a world is made of, what its objects say, and how much of it is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest

from dfbuild import releases
from dfbuild.build.dragonfly import ccache, coverage, data, evidence, metalog, part, programs, world
from dfbuild.build.dragonfly.components import Site
from dfbuild.build.dragonfly.layout import Places
from dfbuild.build.recipe import Artefact, Kitchen
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed, UsageError
from dfbuild.model import StepKind
from dfbuild.process import run
from dfbuild.releases.schema import Protection, Toolchain
from dfbuild.sandbox import Sandbox
from dfbuild.workspace import Workspace

TOOLCHAINS = {
    "gcc2": Toolchain(cc="cc", comment=r"^GCC: \(GNU\) c 2\.95"),
    "gcc34": Toolchain(cc="cc", comment=r"^GCC: \(GNU\) 3\.4\.3$"),
}
ON = Protection(flags=("-fstack-protector",), present=("__stack_smash_handler",))
OFF = Protection(flags=("-fno-stack-protector",), absent=("__stack_smash_handler", "__guard"))


def objects() -> dict[str, evidence.Made]:
    protected = Counter({"__guard": 1, "__stack_smash_handler": 2})
    return {
        "bin/sh/main.o": evidence.Made({"GCC: (GNU) 3.4.3"}, protected),
        "lib/libc/start.o": evidence.Made(),
        "gnu/lib/gcc2/a.o": evidence.Made({"GCC: (GNU) c 2.95.4 20020320 [DragonFly]"}),
    }


def prove(found: dict[str, evidence.Made], protector: Protection, **more: object) -> dict[str, object]:
    rules = {"compilers": {"gnu/lib/gcc2": "gcc2"}, "unprotected": ("sys/boot",), **more}
    return evidence.prove(found, TOOLCHAINS, "gcc34", protector, component="world", **rules)  # type: ignore[arg-type]


def test_objects_are_counted() -> None:
    assert prove(objects(), ON) == {
        "objects": 2,
        "compilers": {"gcc2": 1, "gcc34": 1},
        "protector": {"symbols": ["__stack_smash_handler"], "absent": [], "objects": 1, "sites": 2},
    }


def test_a_foreign_compiler_is_found() -> None:
    with pytest.raises(BuildFailed, match=r"gnu/lib/gcc2/a\.o was made by .*2\.95.*, not gcc34"):
        prove(objects(), ON, compilers={})


def test_an_unwanted_protector_is_found() -> None:
    with pytest.raises(BuildFailed, match=r"bin/sh/main\.o refers to __guard"):
        prove(objects(), OFF)
    prove(objects(), OFF, unprotected=("bin",))
    prove(objects(), OFF, handlers=("main.*",))
    with pytest.raises(BuildFailed, match=r"bin/sh/main\.o refers to __guard"):
        prove(objects(), OFF, handlers=("domain.*",))


def test_a_missing_protector_is_found() -> None:
    with pytest.raises(BuildFailed, match="nothing refers to __stack_smash_handler"):
        prove(objects(), ON, unprotected=("bin",))
    with pytest.raises(BuildFailed, match="nothing was made by gcc34"):
        prove({}, OFF)


# ── what it is made of ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_world_sees_headers_of_the_kernel_and_what_is_named(tmp_path: Path) -> None:
    for name in ("sys/kern/kern_exec.c", "sys/sys/param.h", "sys/boot/mbr/mbr.s", "sys/Makefile.inc", "bin/cat.h"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert world.kernel_files(tmp_path, ["boot/**/*"]) == [
        "sys/Makefile.inc",
        "sys/boot/mbr/mbr.s",
        "sys/sys/param.h",
    ]


def test_only_what_is_named_of_the_kernel_is_edited(tmp_path: Path) -> None:
    for name in ("conf/kmod.mk", "boot/cdboot.S", "kern/other.S"):
        (tmp_path / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / name).write_text("zero'd")
    changes = [
        data.Edit(file=f"sys/{name}", find="zero'd", put="zeroed", reason="an apostrophe")
        for name in ("conf/kmod.mk", "boot/cdboot.S", "kern/other.S")
    ]
    assert world.kernel_edits(changes, tmp_path, ("boot/**/*",)) == (changes[1],)


def test_protection_goes_everywhere_but_where_the_tree_decides() -> None:
    assert world.make_conf((), ("sys/boot",)) == "CFLAGS= -O -pipe\n"
    lines = world.make_conf(("-fstack-protector",), ("sys/boot", "lib/libstand")).splitlines()
    assert lines[1:] == [
        '.if ${.CURDIR:M/usr/src/sys/boot*} == "" && ${.CURDIR:M/usr/src/lib/libstand*} == ""',
        "CFLAGS+= -fstack-protector",
        ".endif",
    ]
    assert "CFLAGS+= -g\n" in world.make_conf(("-g",), ())
    assert world.make_conf((), (), ("WANT_GCC40= yes",)).startswith("WANT_GCC40= yes\n")


def test_a_release_without_a_world_says_so() -> None:
    release = releases.load("1.2")
    assert data.world(release).libraries
    build = {key: value for key, value in release.build.items() if key != "world"}
    with pytest.raises(UsageError, match=r"world of DragonFly 1\.2"):
        data.world(release.model_copy(update={"build": build}))


# ── coverage ──────────────────────────────────────────────────────────────────────────────────────────────────────

DRY = """\
@@ bin/test
install -s -o root -g wheel -m 555   test {root}/bin
set - {root}/bin/test {root}/bin/[;  while test $# -ge 2; do l=$1; shift; t=$1; shift;  ln -f $l $t;  done; true
@@ etc
cd {root}/etc; install -m 644 "a b" it's; ln -s mail/aliases .
for entry in rc.d; do make install; done
install -d -m 755 {root}/var/empty
touch {root}/bin/evil
@! etc
@@ bin/gone
exit 3
"""


def test_targets_are_told_and_nothing_is_made(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("bin", "etc"):
        (root / name).mkdir(parents=True)
        (tmp_path / "obj" / name / "test").mkdir(parents=True)
    text = DRY.replace("{root}", str(root)).replace("it's", "its")
    script = coverage.script(text, str(tmp_path / "obj"))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    expected = {"bin/test", "bin/[", "etc/its", "etc/aliases", "var/empty"}
    assert coverage.told(done.stdout, str(root)) == expected
    assert coverage.unasked(text) == {"etc"}
    assert not any(path.is_file() for path in root.rglob("*"))


def test_coverage_names_what_is_missing() -> None:
    tree = metalog.Tree({"bin": "dir", "bin/cat": "file", "m": "link", "man/a": "file"}, {"m": "man"})
    facts = coverage.compare(["bin/cat", "m/a", "sbin/x"], tree, {"sbin/x": "not here"})
    assert facts == {"named": 3, "installed": 2, "per cent": 66.67, "exempt": {"sbin/x": "not here"}}
    with pytest.raises(BuildFailed, match=r"1 of 4 files .* are not there: bin/ed"):
        coverage.compare(["bin/cat", "bin/ed", "m/a", "sbin/x"], tree, {"sbin/x": "not here"})
    with pytest.raises(BuildFailed, match="nothing"):
        coverage.compare([], tree, {})


def test_an_installation_begins_without_what_the_last_one_left(tmp_path: Path) -> None:
    (tmp_path / "root/bin").mkdir(parents=True)
    (tmp_path / "metalog.log").write_text("half")
    (tmp_path / "cat.o").write_text("made")
    part.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cat.o"]


def test_a_stage_is_gone_through_once_in_an_object_tree(tmp_path: Path) -> None:
    done: list[str] = []
    release = releases.load("1.2")
    kitchen = Kitchen(tmp_path, (), Workspace(tmp_path), Deadline.after(10), tmp_path / "step.log", print)
    for _ in range(2):
        compiler = data.of(release).compilers["gcc2"]
        site = Site(kitchen, tmp_path, Sandbox(), data.world(release), Places("i386"), compiler)
        site.once("lib/libc", lambda: done.append("libc"))
        site.once("lib", lambda: done.append("lib"))
    assert done == ["libc", "lib"]


def test_a_directory_can_have_a_compiler_of_its_own(tmp_path: Path) -> None:
    kitchen = Kitchen(tmp_path, (), Workspace(tmp_path), Deadline.after(10), tmp_path / "step.log", print)
    release, places = releases.load("master"), Places("x86_64")
    compiler = data.of(release).compilers["clang-14"]
    site = Site(kitchen, tmp_path, Sandbox(), data.world(release), places, compiler)
    world = {"DESTDIR": str(places.world)}
    assert site.variables("bin/cat") == world
    assert site.variables("lib/libc", "clang-14") == {**world, "CCVER": "clang-14"}
    for below in ("gnu/lib/gcc80", "gnu/lib/gcc80/libgcc"):
        assert site.variables(below, "clang-14") == site.variables(below) == {**world, "CCVER": "gcc80"}
    assert site.variables("gnu/lib/gcc80x") == world


def test_a_cache_before_the_compilers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = [Artefact(StepKind.TOOLCHAIN, name, key, tmp_path) for name, key in (("gcc2", "aa"), ("gcc34", "bb"))]
    plain = Sandbox(environment={"PATH": "/tools/bin"})
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert ccache.before(plain, tools, Workspace(tmp_path)) == plain
    program = tmp_path / "host/ccache"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    for _ in range(2):
        cached = ccache.before(plain, tools, Workspace(tmp_path / "work"))
    places = {str(mount.inside): mount for mount in cached.mounts}
    assert cached.environment["PATH"] == "/ccache/bin:/tools/bin"
    assert cached.environment["CCACHE_NAMESPACE"] == "aa bb"
    found = places["/ccache/bin"].outside
    assert found is not None
    assert (found / "cc").readlink() == program
    assert [place for place, mount in places.items() if mount.writable] == ["/ccache/store"]


def test_a_host_compiler_is_its_script_and_what_is_below_it(tmp_path: Path) -> None:
    kit, work = tmp_path / "kit", tmp_path / "work"
    kit.mkdir()
    work.mkdir()
    (work / "x.c").write_text("int x = WHAT;\n")

    def compile(what: str) -> bytes:
        # As in the host kit: what is linked with comes last, so `cc -v` would link.
        (kit / "cc").write_text(f'#!/bin/sh\nexec {shutil.which("gcc")} -DWHAT={what} "$@" -lnone\n')
        (kit / "cc").chmod(0o755)
        inside = Sandbox(writable=(work,), readable=(kit,), cwd=work, environment={"PATH": f"{kit}:/usr/bin:/bin"})
        (work / "x.o").unlink(missing_ok=True)
        argv = ccache.before_host(inside, Workspace(tmp_path)).argv(["cc", "-c", "x.c"])
        assert run(argv, Deadline.after(30)).status == 0
        return (work / "x.o").read_bytes()

    def hits() -> int:
        store = {"CCACHE_DIR": str(tmp_path / "cache/ccache/store")}
        said = run(["ccache", "--print-stats"], Deadline.after(30), environment={**os.environ, **store}).output
        return int(re.findall(r"^preprocessed_cache_hit\t(\d+)", said, re.MULTILINE)[0])

    first = compile("1")
    assert compile("2") != first and hits() == 0
    assert compile("1") == first and hits() == 1


def test_libraries_are_found_where_the_sandbox_has_the_world(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    for name, to in {"libc.so": "/lib/libc.so.8", "libm.so": "libm.so.4"}.items():
        (tmp_path / "usr/lib" / name).symlink_to(to)
    (tmp_path / "usr/lib/libz.so").write_text("no link")
    programs.libraries(tmp_path, PurePosixPath("/usr/obj/world"), tmp_path / "found")
    found = {path.name: str(path.readlink()) for path in (tmp_path / "found").iterdir()}
    assert found == {"libc.so": "/usr/obj/world/lib/libc.so.8"}
