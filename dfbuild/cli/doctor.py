"""`dfbuild doctor`: what is missing on this host, for which feature, and the command that installs it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from dfbuild.deadline import Deadline
from dfbuild.errors import DfbuildError
from dfbuild.model import GivenXenHost
from dfbuild.process import run as run_program
from dfbuild.runtime import runtime_directory
from dfbuild.sandbox import Sandbox
from dfbuild.workspace import Workspace

_PATIENCE = 30.0
_MEMORY_MIB = 1024
_DISK_MIB = 4096
_ADMINISTRATORS = "/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `cure` is a command or a sentence; empty when `ok`."""

    what: str
    ok: bool
    found: str
    features: tuple[str, ...] = ()
    package: str = ""
    cure: str = ""


def _which(name: str) -> str | None:
    """Where the program is, in directories too that the sandbox has on its PATH and a user often has not."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_ADMINISTRATORS}")


def programs(host: Mapping[str, Any]) -> Iterator[Finding]:
    """Programs and files of the host's packages."""
    for program in host["programs"]:
        where = _which(program["name"])
        yield Finding(
            program["name"],
            where is not None,
            where or "not installed",
            tuple(program["features"]),
            program["package"],
            "" if where else install([program["package"]]),
        )
    for file in host["files"]:
        there = Path(file["path"]).exists()
        yield Finding(
            file["path"],
            there,
            "present" if there else "missing",
            tuple(file["features"]),
            file["package"],
            "" if there else install([file["package"]]),
        )


def install(packages: list[str]) -> str:
    """The command that installs `packages`."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install --no-install-recommends {shlex.join(packages)}"


def sandbox() -> Finding:
    """Does bubblewrap really work here? It needs user namespaces for anyone but root."""
    directory = runtime_directory("doctor")
    try:
        done = run_program(Sandbox(writable=(directory,)).argv(["true"]), Deadline.after(_PATIENCE))
        ok, found = done.status == 0, done.output.strip() or "works"
    except DfbuildError as error:
        ok, found = False, error.message
    finally:
        directory.rmdir()
    cure = "" if ok else "allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1, or run as root"
    return Finding("sandbox", ok, found, ("sandbox",), cure=cure)


def accelerator(workspace: Workspace) -> Finding:
    """KVM if a guest really runs under it. Its absence is slow, not an error."""
    from dfbuild.guest.accel import probe

    try:
        accel = probe(workspace, Deadline.after(_PATIENCE))
    except DfbuildError as error:
        return Finding("accelerator", False, error.message, ("guest",), cure=error.hint)
    return Finding("accelerator", True, f"{accel.name}: {accel.reason}", ("guest",))


def local_xen() -> Finding:
    """Whether this machine is a Xen host for `--xen-host local`. Most are none, which is no fault."""
    from dfbuild.guest.xen.examine import examine
    from dfbuild.guest.xen.reach import LOCAL

    if _which("xl") is None:
        return Finding("local Xen", True, "none: guests of Xen run on hosts that are made for them", ("xen-local",))
    try:
        examine(GivenXenHost(LOCAL), (), Deadline.after(_PATIENCE))
    except DfbuildError as error:
        return Finding("local Xen", False, error.message, ("xen-local",), cure=error.hint)
    return Finding("local Xen", True, "works: --xen-host local", ("xen-local",))


def room(workspace: Workspace) -> Iterator[Finding]:
    """Memory, disk space, and whether it is ours to fill."""
    from dfbuild.matrix.schedule import host_limits

    memory = host_limits(None, None, None).memory
    cure = "end other programs, or lower the shapes' memory"
    yield Finding("memory", memory >= _MEMORY_MIB, f"{memory} MiB for guests", ("guest",), cure=cure)
    place = next(p for p in (workspace.root, *workspace.root.parents) if p.exists())
    ours = os.access(place, os.W_OK)
    found = "writable" if ours else "read-only: runs can be looked at, not made"
    cure = "" if ours else "name another place with --work"
    yield Finding("work directory", ours, f"{workspace.root}: {found}", ("reference",), cure=cure)
    free = shutil.disk_usage(place).free >> 20
    cure = f"free {_DISK_MIB} MiB below {place}, with `dfbuild clean` say, or name another place with --work"
    yield Finding("disk", free >= _DISK_MIB, f"{free} MiB free for {workspace.root}", ("reference",), cure=cure)


def examine(workspace: Workspace) -> list[Finding]:
    """Look at everything."""
    host = tomllib.loads(resources.files("dfbuild").joinpath("host.toml").read_text(encoding="utf-8"))
    findings = list(programs(host))
    present = {finding.what for finding in findings if finding.ok}
    if "bwrap" in present:
        findings.append(sandbox())
    if {"bwrap", "qemu-system-x86_64"} <= present:
        findings.append(accelerator(workspace))
    lists = any(Path("/var/lib/apt/lists").glob("*_Packages*"))
    cure = "" if lists else "apt-get update"
    findings.append(Finding("package lists", lists, "present" if lists else "missing", ("reference",), cure=cure))
    findings.append(local_xen())
    findings.extend(room(workspace))
    return findings


def run(arguments: argparse.Namespace) -> int:
    """Present the findings; 3 if anything is missing."""
    findings = examine(Workspace.locate(arguments.work))
    missing = [finding for finding in findings if not finding.ok]
    packages = sorted({finding.package for finding in missing if finding.package})
    if arguments.json:
        report = {"ok": not missing, "install": install(packages) if packages else "", "findings": findings}
        json.dump(report, sys.stdout, default=asdict, indent=2)
        print()
        return 3 if missing else 0
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f"{'ok     ' if finding.ok else 'MISSING'}  {finding.what:<{width}}  {finding.found}")
        if not finding.ok:
            print(f"{'':9}{'':<{width}}  needed for {', '.join(finding.features)}; {finding.cure}")
    if packages:
        print(f"\ninstall what is missing:\n  {install(packages)}")
    return 3 if missing else 0
