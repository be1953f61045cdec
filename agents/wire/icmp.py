"""ICMP messages about a segment that was too big (RFC 792, RFC 1191 section 4, RFC 4443 section 3.2)."""

import struct

from agents.wire.checksum import folded, ones_sum

_IPV4 = struct.Struct("!BBHIBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_ICMP, _ICMPV6 = 1, 58
_QUOTED_TCP = 8
"""Bytes of the TCP header that are quoted: ports and sequence number."""


def too_big(
    source: bytes, source_port: int, destination: bytes, destination_port: int, seq: int, length: int, mtu: int
) -> bytes:
    """The packet that tells `source` that its segment of `length` bytes (a whole packet) did not fit into `mtu`."""
    ports = struct.pack("!HHI", source_port, destination_port, seq & 0xFFFFFFFF)
    if len(source) == 4:
        quoted = _IPV4.pack(0x45, 0, length, 0x4000, 64, 6, 0, source, destination) + ports
        message = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
        message = message[:2] + folded(ones_sum(message)).to_bytes(2, "big") + message[4:]
        ip = _IPV4.pack(0x45, 0, 20 + len(message), 0x4000, 64, _ICMP, 0, destination, source)
        return ip[:10] + folded(ones_sum(ip)).to_bytes(2, "big") + ip[12:] + message
    quoted = _IPV6.pack(0x60000000, length - 40, 6, 64, source, destination) + ports
    message = struct.pack("!BBHI", 2, 0, 0, mtu) + quoted
    total = ones_sum(message) + ones_sum(source) + ones_sum(destination) + len(message) + _ICMPV6
    message = message[:2] + folded(total).to_bytes(2, "big") + message[4:]
    return _IPV6.pack(0x60000000, len(message), _ICMPV6, 64, destination, source) + message
