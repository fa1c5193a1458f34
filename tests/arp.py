"""A question and its answer on a guest's wire, byte by byte."""

from __future__ import annotations

import socket

from dfbuild.deadline import Deadline

ARP_REQUEST = (
    b"\xff" * 6 + bytes.fromhex("02 00 00 00 00 99 0806 0001 0800 06 04 0001 02 00 00 00 00 99")
    + bytes([10, 9, 0, 2]) + bytes(6) + bytes([10, 9, 0, 1])
)  # fmt: skip
"""Who has 10.9.0.1?"""


def arp_reply(wire: socket.socket, deadline: Deadline) -> bytes:
    """The next ARP reply on the wire."""
    while True:
        deadline.select(wire.fileno(), what="an ARP reply")
        frame = wire.recv(2048)
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x02":
            return frame
