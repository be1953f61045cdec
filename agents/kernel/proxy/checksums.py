"""TCP checksums for packets that arrive without one, superpackets among them."""

from typing import Any, Final

from agents.wire.checksum import MODULUS, folded, ones_sum

numpy: Any
try:
    import numpy
except ImportError:  # a slim guest has none, and no superpackets either
    numpy = None

LARGE_BYTES: Final = 4096
"""From here on numpy is faster than Python's whole numbers: 15 times at 64 KiB."""
_TCP = 6


def large_ones_sum(data: memoryview) -> int:
    """`ones_sum` for many bytes. Adding words of the other byte order swaps the bytes of the sum, no more (RFC 1071)."""
    if numpy is None:
        return ones_sum(data)
    whole = len(data) & ~3
    total = int(numpy.frombuffer(data[:whole], dtype="<u4").sum(dtype=numpy.uint64)) % MODULUS
    swapped = (total & 0xFF) << 8 | total >> 8
    return (swapped + ones_sum(data[whole:])) % MODULUS


def with_checksum(packet: bytes) -> bytes:
    """The packet with its TCP checksum computed.

    For packets that arrive without one, whole or as superpackets: they come from this machine, and nobody will do it later.
    """
    at, ends = ((packet[0] & 15) * 4, slice(12, 20)) if packet[0] >> 4 == 4 else (40, slice(8, 40))
    body = memoryview(packet)[at + 18 :]
    total = ones_sum(packet[ends]) + _TCP + len(packet) - at + ones_sum(packet[at : at + 16])
    total += large_ones_sum(body) if len(body) >= LARGE_BYTES else ones_sum(body)
    return b"".join((packet[: at + 16], folded(total).to_bytes(2, "big"), body))
