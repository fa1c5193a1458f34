"""Debian packages: which versions apt would take, and getting them. The only step with network."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Mapping
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

_UPDATE = "`apt-get update` (as root) fetches the package lists"
_LOOKUP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Package:
    """A package as the package lists describe it."""

    name: str
    version: str
    architecture: str
    sha256: str


@functools.cache
def resolve(names: tuple[str, ...], follow: str = "") -> tuple[Package, ...]:
    """The packages called `names` in the versions that apt would install, looked up once a process.

    Where `follow` is given, each package is replaced by the first dependency whose name begins with it, if it has
    one: that is how a meta-package's kernel is found. Raises `InfraError` with the cure if the lists lack one.
    """
    described = _describe(names)
    chosen = tuple(_followed(described[name], follow) for name in names)
    if chosen != names:
        described = _describe(chosen)
    return tuple(
        Package(entry["Package"], entry["Version"], entry["Architecture"], entry["SHA256"])
        for entry in (described[name] for name in chosen)
    )


def _describe(names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    deadline = Deadline.after(_LOOKUP_SECONDS, what="apt-cache")
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    shown = process.run(["apt-cache", "show", "--no-all-versions", *names], deadline, environment=environment)
    entries = {entry["Package"]: entry for entry in map(_fields, shown.output.split("\n\n")) if "Package" in entry}
    missing = [name for name in names if "SHA256" not in entries.get(name, {})]
    if missing:
        raise InfraError(f"apt's package lists have no {', '.join(missing)}", hint=_UPDATE)
    return entries


def _fields(paragraph: str) -> dict[str, str]:
    """The one-line fields of a control paragraph."""
    return dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", paragraph, re.MULTILINE))


def _followed(entry: Mapping[str, str], prefix: str) -> str:
    if prefix:
        for dependency in entry.get("Depends", "").split(","):
            name = dependency.split("(")[0].split("|")[0].strip()
            if name.startswith(prefix):
                return name
    return entry["Package"]


def fetch(name: str, packages: tuple[Package, ...]) -> Recipe:
    """The recipe of a directory with the `.deb` files of `packages`, checked against the lists' checksums."""

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        wanted = [f"{package.name}={package.version}" for package in packages]
        kitchen.say(f"downloading {len(wanted)} Debian packages")
        # As root apt would become another user to download, who may not write here.
        argv = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *wanted]
        status = process.run(argv, kitchen.deadline, cwd=kitchen.directory, log=kitchen.log).status
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
