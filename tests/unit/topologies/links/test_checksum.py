"""Checksums that hardware should have filled in, against scapy's."""

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from topologies.links.checksum import complete, internet_checksum


def test_rfc_1071_example() -> None:
    # RFC 1071, section 3: the sum is ddf2, the checksum its complement.
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2 ^ 0xFFFF


V4 = Ether() / IP(src="10.0.0.1", dst="10.0.0.2")
V6 = Ether() / IPv6(src="2001:db8::1", dst="2001:db8::2")


@pytest.mark.parametrize(
    "packet",
    [
        V4 / TCP(sport=1, dport=2) / Raw(b"odd"),
        V4 / UDP(sport=1, dport=2) / Raw(b"even"),
        Ether() / Dot1Q(vlan=5) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / Raw(b"tagged"),
        V6 / TCP() / Raw(b"x" * 1000),
        V6 / UDP() / Raw(b"x"),
        V6 / ICMPv6EchoRequest(data=b"ping"),
        V6 / IPv6ExtHdrDestOpt() / UDP() / Raw(b"x"),
        Ether() / IP(src="10.0.0.1", dst="10.0.0.2", options=[]) / UDP() / Raw(b"y"),
    ],
)
def test_completes_what_scapy_computes(packet: Packet) -> None:
    good = bytes(packet)
    layer = next(item for item in (TCP, UDP, ICMPv6EchoRequest) if item in packet)
    at = good.index(bytes(Ether(good)[layer]))
    offset = at + {TCP: 16, UDP: 6, ICMPv6EchoRequest: 2}[layer]
    broken = good[:offset] + b"\x12\x34" + good[offset + 2 :]
    assert complete(broken) == good
    # Padding of short frames is not part of the checksum.
    assert complete(broken + bytes(6)) == good + bytes(6)


@pytest.mark.parametrize(
    "frame",
    [b"", b"x", b"\0" * 14, bytes(Ether() / ARP()), bytes(V4 / TCP())[:40], bytes(V4 / Raw(b"z" * 30)), bytes(V6)[:20]],
)
def test_leaves_everything_else_alone(frame: bytes) -> None:
    assert complete(frame) == frame


def test_leaves_fragments_alone() -> None:
    frame = bytes(Ether() / IP(flags="MF", src="10.0.0.1", dst="10.0.0.2") / UDP() / Raw(b"part"))
    assert complete(frame) == frame
