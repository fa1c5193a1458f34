"""Virtual machines: a `GuestSpec` comes in, a running process with its console and QMP goes out.

Pure functions compose the command line; a thin shell starts, stops and probes.
"""

from __future__ import annotations

from dfbuild.errors import UsageError
from dfbuild.guest.accel import Accel
from dfbuild.guest.protocol import Guest, GuestSpec
from dfbuild.guest.qemu import QemuGuest
from dfbuild.guest.xen.domain import KINDS
from dfbuild.guest.xen.guest import XenGuest
from dfbuild.guest.xen.hosted import HostedGuest
from dfbuild.model import GivenXenHost

_HYPERVISORS: dict[str, type[QemuGuest]] = {"qemu": QemuGuest, **dict.fromkeys(KINDS, XenGuest)}


def create(spec: GuestSpec, accel: Accel) -> Guest:
    """The guest for `spec`, not yet started; touches nothing on disk.

    `accel` is what `accel.probe` found; a shape that names an accelerator has its way. Raises `UsageError` for
    a hypervisor, machine or device model that is not known.
    """
    try:
        kind = _HYPERVISORS[spec.shape.hypervisor]
    except KeyError:
        raise UsageError(
            f"shape {spec.shape.name}: guests under {spec.shape.hypervisor!r} cannot be started",
            hint=f"hypervisor is one of: {', '.join(_HYPERVISORS)}",
        ) from None
    if kind is XenGuest and isinstance(spec.media.xen, GivenXenHost):
        kind = HostedGuest
    return kind(spec, accel)
