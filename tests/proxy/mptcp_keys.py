"""What RFC 8684 computes from keys, written out here a second time."""

import hashlib
import hmac
from functools import cache

from tests.proxy.packets import words

FIRST_DSN: dict[bytes, int] = {}
"""Initial data sequence numbers by key, where a test wants others than the hash gives: near 2**64."""


def token(key: bytes) -> bytes:
    """Section 3.2: the most significant 32 bits of the hash."""
    return hashlib.sha256(key).digest()[0:4]


def first_dsn(key: bytes) -> int:
    """Section 3.1: the least significant 64 bits of the hash."""
    if key in FIRST_DSN:
        return FIRST_DSN[key]
    return int.from_bytes(hashlib.sha256(key).digest()[-8:], "big")


def mac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256 (section 3.2, figure 8)."""
    return hmac.new(key, message, hashlib.sha256).digest()


def mapping_checksum(dsn: int, ssn: int, length: int, payload: bytes) -> int:
    """Section 3.3.1: over the 64-bit DSN, the relative SSN, the length, two zero bytes, and the payload."""
    return words(dsn.to_bytes(8, "big") + ssn.to_bytes(4, "big") + length.to_bytes(2, "big") + b"\0\0" + payload) ^ 0xFFFF


def near(value: int, width: int, expected: int) -> int:
    """The number that ends in these `width` bits and lies next to `expected`."""
    half, full = 1 << (width - 1), 1 << width
    return expected + (value - expected + half) % full - half


@cache
def key_with_dsn(low: int, spread: int, seed: int = 0) -> bytes:
    """A key whose initial number lies less than `spread` behind `low`, in its low 32 bits."""
    number = seed << 32
    while True:
        key = number.to_bytes(8, "big")
        if (first_dsn(key) - low) % (1 << 32) < spread:
            return key
        number += 1
