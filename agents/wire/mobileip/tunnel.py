"""Tunnelled packets as octets: IP in IP (RFC 2003), GRE (RFC 2784), UDP tunnel data (RFC 3519 section 3.3).

Made for the userspace tunnel: one call per packet, no objects for layers. What is inside is IPv4. ICMP errors that come back
about outer packets are in `tunnel_errors`.
"""

import struct
from typing import Final, NamedTuple

from agents.wire.checksum import MODULUS, folded, ones_sum
from agents.wire.errors import WireError
from agents.wire.mobileip.addresses import ipv4_octets, ipv4_text

IP_HEADER: Final = 20
IP_IN_IP, GRE, UDP = 4, 47, 17
"""IP protocol numbers of the outer header."""
TUNNEL_DATA: Final = 4
"""Message type of tunnel data on UDP port 434."""
OVERHEAD = {IP_IN_IP: IP_HEADER, GRE: IP_HEADER + 4, UDP: IP_HEADER + 8 + 4}
"""Octets that each kind of tunnel adds to a packet, by outer protocol."""
OUTER_TTL: Final = 64

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_GRE = struct.Struct("!HH")
_GRE_CHECKSUM, _GRE_RESERVED0, _GRE_VERSION = 0x8000, 0x7C00, 0x0007
_ETHERTYPE_IPV4 = 0x0800
_TUNNEL_DATA_HEAD = struct.Struct("!BBH")
_DONT_FRAGMENT, _FRAGMENT = 0x4000, 0x3FFF
_ECN, _CONGESTION_EXPERIENCED = 0x03, 0x03
_LONGEST = 0xFFFF


class Decapsulated(NamedTuple):
    """A packet that came out of a tunnel, with the addresses of the tunnel's ends."""

    source: str
    destination: str
    protocol: int
    """Of the outer header: 4 or 47."""
    inner: bytes


def ipv4_header(
    source: str, destination: str, protocol: int, payload: int, *, tos: int = 0, identification: int = 0,
    dont_fragment: bool = False, ttl: int = OUTER_TTL,
) -> bytes:  # fmt: skip
    """An IPv4 header of 20 octets for `payload` octets behind it. Raises WireError when the packet is too long."""
    total = IP_HEADER + payload
    if total > _LONGEST:
        raise WireError(f"packet of {total} octets, IPv4 has room for {_LONGEST}")
    fragment = _DONT_FRAGMENT if dont_fragment else 0
    addresses = ipv4_octets(source), ipv4_octets(destination)
    header = _IPV4.pack(0x45, tos, total, identification & 0xFFFF, fragment, ttl, protocol, 0, *addresses)
    return header[:10] + folded(ones_sum(header)).to_bytes(2, "big") + header[12:]


def encapsulate(
    packet: bytes, source: str, destination: str, identification: int, protocol: int = IP_IN_IP, ttl: int = OUTER_TTL
) -> bytes:
    """`packet` inside IP (protocol 4) or GRE (47): TOS and DF are copied to the outer header (RFC 2003 section 3.1).

    `identification` should differ from packet to packet: without DF the outer packet may be fragmented. The inner packet is not
    changed; a kernel that forwarded it has decremented its TTL (else see `forwarded`). Raises WireError.
    """
    check_ipv4(packet)
    inner = packet if protocol == IP_IN_IP else _GRE.pack(0, _ETHERTYPE_IPV4) + packet
    dont_fragment = packet[6] & 0x40 > 0
    header = ipv4_header(
        source,
        destination,
        protocol,
        len(inner),
        tos=packet[1],
        identification=identification,
        dont_fragment=dont_fragment,
        ttl=ttl,
    )
    return header + inner


