"""Router solicitations (RFC 4861 section 4.1): the kernel sends them when an interface comes up, not when carrier returns."""

import socket
import struct

ALL_ROUTERS = "ff02::2"
ROUTER_SOLICITATION, SOURCE_LINK_LAYER_ADDRESS = 133, 1
ICMPV6_FILTER = 1
HOP_LIMIT = 255


def router_solicitation(mac: str) -> bytes:
    """The ICMPv6 message, checksum left to the kernel, with the sender's link-layer address when it has one."""
    message = struct.pack("!BBHI", ROUTER_SOLICITATION, 0, 0, 0)
    octets = bytes(int(part, 16) for part in mac.split(":")) if mac else b""
    if len(octets) == 6:
        message += struct.pack("!BB6s", SOURCE_LINK_LAYER_ADDRESS, 1, octets)
    return message


def solicit(interface: str, mac: str) -> None:
    """Send one router solicitation. Raises OSError when the interface has no link-local address or is down."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.setsockopt(socket.IPPROTO_ICMPV6, ICMPV6_FILTER, b"\xff" * 32)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOP_LIMIT)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        raw.sendto(router_solicitation(mac), (ALL_ROUTERS, 0, 0, socket.if_nametoindex(interface)))
