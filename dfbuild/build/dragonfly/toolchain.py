"""The tree's own compilers and binary utilities as cross tools for this host, built by the tree's own makefiles."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfbuild import process
from dfbuild.build import proof, step
from dfbuild.build.dragonfly import ccache, data, hostkit, within
from dfbuild.build.dragonfly.layout import KIT, SRC, Places
from dfbuild.build.recipe import Artefact, Kitchen, Recipe
from dfbuild.errors import BuildFailed, MissingTool, UsageError
from dfbuild.image.templates import images
from dfbuild.model import StepKind
from dfbuild.releases import Release
from dfbuild.sandbox import Mount, Sandbox
from dfbuild.source import Tree

_TARGETS = ("obj", "depend", "all")
_DRIVERS = ("cc", "gcc", "c++", "g++", "cpp")
_PREFIX = "prefix"
_SPECS = "specs"


def recipe(release: Release, tree: Tree, name: str) -> Recipe:
    """The toolchain `name` of `release` from `tree`: a prefix that works by itself, wherever it lies.

    `bin/` has `cc`, `c++`, `cpp`, `as`, `ld` and the others; `usr/` what the tree's makefiles install, in the
    tree's own layout, to be mounted at `Places.tools`: compilers below `usr/libexec/<CCVER>`, binary utilities
    below `usr/libexec/<BINUTILSVER>/elf`, and in `usr/bin` the dispatcher that chooses by `CCVER`.
    """
    build = data.of(release)
    if name not in build.compilers:
        known = ", ".join(build.compilers)
        raise UsageError(f"release {release.name} has no compiler {name!r}", hint=f"it has {known}")
    compiler = build.compilers[name]
    versions = [_installed(release, name, command) for command in (compiler.host, compiler.cxx) if command]
    kit = hostkit.recipe(release, tree)
    needs = (
        _binutils(build, tree, compiler.binutils, kit),
        _compiler(build, tree, name, kit),
    )
    comment = release.toolchains[name].comment
    linker = build.binutils[compiler.binutils].linker

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        for need in kitchen.needs:
            merge(need.path / "usr", kitchen.directory / "usr")
        if compiler.host is not None:
            wrap_host(
                kitchen.directory / "usr/libexec" / name,
                compiler,
                build.places,
                _own_headers(compiler.host, kitchen),
            )
        if linker != "ld":
            (kitchen.directory / "usr/libexec" / compiler.binutils / "elf/ld").symlink_to(linker)
        wrap(kitchen.directory, name, compiler.binutils)
        return prove(kitchen, compiler, comment, release.elf_machine)

    inputs = {
        "compiler": compiler.model_dump(exclude_unset=True, exclude={"edits", "components"}),
        **({"version": versions[0]} if versions else {}),
        **({"specs": (images("dragonfly") / compiler.specs).read_text()} if compiler.specs else {}),
        "comment": comment,
        **({"linker": linker} if linker != "ld" else {}),
        "form": 1 if compiler.host is None else 2,
    }
    return Recipe(StepKind.TOOLCHAIN, name, inputs, make, needs=needs, minutes=5)


def _installed(release: Release, name: str, host: str) -> str:
    """The version of the command `host`, which toolchain `name` is; raises `UsageError` where it is missing."""
    try:
        return process.version(host).splitlines()[0]
    except MissingTool as error:
        packages = " ".join(release.toolchains[name].packages)
        raise UsageError(
            f"toolchain {name} of {release.title} is {host} of this host, which is not installed",
            hint=f"apt-get install {packages}, or leave it out: --filter 'toolchain!={name}'",
        ) from error


def mounts(toolchains: Sequence[Artefact], places: Places) -> tuple[Mount, ...]:
    """Several toolchains as one at `Places.tools`, as a whole build has them: `CCVER` chooses."""
    found: dict[Path, Mount] = {}
    for toolchain in toolchains:
        for path in (*(toolchain.path / "usr/libexec").iterdir(), *toolchain.path.glob("usr/bin")):
            inside = places.tools / path.relative_to(toolchain.path)
            found.setdefault(inside, Mount(inside, path))
    return tuple(found.values())


def _binutils(build: data.Build, tree: Tree, name: str, kit: Recipe) -> Recipe:
    binutils = build.binutils[name]
    return _tools(build, tree, name, binutils.directories, binutils.sources, kit)


def _compiler(build: data.Build, tree: Tree, name: str, kit: Recipe) -> Recipe:
    compiler = build.compilers[name]
    return _tools(build, tree, f"{name} alone", compiler.directories, compiler.sources, kit)


def _tools(
    build: data.Build, tree: Tree, name: str, directories: Sequence[str], sources: Sequence[str], kit: Recipe
) -> Recipe:
    """What the makefiles of `directories` build and install as cross tools: `usr/`."""
    parts = within.Parts(tree, build, (*build.sources, *sources))
    place = build.places.tools

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        installed = kitchen.directory / _PREFIX
        installed.mkdir()
        sandbox = within.sandbox(
            kitchen, parts, Mount(KIT, kitchen.needs[0].path), tools=(Mount(place, installed, writable=True),)
        )
        sandbox = ccache.before_host(sandbox, kitchen.workspace)
        hierarchy = ["mtree", "-deU", "-f", str(SRC / "etc/mtree/BSD.usr.dist"), "-p", str(place / "usr")]
        (installed / "usr").mkdir()
        step.run(kitchen, sandbox, hierarchy, "hierarchy")
        destination = {"DESTDIR": str(place)}
        again = [
            directory
            for directory in directories
            if within.make(
                kitchen, sandbox, directory, _TARGETS, flags=build.flags, variables=destination, jobs=within.jobs()
            )
        ]
        for directory in directories:
            within.make(kitchen, sandbox, directory, ("install",), flags=build.flags, variables=destination)
        _prune(installed / "usr")
        (installed / "usr").rename(kitchen.directory / "usr")
        for rest in ("obj", "edited", _PREFIX):
            shutil.rmtree(kitchen.directory / rest, ignore_errors=True)
        return {"jobs": within.jobs(), "again with one job": again}

    inputs = {**parts.inputs(), "directories": list(directories), "flags": list(build.flags)}
    return Recipe(StepKind.TOOLCHAIN, name, inputs, parts.steady(make), needs=(kit,), minutes=180)


def _prune(directory: Path) -> None:
    """Remove empty directories: the hierarchy is the whole system's."""
    for path, _, _ in os.walk(directory, topdown=False):
        if path != str(directory):
            with contextlib.suppress(OSError):
                Path(path).rmdir()


