"""A guest's console as the bare socket that it is, without reader and dialogue."""

from __future__ import annotations

import socket

from dfbuild.deadline import Deadline


def read_until(console: socket.socket, text: bytes, deadline: Deadline, seen: bytes = b"") -> bytes:
    """`seen`, and everything up to the read that brought `text`."""
    while text not in seen:
        deadline.select(console.fileno(), what=f"{text!r} after {seen[-200:]!r}")
        received = console.recv(65536)
        assert received, f"the console ended after {seen[-200:]!r}"
        seen += received
    return seen
