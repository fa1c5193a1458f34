"""Commands run and files copied in a guest, over its console or SSH.

In comes a session (or its console, or its SSH address); out come `Answer`s: exit status and output bytes.
"""

from dfbuild.shell.connect import unspoken
from dfbuild.shell.errors import CopyFailed, HostKeyMismatch, LoginRefused, ShellLost
from dfbuild.shell.open import open_shell
from dfbuild.shell.protocol import Answer, Shell

__all__ = [
    "Answer",
    "CopyFailed",
    "HostKeyMismatch",
    "LoginRefused",
    "Shell",
    "ShellLost",
    "open_shell",
    "unspoken",
]
