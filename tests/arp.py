"""A question and its answer on a guest's wire, byte by byte."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded

_REQUEST = (
    b"\xff" * 6 + bytes.fromhex("02 00 00 00 00 99 0806 0001 0800 06 04 0001 02 00 00 00 00 99")
    + bytes([10, 9, 0, 2]) + bytes(6) + bytes([10, 9, 0, 1])
)  # fmt: skip
"""Who has 10.9.0.1?"""


def arp_reply(wire: socket.socket, guest: Path, deadline: Deadline) -> bytes:
    """What the guest at the other end says; asked every second, since a frame may be lost."""
    while True:
        wire.sendto(_REQUEST, os.fspath(guest))
        try:
            deadline.sooner(1.0, what="an ARP reply").select(wire.fileno())
        except DeadlineExceeded:
            deadline.check("an ARP reply")
            continue
        frame = wire.recv(2048)
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x02":
            return frame
