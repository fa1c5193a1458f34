"""How much of what the makefiles' own install targets name is there.

`make -n install` says in every directory what it would do. Those commands are run once more with an install(1) and
ln(1) that only tell their targets, where nothing can be written: it is another way to the names than the one that
the installation went, and one that knows of components that failed.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

from dfbuild.build.dragonfly import metalog
from dfbuild.errors import BuildFailed

_MARK = "@@ "
_FAILED = "@! "
_TARGET = "@= "
_NAMED = 50
"""How many missing files are named."""

# Of every directory below $1 a line with its name, then what it would do to install, and whether it can't say all.
DRY_RUN = """\
walk() {
    echo "@@ $1"
    ( cd "/usr/src/$1" && make -n -m /usr/src/share/mk "DIRPRFX=$1/" SHARED=copies install 2>/dev/null ) ||
        echo "@! $1"
    for name in $(cd "/usr/src/$1" && make -m /usr/src/share/mk -V SUBDIR); do
        [ -d "/usr/src/$1/$name.$MACHINE_ARCH" ] && name=$name.$MACHINE_ARCH
        [ -d "/usr/src/$1/$name" ] && (walk "$1/$name")
    done
}
walk "$1"
"""

# What tells its targets instead of making them.
_STUBS = """\
tell() { case $1 in /*) echo "@= $1" ;; *) echo "@= $PWD/$1" ;; esac; }
targets() {
    for last; do :; done
    if [ $# -gt 1 ] && [ -d "$last" ]; then
        while [ $# -gt 1 ]; do tell "$last/${1##*/}"; shift; done
    else
        tell "$last"
    fi
}
install() {
    directory= OPTIND=1
    while getopts bB:Ccdf:g:m:Mo:psSv option; do [ $option = d ] && directory=yes; done
    shift $(($OPTIND - 1))
    if [ -n "$directory" ]; then for target; do tell "$target"; done; else targets "$@"; fi
}
ln() {
    OPTIND=1
    while getopts fhinsv option; do :; done
    shift $(($OPTIND - 1))
    [ $# -eq 1 ] && set -- "$1" .
    # What is a link now is one that this command has made.
    if [ $# -eq 2 ] && [ -h "$2" ]; then tell "$2"; else targets "$@"; fi
}
for name in chflags chgrp chmod chown cp make mkdir mtree mv rm rmdir strip touch zic; do
    eval "$name() { :; }"
done
"""


def script(dry_run: str, objects: str) -> str:
    """The shell script that tells what the commands in the output of `DRY_RUN` would make; see `told`.

    Every command runs in its directory's place below `objects`, as make(1) would run it.
    """
    lines = [_STUBS]
    directory = ""
    for line in dry_run.splitlines():
        if line.startswith(_MARK):
            directory = f"{objects}/{line.removeprefix(_MARK)}"
        elif line.strip() and directory and not line.startswith(_FAILED):
            lines.append(f"(cd {_quoted(directory)} 2>/dev/null; eval {_quoted(line)}) 2>/dev/null </dev/null")
    return "\n".join([*lines, "exit 0", ""])


def unasked(dry_run: str) -> set[str]:
    """The directories that do not say all that they would install: make(1) stops there without doing it."""
    return {line.removeprefix(_FAILED) for line in dry_run.splitlines() if line.startswith(_FAILED)}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def told(output: str, destination: str) -> set[str]:
    """The targets below `destination` that the script told, relative to it."""
    paths = (posixpath.normpath(line.removeprefix(_TARGET)) for line in output.splitlines() if _TARGET in line[:3])
    return {path[len(destination) + 1 :] for path in paths if path.startswith(f"{destination}/")}


def compare(expected: Iterable[str], tree: metalog.Tree, exempt: Mapping[str, str]) -> dict[str, Any]:
    """The facts: how many files are named, how many of them are there, in per cent, and which are not.

    `exempt` has those that may be missing, with the reason. Raises `BuildFailed` if nothing is named, and if
    something else is missing.
    """
    named = {metalog.resolve(path, tree.links) for path in expected}
    if not named:
        raise BuildFailed("the makefiles name nothing to install", component="coverage")
    missing = sorted(path for path in named if path not in tree.types)
    unexplained = [path for path in missing if path not in exempt]
    if unexplained:
        raise BuildFailed(
            f"{len(unexplained)} of {len(named)} files that the makefiles install are not there: {unexplained[0]}",
            component="coverage",
            tail="\n".join(unexplained[:_NAMED]),
            hint="build.world.exempt of the release has those that may be missing, each with its reason",
        )
    return {
        "named": len(named),
        "installed": len(named) - len(missing),
        "per cent": round(100 * (len(named) - len(missing)) / len(named), 2),
        "exempt": {path: exempt[path] for path in missing if path in exempt},
    }
