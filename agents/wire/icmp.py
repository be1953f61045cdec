"""ICMP messages about a segment that was too big (RFC 792, RFC 1191 section 4, RFC 4443 section 3.2)."""

import struct
from dataclasses import dataclass

from agents.wire.checksum import folded, ones_sum

_IPV4 = struct.Struct("!BBHIBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_ICMP, _TCP, _ICMPV6 = 1, 6, 58
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


@dataclass(frozen=True, slots=True)
class TooBig:
    """What such a message says: the ends of the quoted segment, its sequence number, and what fits. mtu 0: it does not say."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    seq: int
    mtu: int


def parse_too_big(packet: bytes) -> TooBig | None:
    """Read an IP packet that came in; None when it is no message of this kind, or a damaged one, or not about TCP."""
    if len(packet) >= 28 and packet[0] >> 4 == 4 and packet[9] == _ICMP:
        header = (packet[0] & 15) * 4
        message = packet[header:]
        if header < 20 or message[:2] != b"\x03\x04" or folded(ones_sum(message)):
            return None
        quoted = message[8:]
        inner = (quoted[0] & 15) * 4 if quoted else 0
        if inner < 20 or len(quoted) < inner + _QUOTED_TCP or quoted[9] != _TCP or quoted[0] >> 4 != 4:
            return None
        addresses, mtu = (quoted[12:16], quoted[16:20]), int.from_bytes(message[6:8], "big")
    elif len(packet) >= 48 and packet[0] >> 4 == 6 and packet[6] == _ICMPV6:
        message = packet[40:]
        total = ones_sum(message) + ones_sum(packet[8:40]) + len(message) + _ICMPV6
        quoted, inner = message[8:], 40
        if message[:1] != b"\x02" or folded(total) or len(quoted) < inner + _QUOTED_TCP or quoted[6] != _TCP:
            return None
        addresses, mtu = (quoted[8:24], quoted[24:40]), int.from_bytes(message[4:8], "big")
    else:
        return None
    source_port, destination_port, seq = struct.unpack_from("!HHI", quoted, inner)
    return TooBig(addresses[0], source_port, addresses[1], destination_port, seq, mtu)
