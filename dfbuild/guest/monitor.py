"""What QEMU's monitors print and what is made of it: pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from dfbuild.errors import InfraError

_FORWARD = re.compile(r"^\s*TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s", re.MULTILINE)
# Of `info registers`: what says where a CPU is. Vector and FPU registers fill pages and say nothing here.
_REGISTERS = re.compile(r"^(CPU#|[ER]IP|[ER]AX|[ER]SI|R8|R12|CR0|CR2).*$", re.MULTILINE)


def forwarded_port(usernet: str) -> int:
    """The host port out of the human monitor's `info usernet`; raises `InfraError` if there is none."""
    found = _FORWARD.search(usernet)
    if found is None:
        raise InfraError("QEMU forwards no port", hint="the guest was made without a management network?")
    return int(found[1])


def compact_registers(text: str) -> list[str]:
    """Of the human monitor's `info registers -a`, the lines that say where each CPU is."""
    return [found[0].rstrip() for found in _REGISTERS.finditer(text)]


class ResetWatch:
    """Tells a guest that resets itself from the firmware, which does so too after a reset from here.

    SeaBIOS finds that it ran before, restores its ROM and asks for a reset of its own, as often as it takes: one to
    five RESET events were seen within 0.1 s on a loaded host. A guest's own reset in that time goes unnoticed.
    """

    FIRMWARE_SECONDS = 10.0

    def __init__(self) -> None:
        self._pushed = -math.inf

    def feed(self, event: Mapping[str, Any]) -> bool:
        """Take a QMP event, in order; True if it is the guest's own reset."""
        if event["event"] != "RESET":
            return False
        at = event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6
        if not event["data"]["guest"]:
            self._pushed = at
        return bool(event["data"]["guest"]) and at - self._pushed > self.FIRMWARE_SECONDS


def shutdown_cause(events: Iterable[Mapping[str, Any]]) -> str:
    """Why QEMU ended, out of its last QMP events; empty if it did not say."""
    causes = [str(event["data"]["reason"]) for event in events if event["event"] == "SHUTDOWN"]
    return causes[-1] if causes else ""
