"""What this host's QEMU has of the hardware that shapes name: asked before anything is built for a guest of it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dfbuild import process
from dfbuild.deadline import Deadline
from dfbuild.errors import InfraError, UsageError, nearest
from dfbuild.guest.argv import QEMU
from dfbuild.model import Shape

_ALWAYS = ("", "pc", "q35")
"""Of machines: every version has them. Of CPUs: the accelerator's own."""
_NAME = re.compile(r"^(?:x86 )?([\w.+-]+)(?: .*)?$", re.MULTILINE)


def require_offered(shapes: Iterable[Shape], deadline: Deadline) -> None:
    """Raise `UsageError` for a shape of QEMU's own whose machine or CPU it does not have, and `InfraError` if it
    cannot be asked, which it is only about what is not in every version."""
    known: dict[str, set[str]] = {}
    for shape in shapes:
        for field, name in (("machine", shape.machine), ("cpu", shape.cpu.partition(",")[0])):
            if shape.on_xen or name in _ALWAYS:
                continue
            if field not in known:
                known[field] = names(_help(field, deadline))
            if name not in known[field]:
                raise UsageError(
                    f"shape {shape.name!r}: this host's QEMU has no {field} {name!r}",
                    hint=f"{nearest(name, sorted(known[field]))}; {QEMU} -{field} help",
                    key=f"shapes.{shape.name}.{field}",
                )


def names(text: str) -> set[str]:
    """The names in what QEMU prints for `-machine help` or `-cpu help`. Pure."""
    # Before them comes a heading, and behind the CPUs the features that they may have.
    return set(_NAME.findall(text.partition("\n\n")[0].partition("\n")[2]))


def _help(field: str, deadline: Deadline) -> str:
    done = process.run([QEMU, f"-{field}", "help"], deadline)
    if done.status != 0:
        raise InfraError(f"{QEMU} does not say which it has of -{field}: {done.output.strip()[:200]}")
    return done.output
