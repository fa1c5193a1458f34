"""A guest under Xen on a host of its own, which QEMU runs."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded
from dfbuild.guest.accel import Accel
from dfbuild.guest.protocol import GuestSpec
from dfbuild.guest.qemu import QemuGuest
from dfbuild.guest.xen.argv import BOOT_ADDRESS, files, plugs
from dfbuild.guest.xen.bootdisk import write_boot_disk
from dfbuild.guest.xen.dom0 import DomainGuest
from dfbuild.guest.xen.domain import configuration
from dfbuild.guest.xen.machine import XenMachine

if TYPE_CHECKING:
    from dfbuild.guest.qmp import Qmp

_DOM0_SHARE = 0.7
"""Of the time for a diagnosis, what dom0 has for it."""


class XenGuest(DomainGuest, XenMachine):
    """See `guest.protocol.Guest`. Its process is QEMU's, its accelerator the host's."""

    def __init__(self, spec: GuestSpec, accel: Accel) -> None:
        self._configuration = configuration(spec)
        super().__init__(spec, accel)

    def _open(self, ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> Sequence[int]:
        write_boot_disk(self.spec)
        return super()._open(ours, theirs)

    def diagnose(self, deadline: Deadline) -> str:
        """See `Guest`. Where dom0 no longer answers, what the host's own CPU does: Xen may be what hangs."""
        try:
            return super().diagnose(deadline.sooner(deadline.remaining() * _DOM0_SHARE))
        except DeadlineExceeded as error:
            return f"dom0 does not answer: {error.message}\nthe Xen host:\n{QemuGuest.diagnose(self, deadline)}"

    def _power_on(self, qmp: Qmp, deadline: Deadline) -> None:
        super()._power_on(qmp, deadline)
        for device in plugs(self.spec):
            qmp.execute("device_add", deadline, **device)
        text = base64.b64encode(self._configuration.encode()).decode()
        commands = [
            # A restored host believes that it is still the time of its state.
            f"date -us @{int(time.time())}",
            *(f"domain disk {number}" for number, _ in enumerate(self.spec.media.disks)),
            *(f"domain disk {address}" for address in files(self.spec)),
            *(
                f"dd bs=1M if=/run/disk.{address} of=/run/{name}"
                for address, (name, _) in files(self.spec).items()
                if address != BOOT_ADDRESS
            ),
            f"echo {text} | base64 -d >/run/domain.cfg",
            f"domain {self._create}",
        ]
        self._follow(qmp)
        self._agent.run(" && ".join(commands), deadline)
