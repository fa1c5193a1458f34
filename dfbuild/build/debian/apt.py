"""Debian packages: which versions apt would take, and getting them. The only step with network."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dfbuild import process
from dfbuild.build import step
from dfbuild.build.recipe import Artefact, Kitchen, Recipe
from dfbuild.build.store import tail
from dfbuild.deadline import Deadline
from dfbuild.errors import InfraError
from dfbuild.model import StepKind
from dfbuild.sandbox import Sandbox
from dfbuild.workspace import atomic_write

_UPDATE = "`apt-get update` (as root) fetches the package lists"
_LOOKUP_SECONDS = 60.0
_TOLD = ("_proxy", "apt_config")
"""How the names of variables end that apt goes by."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package as the package lists describe it."""

    name: str
    version: str
    architecture: str
    sha256: str


def resolve(names: Sequence[str], follow: Sequence[str], cache: Path) -> tuple[Package, ...]:
    """The packages called `names` and their dependencies, in the versions that apt would install, by name.

    Only dependencies whose name begins with a word of `follow` are taken: that finds the kernel behind a
    meta-package, or a program's libraries. What apt says is kept in the directory `cache` until its lists change.
    Raises `InfraError` with the cure if the lists lack a package.
    """
    question = repr((sorted(names), sorted(follow), _lists()))
    answer = cache / f"apt-{hashlib.sha256(question.encode()).hexdigest()[:16]}.json"
    try:
        return tuple(Package(**entry) for entry in json.loads(answer.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        found = _ask(names, follow)
    atomic_write(answer, json.dumps([asdict(package) for package in found], indent=1) + "\n")
    return found


def _lists() -> list[tuple[str, int, int]]:
    """What apt's answers depend on: its lists, its configuration and what is installed."""
    places = [Path("/var/lib/dpkg/status"), *Path("/var/lib/apt/lists").glob("*"), *Path("/etc/apt").rglob("*")]
    seen = []
    for path in sorted(places):
        with contextlib.suppress(OSError):
            status = path.stat()
            seen.append((str(path), status.st_mtime_ns, status.st_size))
    return seen


def _ask(names: Sequence[str], follow: Sequence[str]) -> tuple[Package, ...]:
    unwanted = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    depends = _apt_cache("depends", "--recurse", *(f"--no-{kind}" for kind in unwanted), *names)
    chosen = sorted(closure(dependencies(depends), names, follow))
    shown = _apt_cache("show", "--no-all-versions", *chosen)
    entries = {entry["Package"]: entry for entry in map(_fields, shown.split("\n\n")) if "SHA256" in entry}
    missing = [name for name in chosen if name not in entries]
    if missing:
        raise InfraError(f"apt's package lists have no {', '.join(missing)}", hint=_UPDATE)
    return tuple(
        Package(entry["Package"], entry["Version"], entry["Architecture"], entry["SHA256"])
        for entry in (entries[name] for name in chosen)
    )


def _apt_cache(*words: str) -> str:
    deadline = Deadline.after(_LOOKUP_SECONDS, what="apt-cache")
    return process.run(["apt-cache", *words], deadline, environment={**os.environ, "LC_ALL": "C.UTF-8"}).output


def dependencies(text: str) -> dict[str, list[str]]:
    """Package ▸ what it depends on, from the output of `apt-cache depends`; virtual packages are left out."""
    found: dict[str, list[str]] = {}
    package = ""
    for line in text.splitlines():
        if line and not line[0].isspace() and line[0] != "|":
            package = line
            found.setdefault(package, [])
        elif match := re.fullmatch(r"[ |]*(?:Pre)?Depends: ([^<\s]+)", line):
            found.setdefault(package, []).append(match[1])
    return found


def closure(depends: Mapping[str, Sequence[str]], names: Iterable[str], follow: Sequence[str]) -> set[str]:
    """`names` and all that they need, as far as the needed names begin with a word of `follow`."""
    found = set(names)
    queue = list(found)
    while queue:
        for needed in depends.get(queue.pop(), ()):
            if needed.startswith(tuple(follow)) and needed not in found:
                found.add(needed)
                queue.append(needed)
    return found


def _fields(paragraph: str) -> dict[str, str]:
    """The one-line fields of a control paragraph."""
    return dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", paragraph, re.MULTILINE))


def fetch(name: str, packages: tuple[Package, ...]) -> Recipe:
    """The recipe of a directory with the `.deb` files of `packages`, checked against the lists' checksums."""

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        wanted = [f"{package.name}={package.version}" for package in packages]
        kitchen.say(f"downloading {len(wanted)} Debian packages")
        # As root apt would become another user to download, who may not write here.
        argv = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *wanted]
        told = {name: value for name, value in os.environ.items() if name.lower().endswith(_TOLD)}
        config = (Path(told["APT_CONFIG"]),) if "APT_CONFIG" in told else ()
        sandbox = Sandbox(writable=(kitchen.directory,), readable=config, network=True, environment=told)
        status = process.run(sandbox.argv(argv), kitchen.deadline, log=kitchen.log).status
        if status != 0:
            raise InfraError(f"apt-get download failed:\n{tail(kitchen.log, 5)}", hint=_UPDATE)
        sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in debs(kitchen.directory)}
        for package in packages:
            if package.sha256 not in sums.values():
                raise InfraError(f"{package.name} {package.version} is not what the package lists promise")
        return {"packages": wanted}

    return Recipe(StepKind.FETCH, name, {"packages": [asdict(package) for package in packages]}, make, minutes=10)


def debs(directory: Path) -> list[Path]:
    """The packages in `directory`, by name."""
    return sorted(directory.glob("*.deb"))


def unpack(kitchen: Kitchen, fetched: Artefact, target: Path) -> None:
    """Unpack all packages of `fetched` over each other into `target`, in the sandbox."""
    target.mkdir()
    sandbox = Sandbox(writable=(target,), readable=(fetched.path,))
    for deb in debs(fetched.path):
        step.run(kitchen, sandbox, ["dpkg-deb", "--extract", deb, target], "unpack")


@functools.cache
def installed(names: tuple[str, ...]) -> tuple[str, ...]:
    """`name=version` of the host's packages `names`; raises `InfraError` for those that are not installed."""
    deadline = Deadline.after(_LOOKUP_SECONDS, what="dpkg-query")
    argv = ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev} ${Package} ${Version}\n", *names]
    lines = [line.split() for line in process.run(argv, deadline).output.splitlines()]
    found = {words[1]: words[2] for words in lines if len(words) == 3 and words[0].startswith("ii")}
    missing = [name for name in names if name not in found]
    if missing:
        raise InfraError(
            f"not installed on this host: {', '.join(missing)}", hint=f"apt-get install {' '.join(missing)}"
        )
    return tuple(f"{name}={found[name]}" for name in names)
