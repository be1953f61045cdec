"""ICMP errors about tunnels (RFC 2003 section 4): an error about an outer packet becomes one about the packet inside.

The entrance of a tunnel is told of trouble on the way; the sender of the inner packet must hear of it. Routers quote little of
a packet: where the inner source is not quoted, nothing can be relayed, and the entrance keeps the tunnel's MTU for the next
packet (`TunnelError.inner_mtu`, then `too_big`; RFC 2003 section 5). Limiting the rate is the caller's.
"""

import ipaddress
import struct
from functools import lru_cache
from typing import Final, NamedTuple

from agents.wire.checksum import folded, ones_sum
from agents.wire.errors import WireError
from agents.wire.mobileip.addresses import ipv4_text
from agents.wire.mobileip.tunnel import GRE, IP_HEADER, IP_IN_IP, TUNNEL_DATA, UDP, check_ipv4, ipv4_header
from agents.wire.mobileip.values import REGISTRATION_PORT

ICMP: Final = 1
UNREACHABLE, TIME_EXCEEDED = 3, 11
NETWORK, HOST, PROTOCOL, TOO_BIG = 0, 1, 2, 4
"""Codes of UNREACHABLE."""
MTU_MIN: Final = 68
"""Octets; no IPv4 link has less (RFC 791)."""
_QUOTED = 548
"""Octets of the original packet that are quoted: the whole error has 576 at most (RFC 1812 section 4.3.2.3)."""
_ICMP_HEAD = struct.Struct("!BBHHH")
_ERROR_TYPES = frozenset((3, 4, 5, 11, 12))
# RFC 2003 sections 4.1 and 4.4: what the inner sender is told, by what the entrance was told. All else is not relayed.
_RELAYED = {
    (UNREACHABLE, NETWORK): NETWORK,
    (UNREACHABLE, HOST): HOST,
    (UNREACHABLE, PROTOCOL): HOST,  # the inner sender did not use this protocol
    (UNREACHABLE, TOO_BIG): TOO_BIG,
    (TIME_EXCEEDED, 0): HOST,  # a loop inside the tunnel
    (TIME_EXCEEDED, 1): HOST,
}


class TunnelError(NamedTuple):
    """An ICMP error about an outer packet."""

    type: int
    code: int
    source: str
    """Outer source: this end of the tunnel."""
    destination: str
    """Outer destination: the other end."""
    protocol: int
    """Of the outer packet: 4, 47 or 17."""
    remote_port: int
    """Of the outer packet where UDP carries the tunnel, else 0."""
    inner_mtu: int
    """What fits into the tunnel, in octets; 0 unless the error is "too big" and names an MTU."""
    inner: bytes
    """As much of the inner packet as was quoted, perhaps nothing."""


def read_error(packet: bytes) -> TunnelError:
    """The error in an IPv4 packet. Raises WireError: no ICMP error, a wrong checksum, or not about a tunnelled packet."""
    begin, end = check_ipv4(packet), packet[2] << 8 | packet[3]
    message = packet[begin:end]
    if packet[9] != ICMP or len(message) < _ICMP_HEAD.size or message[0] not in _ERROR_TYPES:
        raise WireError("the packet is no ICMP error")
    if ones_sum(message):
        raise WireError("ICMP error: the checksum is wrong")
    kind, code, _, _, mtu = _ICMP_HEAD.unpack_from(message)
    quoted = message[_ICMP_HEAD.size :]
    outer = (quoted[0] & 15) * 4 if quoted else 0
    if outer < IP_HEADER or quoted[0] >> 4 != 4 or len(quoted) < outer:
        raise WireError(f"ICMP error quotes {len(quoted)} octets, no IPv4 header")
    protocol = quoted[9]
    header, remote_port = _tunnel_header(protocol, quoted[outer:])
    overhead = outer + header
    told = kind == UNREACHABLE and code == TOO_BIG and mtu > 0
    return TunnelError(
        kind, code, ipv4_text(quoted[12:16]), ipv4_text(quoted[16:20]), protocol, remote_port,
        max(mtu - overhead, MTU_MIN) if told else 0, quoted[overhead:],
    )  # fmt: skip


def _tunnel_header(protocol: int, quoted: bytes) -> tuple[int, int]:
    """Octets between outer and inner IP header, and the remote UDP port; of what was quoted, which may be little."""
    if protocol == IP_IN_IP:
        return 0, 0
    if protocol == GRE and len(quoted) >= 4:
        return 8 if quoted[0] & 0x80 else 4, 0
    if protocol == UDP and len(quoted) >= 8:
        local, remote = struct.unpack_from("!HH", quoted)
        is_tunnel = REGISTRATION_PORT in (local, remote) and quoted[8:9] in (b"", bytes((TUNNEL_DATA,)))
        if is_tunnel:
            return 8 + 4, remote
    raise WireError(f"ICMP error about a packet of protocol {protocol} that is not tunnelled")


def relayed(error: TunnelError, own_address: str) -> bytes | None:
    """The ICMP error for the inner sender, a whole IPv4 packet from `own_address`.

    None: this error is not relayed (RFC 2003 section 4), too little of the inner packet was quoted, or nobody may be told.
    """
    code = _RELAYED.get((error.type, error.code))
    if code is None:
        return None
    return _unreachable(error.inner, code, error.inner_mtu if code == TOO_BIG else 0, own_address)


def too_big(packet: bytes, mtu: int, own_address: str) -> bytes | None:
    """The error for the sender of `packet`, which has DF and does not fit into a tunnel of `mtu` octets (RFC 1191 section 4).

    None: no error may be sent about this packet. Raises WireError for an MTU that is no 16-bit number.
    """
    if not 0 <= mtu <= 0xFFFF:
        raise WireError(f"MTU of {mtu} octets")
    return _unreachable(packet, TOO_BIG, mtu, own_address)


def _unreachable(about: bytes, code: int, mtu: int, own_address: str) -> bytes | None:
    if not _may_be_told(about):
        return None
    message = _ICMP_HEAD.pack(UNREACHABLE, code, 0, 0, mtu) + about[:_QUOTED]
    message = message[:2] + folded(ones_sum(message)).to_bytes(2, "big") + message[4:]
    # TOS 0xC0: internetwork control (RFC 1812 section 4.3.2.5)
    return ipv4_header(own_address, ipv4_text(bytes(about[12:16])), ICMP, len(message), tos=0xC0) + message


def _may_be_told(packet: bytes) -> bool:
    """Whether an ICMP error may be sent about a packet, of which the beginning is here (RFC 1122 section 3.2.2)."""
    header = (packet[0] & 15) * 4 if packet else 0
    if header < IP_HEADER or packet[0] >> 4 != 4 or len(packet) < header + 8:  # RFC 792: header and 64 bits
        return False
    if packet[6] & 0x1F or packet[7]:  # not the first fragment
        return False
    if packet[9] == ICMP and packet[header] in _ERROR_TYPES:
        return False
    return _is_one_host(bytes(packet[12:16])) and not _is_group(bytes(packet[16:20]))


@lru_cache(maxsize=1 << 10)
def _is_one_host(octets: bytes) -> bool:
    address = ipaddress.IPv4Address(octets)
    return not (address.is_unspecified or address.is_loopback or _is_group(octets))


def _is_group(octets: bytes) -> bool:
    return octets[0] >> 4 == 14 or octets == b"\xff\xff\xff\xff"