def merge(source: Path, target: Path) -> None:
    """Lay the files of `source` into `target`; both share them."""
    shutil.copytree(source, target, symlinks=True, copy_function=os.link, dirs_exist_ok=True)


def wrap(prefix: Path, ccver: str, binutils: str) -> None:
    """Make `bin/` of `prefix`: what the dispatcher does, but by place and for this compiler alone."""
    directory = prefix / "bin"
    directory.mkdir()
    compilers, tools = Path("usr/libexec") / ccver, Path("usr/libexec") / binutils / "elf"
    for program in sorted((prefix / compilers).iterdir()):
        if program.name in _DRIVERS:
            script = directory / program.name
            script.write_text(wrapper(compilers, tools, program.name))
            script.chmod(0o755)
        elif program.name == "gcov":
            (directory / program.name).symlink_to(Path("..") / compilers / program.name)
    for program in sorted((prefix / tools).iterdir()):
        (directory / program.name).symlink_to(Path("..") / tools / program.name)


def _own_headers(host: str, kitchen: Kitchen) -> str:
    """Where the command `host` has the headers that are the compiler's: what its built-in functions are called."""
    done = process.run([host, "-print-file-name=include"], kitchen.deadline)
    if done.status != 0 or not Path(done.output.strip()).is_dir():
        raise BuildFailed(f"{host} does not say where its headers are", component="proof", tail=done.output)
    return done.output.strip()


def wrap_host(directory: Path, compiler: data.Compiler, places: Places, headers: str) -> None:
    """Make a compiler of this host look like one of the tree's in `directory`, with binary utilities of those.

    `headers` is where its own headers are.
    """
    directory.mkdir(parents=True)
    words, more, last = (
        [word.replace("{world}", str(places.world)).replace("{headers}", headers) for word in told]
        for told in (compiler.arguments, compiler.cxx_arguments, compiler.last)
    )
    own = f'"-B${{0%/*}}/../{compiler.binutils}/elf/"'
    if compiler.specs is not None:
        shutil.copyfile(images("dragonfly") / compiler.specs, directory / _SPECS)
        own += f' "-specs=${{0%/*}}/{_SPECS}"'
    drivers = {
        "cc": [compiler.host, *words],
        "gcc": [compiler.host, *words],
        "cpp": [compiler.host, "-E", "-x", "c", *words],
    }
    if compiler.cxx is not None:
        drivers |= {name: [compiler.cxx, *more, *words] for name in ("c++", "g++", "CC")}
    for name, line in drivers.items():
        script = directory / name
        run = f'exec {shlex.join(map(str, line))} {own} "$@" {shlex.join(last)}\n'
        script.write_text(f"#!/bin/sh\n{_passing(compiler.linker)}{run}")
        script.chmod(0o755)