def decapsulate(packet: bytes) -> Decapsulated:
    """What is inside an IPv4 packet of protocol 4 or 47. Who may send it is the caller's to check. Raises WireError.

    A congestion mark of the outer header is handed on (RFC 6040 section 4.2). Octets behind the inner packet are cut off.
    """
    header = check_ipv4(packet)
    protocol = packet[9]
    if packet[6] << 8 & _FRAGMENT or packet[7]:
        raise WireError("outer packet is a fragment")
    end = packet[2] << 8 | packet[3]
    if protocol == GRE:
        header += gre_header(packet[header:end])
    elif protocol != IP_IN_IP:
        raise WireError(f"outer packet of protocol {protocol} carries no packet")
    inner = packet[header:end]
    check_ipv4(inner)
    inner = inner[: inner[2] << 8 | inner[3]]
    if packet[1] & _ECN == _CONGESTION_EXPERIENCED:
        inner = _with_congestion(inner)
    return Decapsulated(ipv4_text(bytes(packet[12:16])), ipv4_text(bytes(packet[16:20])), protocol, inner)


def tunnel_data(packet: bytes, next_header: int = IP_IN_IP) -> bytes:
    """The UDP payload that carries `packet` between ports 434 (RFC 3519 section 3.3)."""
    return bytes((TUNNEL_DATA, next_header, 0, 0)) + packet


def from_tunnel_data(payload: bytes) -> bytes:
    """The IPv4 packet in a UDP payload. Raises WireError: another next header than 4, or no whole packet."""
    if len(payload) < _TUNNEL_DATA_HEAD.size or payload[0] != TUNNEL_DATA:
        raise WireError(f"UDP payload of {len(payload)} octets is no tunnel data")
    if payload[1] != IP_IN_IP:
        raise WireError(f"tunnel data with next header {payload[1]}, only 4 is supported")
    inner = payload[_TUNNEL_DATA_HEAD.size :]
    check_ipv4(inner)
    return inner[: inner[2] << 8 | inner[3]]


def check_ipv4(packet: bytes) -> int:
    """Octets of the IPv4 header. Raises WireError unless this is a whole IPv4 packet by version and lengths."""
    if len(packet) < IP_HEADER or packet[0] >> 4 != 4:
        raise WireError(f"{len(packet)} octets that begin with {packet[:1].hex()}: no IPv4 packet")
    header = (packet[0] & 15) * 4
    total = packet[2] << 8 | packet[3]
    if not IP_HEADER <= header <= total <= len(packet):
        raise WireError(f"IPv4 packet: header of {header} and total length of {total} octets in {len(packet)}")
    return header


def gre_header(packet: bytes) -> int:
    """Octets of the GRE header that `packet` begins with. Raises WireError for what a receiver must discard (RFC 2784)."""
    if len(packet) < _GRE.size:
        raise WireError(f"GRE header of {len(packet)} octets")
    flags, kind = _GRE.unpack_from(packet)
    if flags & (_GRE_RESERVED0 | _GRE_VERSION) or kind != _ETHERTYPE_IPV4:
        raise WireError(f"GRE flags {flags:#06x} with protocol type {kind:#06x} are not supported")
    if not flags & _GRE_CHECKSUM:
        return _GRE.size
    if len(packet) < _GRE.size + 4:
        raise WireError(f"GRE header of {len(packet)} octets has no room for its checksum")
    if ones_sum(packet):
        raise WireError("GRE checksum is wrong")
    return _GRE.size + 4


def forwarded(packet: bytes) -> bytes:
    """The packet with a TTL that is lower by one. Raises WireError when the TTL ends here (RFC 2003 section 3.1)."""
    check_ipv4(packet)
    if packet[8] <= 1:
        raise WireError("the packet's TTL ends here")
    return _with_word(packet, 8, (packet[8] - 1) << 8 | packet[9])


def _with_congestion(packet: bytes) -> bytes:
    if not packet[1] & _ECN:
        raise WireError("congestion marked on a packet whose ends know no ECN (RFC 6040 section 4.2)")
    return _with_word(packet, 0, packet[0] << 8 | packet[1] | _CONGESTION_EXPERIENCED)


def _with_word(packet: bytes, at: int, word: int) -> bytes:
    """Another 16-bit word in the IPv4 header, with its checksum brought up to date (RFC 1624)."""
    old = packet[at] << 8 | packet[at + 1]
    checksum = ((packet[10] << 8 | packet[11]) + old - word) % MODULUS
    changed = bytearray(packet)
    changed[at : at + 2] = word.to_bytes(2, "big")
    changed[10:12] = checksum.to_bytes(2, "big")
    return bytes(changed)
