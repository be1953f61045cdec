"""Sequence numbers: from the 32 or 64 bits of the wire to offsets that never wrap, and back.

An offset counts from the initial sequence number of its space: the SYN (or its counterpart at data level) is 0, the first
byte is 1.
"""

from typing import Final

MOD32: Final = 1 << 32
MASK32: Final = MOD32 - 1
MASK64: Final = (1 << 64) - 1
_HALF32: Final = 1 << 31
_HALF64: Final = 1 << 63


def unwrap32(value: int, initial: int, near: int) -> int:
    """The offset nearest to the offset `near` that has `value` on the wire, counted from `initial`. May be negative."""
    difference = (value - initial - near) & MASK32
    return near + (difference if difference < _HALF32 else difference - MOD32)


def unwrap64(value: int, initial: int, near: int) -> int:
    """The same for 64-bit numbers."""
    difference = (value - initial - near) & MASK64
    return near + (difference if difference < _HALF64 else difference - (MASK64 + 1))


def newer32(value: int, than: int) -> bool:
    """Is `value` later than `than`, modulo 2^32 (RFC 7323 section 5.2)?"""
    return 0 < (value - than) & MASK32 < _HALF32
