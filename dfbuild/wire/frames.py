"""Ethernet frames to values and back: ARP and TCP over IPv4, as far as a packet peer needs them.

Packed by hand because a connect storm lives here: 15 µs a frame, where scapy takes 600 µs to build one. The tests
hold every byte against scapy. What a guest sends is hostile: `decode` answers None to all that is malformed.
"""

from __future__ import annotations

import socket
import struct
import zlib
from dataclasses import dataclass
from enum import IntFlag
from typing import NamedTuple

BROADCAST = "ff:ff:ff:ff:ff:ff"
_NOBODY = "00:00:00:00:00:00"
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IP = struct.Struct("!BBHHHBBH4s4s")
_TCP = struct.Struct("!HHIIBBHHH")
_TYPE_IP, _TYPE_ARP = 0x0800, 0x0806
_PROTOCOL_ICMP, _PROTOCOL_TCP = 1, 6
_OPTION_MSS, _OPTION_STAMPS = 2, 8
STAMPS_SIZE = 12
"""Bytes that timestamps take of a segment."""


class Flag(IntFlag):
    """TCP's control bits."""

    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16
    URG = 32


class Flow(NamedTuple):
    """A TCP connection's addresses, seen from the side that sends."""

    source: str
    source_port: int
    target: str
    target_port: int

    @property
    def reverse(self) -> Flow:
        return Flow(self.target, self.target_port, self.source, self.source_port)


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP segment. `ack` counts only with `Flag.ACK`.

    `mss` and `stamps`, TSval and TSecr, are the options of these names (RFC 9293, RFC 7323), None without them.
    """

    flow: Flow
    flags: Flag
    seq: int
    ack: int = 0
    window: int = 0
    payload: bytes = b""
    mss: int | None = None
    stamps: tuple[int, int] | None = None

    @property
    def length(self) -> int:
        """What it takes of the sequence space: payload, SYN and FIN."""
        return len(self.payload) + bool(self.flags & Flag.SYN) + bool(self.flags & Flag.FIN)

    def __str__(self) -> str:
        flow, flags = self.flow, "|".join(flag.name or "" for flag in self.flags) or "-"
        return (
            f"{flow.source}:{flow.source_port} > {flow.target}:{flow.target_port} {flags} seq={self.seq} "
            f"ack={self.ack} win={self.window} len={len(self.payload)}"
        )


@dataclass(frozen=True, slots=True)
class Arp:
    """An ARP question (`answer` false, `target_mac` unused) or answer."""

    answer: bool
    source: str
    source_mac: str
    target: str
    target_mac: str = _NOBODY


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def encode_arp(arp: Arp) -> bytes:
    """An ARP frame: questions go to everybody, answers to who asked."""
    target = arp.target_mac if arp.answer else BROADCAST
    source_mac = mac_bytes(arp.source_mac)
    operation = 2 if arp.answer else 1
    body = _ARP.pack(
        1,
        _TYPE_IP,
        6,
        4,
        operation,
        source_mac,
        socket.inet_aton(arp.source),
        mac_bytes(arp.target_mac),
        socket.inet_aton(arp.target),
    )
    return _ETHERNET.pack(mac_bytes(target), source_mac, _TYPE_ARP) + body


def _encode_ip(protocol: int, source: bytes, target: bytes, body: bytes, source_mac: str, target_mac: str) -> bytes:
    # Don't Fragment: some systems count on it that the identification is then free to be anything, 0 here.
    header = _IP.pack(0x45, 0, 20 + len(body), 0, 0x4000, 64, protocol, 0, source, target)
    header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
    return _ETHERNET.pack(mac_bytes(target_mac), mac_bytes(source_mac), _TYPE_IP) + header + body


def _pseudo_header(source: bytes, target: bytes, length: int) -> bytes:
    return source + target + struct.pack("!HH", _PROTOCOL_TCP, length)


def encode_segment(segment: Segment, source_mac: str, target_mac: str) -> bytes:
    """A whole frame, with right checksums."""
    flow = segment.flow
    source, target = socket.inet_aton(flow.source), socket.inet_aton(flow.target)
    options = b"" if segment.mss is None else struct.pack("!BBH", _OPTION_MSS, 4, segment.mss)
    if segment.stamps is not None:
        options += struct.pack("!BBBBII", 1, 1, _OPTION_STAMPS, STAMPS_SIZE - 2, *segment.stamps)
    header = _TCP.pack(
        flow.source_port,
        flow.target_port,
        segment.seq,
        segment.ack,
        (20 + len(options)) << 2,
        segment.flags,
        segment.window,
        0,
        0,
    )
    body = header + options + segment.payload
    total = checksum(_pseudo_header(source, target, len(body)) + body)
    body = body[:16] + total.to_bytes(2, "big") + body[18:]
    return _encode_ip(_PROTOCOL_TCP, source, target, body, source_mac, target_mac)


def fragments(frame: bytes, size: int) -> list[bytes]:
    """The frame's IP packet in fragments that carry at most `size` bytes of it, a multiple of 8 (RFC 791, 3.2)."""
    start = _ETHERNET.size + _IP.size
    body, pieces = frame[start:], []
    # Segments have an Internet checksum in themselves that makes them all alike to another one.
    identification = zlib.crc32(body) & 0xFFFF
    for offset in range(0, len(body), size):
        piece = body[offset : offset + size]
        more = 0x2000 if offset + size < len(body) else 0
        header = bytearray(frame[_ETHERNET.size : start])
        struct.pack_into("!HHH", header, 2, _IP.size + len(piece), identification, more | offset // 8)
        struct.pack_into("!H", header, 10, 0)
        struct.pack_into("!H", header, 10, checksum(bytes(header)))
        pieces.append(frame[: _ETHERNET.size] + bytes(header) + piece)
    return pieces


def encode_unreachable(quoted: Segment, code: int, router: str, source_mac: str, target_mac: str) -> bytes:
    """An ICMP "destination unreachable" from `router` to the sender of `quoted` (RFC 792: its first 8 bytes)."""
    original = encode_segment(quoted, source_mac, target_mac)[_ETHERNET.size :][: 20 + 8]
    body = struct.pack("!BBHI", 3, code, 0, 0) + original
    body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    return _encode_ip(
        _PROTOCOL_ICMP,
        socket.inet_aton(router),
        socket.inet_aton(quoted.flow.source),
        body,
        source_mac,
        target_mac,
    )


def decode(frame: bytes) -> Arp | Segment | None:
    """What `frame` says; None if it is something else, a fragment, malformed, or its checksums are wrong."""
    if len(frame) < _ETHERNET.size:
        return None
    kind = _ETHERNET.unpack_from(frame)[2]
    if kind == _TYPE_ARP:
        return _decode_arp(frame[_ETHERNET.size :])
    return _decode_ip(frame[_ETHERNET.size :]) if kind == _TYPE_IP else None


def _decode_arp(body: bytes) -> Arp | None:
    if len(body) < _ARP.size:
        return None
    hardware, protocol, *lengths, operation, source_mac, source, target_mac, target = _ARP.unpack_from(body)
    if (hardware, protocol, *lengths) != (1, _TYPE_IP, 6, 4) or operation not in (1, 2):
        return None
    return Arp(
        operation == 2,
        socket.inet_ntoa(source),
        source_mac.hex(":"),
        socket.inet_ntoa(target),
        target_mac.hex(":"),
    )


def _decode_ip(packet: bytes) -> Segment | None:
    if len(packet) < _IP.size:
        return None
    version, _, total, _, fragment, _, protocol, _, source, target = _IP.unpack_from(packet)
    header = (version & 15) * 4
    whole = version >> 4 == 4 and _IP.size <= header <= total <= len(packet) and not fragment & 0x3FFF
    if not whole or protocol != _PROTOCOL_TCP or checksum(packet[:header]) != 0:
        return None
    return _decode_tcp(source, target, packet[header:total])


def _decode_tcp(source: bytes, target: bytes, body: bytes) -> Segment | None:
    if len(body) < _TCP.size:
        return None
    source_port, target_port, seq, ack, offset, flags, window, _, _ = _TCP.unpack_from(body)
    header = (offset >> 4) * 4
    if not _TCP.size <= header <= len(body) or checksum(_pseudo_header(source, target, len(body)) + body) != 0:
        return None
    flow = Flow(socket.inet_ntoa(source), source_port, socket.inet_ntoa(target), target_port)
    options = _options(body[_TCP.size : header])
    mss, stamps = options.get(_OPTION_MSS, b""), options.get(_OPTION_STAMPS, b"")
    return Segment(
        flow,
        Flag(flags & 63),
        seq,
        ack,
        window,
        body[header:],
        int.from_bytes(mss, "big") if len(mss) == 2 else None,
        (int.from_bytes(stamps[:4], "big"), int.from_bytes(stamps[4:], "big")) if len(stamps) == 8 else None,
    )


def _options(options: bytes) -> dict[int, bytes]:
    """The options by their kinds, as far as they are well-formed."""
    found = {}
    while options and options[0] != 0:
        if options[0] == 1:
            options = options[1:]
            continue
        if len(options) < 2 or not 2 <= options[1] <= len(options):
            break
        found[options[0]] = options[2 : options[1]]
        options = options[options[1] :]
    return found
