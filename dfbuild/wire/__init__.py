"""Ethernet from Python over QEMU's datagram sockets: a packet peer, crafted frames, capture.

In: the two socket paths of a guest's wire NIC. Out: frames seen, answered and injected.
"""
