"""Ethernet from Python over QEMU's datagram sockets: a packet peer, crafted frames, capture.

In: the two socket paths of a guest's wire NIC. Out: frames seen, answered and injected.
"""

from dfbuild.wire.conversation import Conversation, WireError
from dfbuild.wire.link import Link, WireLink, open_wire
from dfbuild.wire.peer import Listener, Peer

__all__ = ["Conversation", "Link", "Listener", "Peer", "WireError", "WireLink", "open_wire"]
