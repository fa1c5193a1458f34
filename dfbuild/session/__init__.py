"""A guest that is up: boots it, judges the boot, and shares it with other processes over a socket.

In: a `Guest` and a `Release`. Out: a `Session`, held here or attached to from elsewhere.
"""

from dfbuild.session.attached import AttachedSession, attach
from dfbuild.session.booting import boot, boot_seconds, patience
from dfbuild.session.diagnosis import failure, hung
from dfbuild.session.held import HeldSession

__all__ = ["AttachedSession", "HeldSession", "attach", "boot", "boot_seconds", "failure", "hung", "patience"]
