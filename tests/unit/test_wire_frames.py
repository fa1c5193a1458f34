"""Frames: every byte is held against scapy, and nothing that a guest sends makes the decoder stumble."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, TCPerror, defragment
from scapy.layers.l2 import ARP, Ether

from dfbuild.wire.frames import (
    Arp,
    Flag,
    Flow,
    Segment,
    checksum,
    decode,
    encode_arp,
    encode_segment,
    encode_unreachable,
    fragments,
)
from dfbuild.wire.sequence import MODULUS, advance, distance, within

US, THEM = "52:54:00:0a:09:02", "52:54:00:12:34:56"
FLOW = Flow("10.9.0.2", 40000, "10.9.0.1", 7)

numbers = st.integers(0, MODULUS - 1)
ports = st.integers(0, 65535)
addresses = st.ip_addresses(v=4).map(str)
flows = st.builds(Flow, addresses, ports, addresses, ports)
segments = st.builds(
    Segment,
    flow=flows,
    flags=st.integers(0, 63).map(Flag),
    seq=numbers,
    ack=numbers,
    window=ports,
    payload=st.binary(max_size=1460),
    mss=st.none() | ports,
    stamps=st.none() | st.tuples(numbers, numbers),
)


@given(numbers, st.integers(-(MODULUS >> 1), (MODULUS >> 1) - 1))
def test_distance_undoes_advance(seq: int, count: int) -> None:
    assert distance(seq, advance(seq, count)) == count


@given(numbers, st.integers(0, MODULUS), st.integers(0, MODULUS - 1))
def test_within_is_a_range_that_may_wrap(start: int, length: int, offset: int) -> None:
    assert within(advance(start, offset), start, length) == (offset < length)


@given(segments)
def test_a_segment_survives_the_wire(segment: Segment) -> None:
    assert decode(encode_segment(segment, US, THEM)) == segment


@given(segments)
def test_segments_are_what_scapy_would_build(segment: Segment) -> None:
    flow = segment.flow
    options = [] if segment.mss is None else [("MSS", segment.mss)]
    if segment.stamps is not None:
        options += [("NOP", None), ("NOP", None), ("Timestamp", segment.stamps)]
    built = (
        Ether(src=US, dst=THEM)
        / IP(src=flow.source, dst=flow.target, ttl=64, id=0, flags="DF")
        / TCP(
            sport=flow.source_port,
            dport=flow.target_port,
            seq=segment.seq,
            ack=segment.ack,
            flags=int(segment.flags),
            window=segment.window,
            options=options,
        )
        / segment.payload
    )
    assert encode_segment(segment, US, THEM) == bytes(built)


@given(addresses, addresses, st.booleans())
def test_arp_is_what_scapy_would_build(source: str, target: str, answer: bool) -> None:
    arp = Arp(answer, source, US, target, THEM if answer else "00:00:00:00:00:00")
    built = Ether(src=US, dst=THEM if answer else "ff:ff:ff:ff:ff:ff") / ARP(
        op=2 if answer else 1, hwsrc=US, psrc=source, hwdst=arp.target_mac, pdst=target
    )
    assert encode_arp(arp) == bytes(built)
    assert decode(encode_arp(arp)) == arp


def test_unreachable_quotes_the_segment_it_complains_of() -> None:
    quoted = Segment(FLOW.reverse, Flag.ACK, seq=0xDEADBEEF)
    seen = Ether(encode_unreachable(quoted, 3, "10.9.0.2", US, THEM))
    assert (seen[IP].src, seen[IP].dst, seen[ICMP].type, seen[ICMP].code) == ("10.9.0.2", "10.9.0.1", 3, 3)
    assert (seen[TCPerror].sport, seen[TCPerror].dport, seen[TCPerror].seq) == (7, 40000, 0xDEADBEEF)
    assert checksum(bytes(seen[ICMP])) == 0


@given(st.binary(max_size=120))
def test_rubbish_is_nothing(frame: bytes) -> None:
    decode(frame)
    for kind in (b"\x08\x00", b"\x08\x06"):
        decode(frame[:12] + kind + frame[14:])


@given(segments, st.data())
def test_damage_never_goes_unnoticed(segment: Segment, data: st.DataObject) -> None:
    """One bit flipped beyond the Ethernet header: a checksum or a length is wrong, or it is no TCP any more."""
    frame = bytearray(encode_segment(segment, US, THEM))
    at = data.draw(st.integers(14 * 8, len(frame) * 8 - 1))
    frame[at // 8] ^= 1 << at % 8
    assert decode(bytes(frame)) is None


@given(segments, st.integers(1, 54))
def test_what_breaks_off_is_nothing(segment: Segment, cut: int) -> None:
    frame = encode_segment(segment, US, THEM)
    assert decode(frame[: max(0, len(frame) - cut)]) is None


def test_ethernet_padding_is_no_payload() -> None:
    segment = Segment(FLOW, Flag.ACK, 1, 2)
    assert decode(encode_segment(segment, US, THEM) + bytes(6)) == segment


@given(segments, st.integers(1, 200).map(lambda eighths: eighths * 8))
def test_fragments_are_put_together_by_scapy(segment: Segment, size: int) -> None:
    frame = encode_segment(segment, US, THEM)
    pieces = fragments(frame, size)
    assert all(len(piece) <= 14 + 20 + size for piece in pieces)
    (whole,) = defragment([Ether(piece) for piece in pieces])
    assert bytes(whole[IP].payload) == frame[34:]
    assert all(checksum(piece[14:34]) == 0 for piece in pieces)


def test_fragments_are_not_taken_for_whole() -> None:
    frame = Ether(src=US, dst=THEM) / IP(src="10.9.0.2", dst="10.9.0.1", flags="MF") / TCP(sport=1, dport=2)
    assert decode(bytes(frame)) is None


def test_options_are_skipped() -> None:
    options = [("NOP", None), ("WScale", 7), ("Timestamp", (1, 2)), ("MSS", 1400), ("EOL", None)]
    frame = Ether(src=US, dst=THEM) / IP(src="10.9.0.2", dst="10.9.0.1") / TCP(sport=1, dport=2, options=options)
    found = decode(bytes(frame))
    assert isinstance(found, Segment)
    assert found.mss == 1400
