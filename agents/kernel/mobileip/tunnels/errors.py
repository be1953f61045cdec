"""ICMP errors from inside a tunnel: what they mean for it and for the sender of the inner packet (RFC 2003 section 4)."""

import socket
import struct
from dataclasses import dataclass
from typing import Final

from agents.kernel.mobileip.tunnels.headers import PROTOCOL_GRE, PROTOCOL_IPIP, PROTOCOL_UDP, gre_header_length
from agents.wire.checksum import folded, ones_sum

UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM = 3, 11, 12
TOO_BIG = 4
HOST_UNREACHABLE = 1
LEAST_MTU: Final = 552
"""Smaller path MTUs are not believed: anybody can send an ICMP error (net.ipv4.route.min_pmtu has the same value)."""
QUOTED_BYTES: Final = 548
_RELAYED_CODES = (0, 1, 2, 5, 6, 7, 8, 11, 12)


@dataclass(frozen=True, slots=True)
class TunnelError:
    """An ICMP error about an outer packet."""

    local: str
    remote: str
    protocol: int
    remote_port: int
    kind: int
    code: int
    mtu: int
    """Of the link that refused the outer packet, for TOO_BIG; 0: it did not say."""
    inner: bytes
    """What it quotes of the inner packet: perhaps nothing."""


def parse(packet: bytes) -> TunnelError | None:
    """The error in a received IPv4 packet with ICMP inside; None when it is about no tunnel packet."""
    at = (packet[0] & 15) * 4 if packet else 0
    if len(packet) < at + 28:
        return None
    kind, code, _sum, _unused, mtu = struct.unpack_from("!BBHHH", packet, at)
    quoted = packet[at + 8 :]
    length, protocol = (quoted[0] & 15) * 4, quoted[9]
    if quoted[0] >> 4 != 4 or length < 20 or kind not in (UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM):
        return None
    port, inner = 0, quoted[length:]
    if protocol == PROTOCOL_UDP:
        if len(inner) < 8:
            return None
        port, inner = struct.unpack_from("!H", inner, 2)[0], inner[12:]
    elif protocol == PROTOCOL_GRE:
        inner = inner[gre_header_length(inner[:4]) or len(inner) :]
    elif protocol != PROTOCOL_IPIP:
        return None
    local, remote = socket.inet_ntoa(quoted[12:16]), socket.inet_ntoa(quoted[16:20])
    return TunnelError(local, remote, protocol, port, kind, code, mtu if kind == UNREACHABLE and code == TOO_BIG else 0, inner)


def relayed(error: TunnelError, tunnel_mtu: int) -> tuple[str, bytes] | None:
    """ICMP message for the sender of the inner packet, with its address; None when there is nothing to tell.

    tunnel_mtu: what the tunnel carries from now on, in octets of the inner packet.
    """
    inner = error.inner
    if len(inner) < 28 or inner[0] >> 4 != 4 or (inner[9] == socket.IPPROTO_ICMP and inner[20] not in (0, 8)):
        return None
    if error.kind == UNREACHABLE and error.code == TOO_BIG:
        # Without DF the next packet is cut in front of the tunnel.
        return _message(TOO_BIG, tunnel_mtu, inner) if inner[6] & 0x40 else None
    if error.kind == TIME_EXCEEDED or (error.kind == UNREACHABLE and error.code in _RELAYED_CODES):
        return _message(HOST_UNREACHABLE, 0, inner)
    return None


def _message(code: int, mtu: int, inner: bytes) -> tuple[str, bytes]:
    body = struct.pack("!BBHHH", UNREACHABLE, code, 0, 0, mtu) + inner[:QUOTED_BYTES]
    checksum = folded(ones_sum(body))
    return socket.inet_ntoa(inner[12:16]), body[:2] + checksum.to_bytes(2, "big") + body[4:]
