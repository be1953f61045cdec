"""What stays the same in the headers of a subflow's packets, towards the network and towards this host's TCP; IPv4 only."""

import struct
from typing import Final

from agents.wire.checksum import folded, ones_sum

Ends = tuple[bytes, int, bytes, int]
"""(source, port, destination, port)"""
ACK_TO_NETWORK_BYTES: Final = 60
"""With timestamps and a data ACK."""
ACK_TO_HOST_BYTES: Final = 52
_IP_AND_ENDS = struct.Struct("!HHIHH12s")
_DONT_FRAGMENT, _TCP, _HOPS = 0x4000, 6, 64


class Lane:
    """Bytes and sums for both directions."""

    __slots__ = (
        "ack_to_host", "ack_to_network", "host_addresses", "host_ends", "network_addresses", "network_ends", "to_host",
        "to_network",
    )  # fmt: skip
    to_network: bytes
    """Addresses and ports."""
    to_host: bytes
    network_ends: int
    """Sum of addresses, ports and protocol."""
    host_ends: int
    network_addresses: int
    host_addresses: int
    ack_to_network: bytes
    """IP header and ports of an ACK."""
    ack_to_host: bytes

    def __init__(self, network: Ends, host: Ends) -> None:
        self.to_network, self.to_host = packed_ends(network), packed_ends(host)
        self.network_ends, self.host_ends = ones_sum(self.to_network) + _TCP, ones_sum(self.to_host) + _TCP
        self.network_addresses, self.host_addresses = ones_sum(self.to_network[:8]), ones_sum(self.to_host[:8])
        self.ack_to_network = _ip_and_ends(self.to_network, ACK_TO_NETWORK_BYTES)
        self.ack_to_host = _ip_and_ends(self.to_host, ACK_TO_HOST_BYTES)


def packed_ends(ends: Ends) -> bytes:
    """As they lie in the headers of a packet without IP options."""
    source, source_port, destination, destination_port = ends
    return source + destination + source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big")


def _ip_and_ends(ends: bytes, total: int) -> bytes:
    first, hop = 0x4500, _HOPS << 8 | _TCP
    checksum = folded(first + total + _DONT_FRAGMENT + hop + ones_sum(ends[:8]))
    return _IP_AND_ENDS.pack(first, total, _DONT_FRAGMENT, hop, checksum, ends)
