"""Arithmetic on TCP's sequence numbers: modulo 2^32, where "before" only means something within half of it."""

from __future__ import annotations

MODULUS = 1 << 32


def advance(seq: int, count: int) -> int:
    """The number `count` after `seq` (before it, if negative)."""
    return (seq + count) % MODULUS


def distance(start: int, end: int) -> int:
    """How far `end` lies after `start`, the short way round: -2^31 … 2^31-1."""
    return (end - start + (MODULUS >> 1)) % MODULUS - (MODULUS >> 1)


def within(seq: int, start: int, length: int) -> bool:
    """Whether `seq` is one of the `length` numbers from `start` on."""
    return (seq - start) % MODULUS < length
