"""Outer headers of tunnels and what is inside, as octets: IP in IP (RFC 2003), GRE (RFC 2784), UDP (RFC 3519)."""

import socket
import struct
from typing import Final

from agents.wire.errors import WireError
from agents.wire.mobileip.tunnel import decapsulate

PROTOCOL_IPIP: Final = 4
PROTOCOL_GRE: Final = 47
PROTOCOL_UDP: Final = 17
OUTER_TTL: Final = 64
DF: Final = 0x4000
GRE_IPV4: Final = b"\0\0\x08\0"
"""GRE header without options; protocol type IPv4."""
UDP_IPIP: Final = b"\x04\x04\0\0"
"""Tunnel data message, next header 4 (RFC 3519 section 3.3)."""
_GRE_CHECKSUM, _GRE_KEY, _GRE_SEQUENCE, _GRE_OTHER = 0x8000, 0x2000, 0x1000, 0x4FFF
"""_GRE_OTHER: routing, reserved bits and version: not read here."""
_ECN, _CONGESTION_EXPERIENCED = 0x03, 0x03
_OUTER = struct.Struct("!BBHHHBBH4s4s")


def outer_header(local: str, remote: str, protocol: int, tos: int, df: bool) -> bytes:
    """An IPv4 header whose length, identification and checksum the kernel fills in (raw(7))."""
    ends = socket.inet_aton(local), socket.inet_aton(remote)
    return _OUTER.pack(0x45, tos, 0, 0, DF if df else 0, OUTER_TTL, protocol, 0, *ends)


def is_packet(data: bytes | memoryview) -> bool:
    """Whether it begins like an IPv4 packet of this length (longer than its header says is cut off by the receiver)."""
    return len(data) >= 20 and data[0] >> 4 == 4 and 20 <= (data[2] << 8 | data[3]) <= len(data)


def inner_of_raw(data: bytes, protocol: int) -> bytes | None:
    """The inner packet of a received IPv4 packet of `protocol`; None when it holds no IPv4 packet."""
    at = (data[0] & 15) * 4
    if protocol == PROTOCOL_GRE:
        length = gre_header_length(data[at : at + 4])
        if length is None:
            return None
        at += length
    inner = data[at:]
    if not is_packet(inner):
        return None
    if data[1] & _ECN == _CONGESTION_EXPERIENCED:
        return _marked(data)
    return inner


def _marked(data: bytes) -> bytes | None:
    """A router on the way has seen congestion: the inner packet says so from now on (RFC 6040 section 4.2)."""
    try:
        return decapsulate(data).inner
    except WireError:
        return None


def gre_header_length(head: bytes) -> int | None:
    """Octets of a GRE header by its first four; None: not IPv4 inside, or a header with what nobody asked for."""
    if len(head) < 4 or head[2:4] != b"\x08\0":
        return None
    flags = head[0] << 8 | head[1]
    if flags & _GRE_OTHER:
        return None
    return 4 + 4 * sum(bool(flags & bit) for bit in (_GRE_CHECKSUM, _GRE_KEY, _GRE_SEQUENCE))
