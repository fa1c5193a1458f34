"""Whether a Xen host that dfbuild was given can run its domains, and if not, the cure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from dfbuild import process
from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, UsageError
from dfbuild.guest.xen.reach import LOCAL, once
from dfbuild.model import GivenXenHost, Shape


@dataclass(frozen=True, slots=True)
class Need:
    """What a host must have. `test` is a shell command of one line that succeeds where it has."""

    test: str
    missing: str
    cure: str


_PATH = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin"
_PROGRAMS = {
    "gzip": "gzip",
    "mkfifo": "coreutils",
    "timeout": "coreutils",
    "losetup": "util-linux",
    "ip": "iproute2",
    "xenstore-read": "xenstore-utils",
    "xenstore-watch": "xenstore-utils",
}
"""Program ▸ Debian's package."""
NEEDS = (
    Need("command -v xl", "has no xl", "install Xen's tools there (Debian: xen-utils and a xen-hypervisor)"),
    Need('[ "$(id -u)" = 0 ]', "is not ours as root", "xl is root's: name a user who is, as ssh://root@host"),
    Need("xl info", "does not run Xen: `xl info` fails", "boot it into Xen, and start its xencommons service"),
    *(
        Need(f"command -v {program}", f"has no {program}", f"install {package} there")
        for program, package in _PROGRAMS.items()
    ),
    Need("tar --version | grep -q GNU", "has no GNU tar, which knows of holes in disks", "install tar there"),
    Need("[ -c /dev/net/tun ] || modprobe tun", "has no /dev/net/tun", "modprobe tun there"),
    Need("[ -c /dev/loop-control ] || modprobe loop", "has no loop devices", "modprobe loop there"),
)
_HVM = Need(
    "xl info virt_caps | grep -q hvm", "runs PV guests only", "enable SVM or VT-x in its firmware, or choose xen-pv"
)
_UNFIT = "dfbuild: need "
_REFUSALS = (
    (
        r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its key is not the one in your known_hosts, or none is there: compare it, and `ssh` there once by hand",
    ),
    (r"Permission denied", "`ssh-add` the key that opens it, or name one for it in ~/.ssh/config"),
)


def needs(shapes: Iterable[Shape]) -> tuple[Need, ...]:
    """What a host needs for guests of `shapes`."""
    return (*NEEDS, _HVM) if any(shape.hypervisor != "xen-pv" for shape in shapes) else NEEDS


def examine(host: GivenXenHost, shapes: Iterable[Shape], deadline: Deadline) -> None:
    """Raise `UsageError` with the cure if `host` cannot be reached or cannot run guests of `shapes`."""
    wanted = needs(shapes)
    script = "; ".join(
        [_PATH, *(f"{{ {need.test}; }} >/dev/null 2>&1 || {{ echo '{_UNFIT}{n}'; exit 1; }}" for n, need in
                  enumerate(wanted))]
    )  # fmt: skip
    what = "this machine" if host.where == LOCAL else host.where
    try:
        done = process.run(once(host, shlex.join(["sh", "-c", script])), deadline)
    except DeadlineExceeded as error:
        raise UsageError(f"the Xen host {what} does not answer") from error
    if done.status == 0:
        if done.output:
            raise UsageError(
                f"the shell of the Xen host {what} says {done.output[:80]!r} where nothing was to be said",
                hint="its user's shell has to begin without a word: see what it reads at its start",
            )
        return
    if found := re.search(rf"^{_UNFIT}(\d+)$", done.output, re.MULTILINE):
        need = wanted[int(found[1])]
        raise UsageError(f"the Xen host {what} {need.missing}", hint=need.cure)
    words = done.output.strip()[-2000:]
    for pattern, cure in _REFUSALS:
        if re.search(pattern, words):
            raise UsageError(f"the Xen host {what} cannot be reached: {words}", hint=cure)
    raise UsageError(f"the Xen host {what} cannot be reached: {words or f'status {done.status}'}")
