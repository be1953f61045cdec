"""The Internet checksum (RFC 1071) as arithmetic modulo 65535.

The one's complement sum of 16-bit words is the number that the bytes form, modulo 2^16 - 1. Python computes that quickly, and
sums of parts can be added and subtracted: a rewritten header needs no second pass over the payload (RFC 1624).
"""

MODULUS = 0xFFFF


def ones_sum(data: bytes | memoryview) -> int:
    """Sum of the 16-bit words of `data`, modulo 65535; an odd last byte is padded with zero."""
    value = int.from_bytes(data, "big")
    return (value << 8 if len(data) & 1 else value) % MODULUS


def folded(total: int) -> int:
    """The checksum field for words that add up to `total`: never 0xFFFF, so that 0 stands for no difference."""
    return -total % MODULUS
