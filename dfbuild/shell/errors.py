"""What can go wrong on the way into a guest."""

from __future__ import annotations

from dfbuild.errors import GuestError, InfraError
from dfbuild.model import Verdict


class ShellLost(GuestError):
    """The way to the guest is gone: it no longer answers, though its console showed no crash.

    A guest's error, not the host's: a kernel whose network or terminal dies looks just like this, and must not be
    retried until it passes.
    """

    verdict = Verdict.HANG


class LoginRefused(ShellLost):
    """The guest answers, and does not let us in."""

    verdict = Verdict.BOOT_FAIL


class CopyFailed(GuestError):
    """A file could not be copied, or arrived with another checksum. The shell is usable."""


class HostKeyMismatch(InfraError):
    """Whoever answered is not the guest whose key is pinned."""