def _passing(options: Sequence[str]) -> str:
    """Shell commands that have the compiler pass each of `options`, and the word behind it, to the linker."""
    if not options:
        return ""
    return (
        "n=$#\n"
        "while [ $n -gt 0 ]; do\n"
        "  word=$1; shift; n=$((n - 1))\n"
        "  case $word in\n"
        f'  {"|".join(options)}) set -- "$@" -Xlinker "$word" -Xlinker "$1"; shift; n=$((n - 1)) ;;\n'
        '  *) set -- "$@" "$word" ;;\n'
        "  esac\n"
        "done\n"
    )


def wrapper(compilers: Path, tools: Path, program: str) -> str:
    """The shell script that runs a compiler driver with its own parts, wherever the prefix lies."""
    return (
        "#!/bin/sh\n"
        "prefix=${0%/*}/..\n"
        f'exec "$prefix/{compilers}/{program}" "-B$prefix/{compilers}/" "-B$prefix/{tools}/" "$@"\n'
    )


_PROBE = """\
extern void other(char *);
int probe(int i) { char buffer[64]; other(buffer); return buffer[i]; }
"""
_REST = """\
int __guard[8];
void __stack_smash_handler(void) { for (;;) ; }
unsigned long __stack_chk_guard;
void __stack_chk_fail(void) { for (;;) ; }
void other(char *p) { *p = 1; }
extern int probe(int);
void _start(void) { probe(1); for (;;) ; }
"""
_GUARD = frozenset({"__guard", "__stack_smash_handler", "__stack_chk_guard", "__stack_chk_fail"})


def prove(kitchen: Kitchen, compiler: data.Compiler, comment: str, machine: str) -> dict[str, Any]:
    """Compile, assemble and link with the prefix in the kitchen's directory, as a user would; the facts of it.

    Raises `BuildFailed` unless the compiler says that it is what it should be, signs its work so, and protects
    stacks exactly when it should.
    """
    prefix = kitchen.directory
    work = prefix / "proof"
    work.mkdir()
    (work / "probe.c").write_text(_PROBE)
    (work / "rest.c").write_text(_REST)
    sandbox = Sandbox(writable=(work,), readable=(prefix,))
    cc = prefix / "bin/cc"
    version = _version(kitchen, sandbox, cc, compiler.version)
    plain = ["-O", "-nostdinc", "-fno-builtin"]
    flags = {"": [], "off": ["-fno-stack-protector"], "on": ["-fstack-protector"]}
    protected: dict[str, bool] = {}
    for name, words in flags.items():
        if words and compiler.protector == "never":
            continue
        made = work / f"probe{name}.o"
        step.run(kitchen, sandbox, [cc, *plain, *words, "-c", "probe.c", "-o", made], "proof")
        facts = proof.elf_facts(made)
        if facts.machine != machine or not any(re.search(comment, text) for text in facts.comments):
            raise BuildFailed(f"{cc.name} signs its work {facts.comments} for {facts.machine}", component="proof")
        protected[name] = bool(facts.refers_to(_GUARD))
    expected = {"": compiler.protector == "unless", "off": False, "on": True}
    if any(protected[name] != expected[name] for name in protected):
        raise BuildFailed(f"protects stacks by flags: {protected}, expected {expected}", component="proof")
    step.run(kitchen, sandbox, [cc, *plain, "-c", "rest.c", "-o", "rest.o"], "proof")
    step.run(kitchen, sandbox, [prefix / "bin/ld", "-o", "program", "probe.o", "rest.o"], "proof")
    program = proof.elf_facts(work / "program")
    if program.kind != "ET_EXEC" or not program.static or program.machine != machine:
        raise BuildFailed(f"ld made a {program.kind} for {program.machine}", component="proof")
    shutil.rmtree(work)
    return {"version": version, "comments": list(facts.comments), "protector": compiler.protector}


def _version(kitchen: Kitchen, sandbox: Sandbox, cc: Path, expected: str) -> str:
    """What `cc -v` says of itself; raises `BuildFailed` if that is not what is expected."""
    done = process.run(sandbox.argv([cc, "-v"]), kitchen.deadline)
    line = next((line for line in done.output.splitlines() if re.search(expected, line)), "")
    if done.status != 0 or not line:
        raise BuildFailed(f"cc -v says nothing of {expected!r}", component="proof", tail=done.output)
    return line
