"""Packets of every shape, written by scapy or by hand, and what the decoder says of them."""

from __future__ import annotations

import struct

import pytest
import synthetic as syn
from scapy.all import (
    GRE,
    ICMP,
    IP,
    TCP,
    UDP,
    CookedLinux,
    CookedLinuxV2,
    Dot1AD,
    Dot1Q,
    Ether,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Loopback,
    Raw,
)
from scapy.layers.inet6 import HAO, MIP6MH_BU

from analysis.packets import read_capture
from analysis.packets.schema import (
    FRAGMENT,
    HAS_MPTCP,
    HAS_MSS,
    HAS_SACK,
    IP_CUT,
    IP_MALFORMED,
    LATER_FRAGMENT,
    LENGTH_CLIPPED,
    LENGTH_ZERO,
    NOT_IP,
    OPTIONS_CUT,
    OPTIONS_MALFORMED,
    ROUTE_OPTIMISED,
    TRANSPORT_CUT,
    TRANSPORT_MALFORMED,
    TUNNEL_4IN6,
    TUNNEL_6IN4,
    TUNNEL_6IN6,
    TUNNEL_GRE,
    TUNNEL_IPIP,
    TUNNEL_MINIMAL,
    TUNNEL_UDP,
    UNUSABLE,
)

A, B, C, D = "10.0.0.1", "10.0.0.2", "192.0.2.3", "192.0.2.4"
A6, B6, C6, D6 = "2001:db8::1", "2001:db8::2", "2001:db8:1::3", "2001:db8:1::4"
SEGMENT = TCP(sport=1000, dport=2000, seq=77, ack=88, flags="A") / Raw(b"x" * 33)


def decode(folder, packet, link_type=1, snap=65535):
    """The only row of a capture of one packet, with addresses as text."""
    path = folder / "one.pcap"
    path.write_bytes(syn.pcap([(5, bytes(packet))], link_type=link_type, snap=snap))
    table = read_capture(path).table
    assert len(table) == 1
    row = {name: int(values[0]) for name, values in table.columns.items()}
    for name in ("src", "dst", "outer_src", "outer_dst"):
        row[name] = table.addresses.text(row[name])
    row["sack"] = table.sack.tolist()
    row["payload"] = table.payload(0)
    return row


def is_the_segment(row, src=A, dst=B):
    assert (row["src"], row["dst"], row["protocol"], row["problems"]) == (src, dst, 6, 0)
    assert (row["sport"], row["dport"], row["seq"], row["ack"], row["flags"]) == (1000, 2000, 77, 88, 16)
    assert (row["payload_bytes"], row["payload"]) == (33, b"x" * 33)


LINKS = {
    "ethernet": (1, Ether() / IP(src=A, dst=B) / SEGMENT),
    "vlan": (1, Ether() / Dot1Q(vlan=5) / IP(src=A, dst=B) / SEGMENT),
    "stacked vlan": (1, Ether(type=0x88A8) / Dot1AD(vlan=5, type=0x8100) / Dot1Q(vlan=6) / IP(src=A, dst=B) / SEGMENT),
    "cooked": (113, CookedLinux(proto=0x800) / IP(src=A, dst=B) / SEGMENT),
    "cooked 2": (276, CookedLinuxV2(proto=0x800) / IP(src=A, dst=B) / SEGMENT),
    "raw": (101, IP(src=A, dst=B) / SEGMENT),
    "raw 12": (12, IP(src=A, dst=B) / SEGMENT),
    "raw ipv4": (228, IP(src=A, dst=B) / SEGMENT),
    "loopback, host order": (0, Loopback(type=2) / IP(src=A, dst=B) / SEGMENT),
    "loopback, other order": (0, Raw(b"\x02\0\0\0") / IP(src=A, dst=B) / SEGMENT),
    "loopback of OpenBSD": (108, Raw(b"\0\0\0\x02") / IP(src=A, dst=B) / SEGMENT),
}


@pytest.mark.parametrize("name", LINKS)
def test_link_layers(tmp_path, name):
    link_type, packet = LINKS[name]
    row = decode(tmp_path, packet, link_type)
    is_the_segment(row)
    assert (row["ip_version"], row["tunnel"], row["overhead_bytes"]) == (4, 0, 40)


@pytest.mark.parametrize(("link_type", "head"), [(1, Ether()), (113, CookedLinux(proto=0x86DD)), (101, None), (229, None),
                                                 (0, Raw(b"\x1e\0\0\0")), (0, Raw(b"\0\0\0\x0a"))])  # fmt: skip
def test_link_layers_with_ipv6(tmp_path, link_type, head):
    inner = IPv6(src=A6, dst=B6) / SEGMENT
    is_the_segment(decode(tmp_path, head / inner if head is not None else inner, link_type), A6, B6)


@pytest.mark.parametrize(("packet", "link_type"), [
    (Ether(type=0x806) / Raw(bytes(28)), 1), (Raw(bytes(60)), 147), (Raw(b"\xf0" * 40), 101), (Loopback(type=7) / Raw(b"?"), 0),
])  # fmt: skip
def test_what_is_not_ip(tmp_path, packet, link_type):
    row = decode(tmp_path, packet, link_type)
    assert (row["protocol"], row["problems"], row["src"]) == (0, NOT_IP, "")


TUNNELS = {
    TUNNEL_IPIP: (IP(src=C, dst=D) / IP(src=A, dst=B) / SEGMENT, (C, D), (A, B), 60),
    TUNNEL_6IN4: (IP(src=C, dst=D) / IPv6(src=A6, dst=B6) / SEGMENT, (C, D), (A6, B6), 80),
    TUNNEL_4IN6: (IPv6(src=C6, dst=D6) / IP(src=A, dst=B) / SEGMENT, (C6, D6), (A, B), 80),
    TUNNEL_6IN6: (IPv6(src=C6, dst=D6) / IPv6(src=A6, dst=B6) / SEGMENT, (C6, D6), (A6, B6), 100),
    TUNNEL_GRE: (IP(src=C, dst=D) / GRE(chksum_present=1, key_present=1) / IP(src=A, dst=B) / SEGMENT, (C, D), (A, B), 72),
    TUNNEL_UDP: (
        IP(src=C, dst=D) / UDP(sport=434, dport=40000) / Raw(b"\x04\x04\0\0") / IP(src=A, dst=B) / SEGMENT, (C, D), (A, B), 72,
    ),
    TUNNEL_MINIMAL: (
        IP(src=C, dst=D, proto=55) / Raw(b"\x06\x80\0\0" + bytes([10, 0, 0, 2, 10, 0, 0, 1])) / SEGMENT, (C, D), (A, B), 52,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TUNNELS)
def test_tunnels(tmp_path, kind):
    packet, outer, inner, overhead = TUNNELS[kind]
    row = decode(tmp_path, Ether() / packet)
    is_the_segment(row, *inner)
    assert (row["tunnel"], row["tunnel_depth"], row["outer_src"], row["outer_dst"]) == (kind, 1, *outer)
    assert row["overhead_bytes"] == overhead


def test_minimal_encapsulation_without_source(tmp_path):
    head = Raw(b"\x06\x00\0\0" + bytes([10, 0, 0, 2]))
    row = decode(tmp_path, Ether() / IP(src=C, dst=D, proto=55) / head / SEGMENT)
    is_the_segment(row, C, B)


def test_gre_in_the_udp_tunnel(tmp_path):
    packet = IP(src=C, dst=D) / UDP(sport=434, dport=434) / Raw(b"\x04\x2f\0\0") / GRE() / IP(src=A, dst=B) / SEGMENT
    row = decode(tmp_path, Ether() / packet)
    is_the_segment(row)
    assert row["tunnel"] == TUNNEL_UDP


def test_minimal_encapsulation_in_the_udp_tunnel(tmp_path):
    head = Raw(b"\x04\x37\0\0" + b"\x06\x80\0\0" + bytes([10, 0, 0, 2, 10, 0, 0, 1]))
    row = decode(tmp_path, Ether() / IP(src=C, dst=D) / UDP(sport=434, dport=434) / head / SEGMENT)
    is_the_segment(row)
    assert (row["tunnel"], row["outer_src"], row["outer_dst"]) == (TUNNEL_UDP, C, D)


def test_registration_beside_the_udp_tunnel_is_no_tunnel(tmp_path):
    row = decode(tmp_path, Ether() / IP(src=C, dst=D) / UDP(sport=434, dport=434) / Raw(b"\x01" + bytes(23)))
    assert (row["protocol"], row["tunnel"], row["payload_bytes"], row["payload"][:1]) == (17, 0, 24, b"\x01")


def test_nested_tunnels_tell_the_outermost(tmp_path):
    packet = IP(src=C, dst=D) / IP(src="9.9.9.9", dst="8.8.8.8") / IP(src=A, dst=B) / SEGMENT
    row = decode(tmp_path, Ether() / packet)
    is_the_segment(row)
    assert (row["tunnel_depth"], row["outer_src"], row["outer_dst"]) == (2, C, D)


def test_a_tunnel_of_garbage_stays_a_packet(tmp_path):
    row = decode(tmp_path, Ether() / IP(src=C, dst=D, proto=4) / Raw(b"\x99" * 30))
    assert (row["protocol"], row["src"], row["tunnel"], row["payload_bytes"]) == (4, C, 0, 30)


def test_extension_headers(tmp_path):
    chain = IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting(addresses=[C6]) / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(m=0)
    row = decode(tmp_path, Ether() / IPv6(src=A6, dst=B6) / chain / SEGMENT)
    is_the_segment(row, A6, B6)
    assert row["tunnel"] == 0


def test_home_addresses_of_route_optimisation(tmp_path):
    """RFC 6275: the transport's addresses are the home addresses, on the wire are the care-of addresses."""
    to_peer = IPv6(src=C6, dst=B6) / IPv6ExtHdrDestOpt(options=[HAO(hoa=A6)]) / SEGMENT
    row = decode(tmp_path, Ether() / to_peer)
    is_the_segment(row, A6, B6)
    assert (row["tunnel"], row["tunnel_depth"], row["outer_src"], row["outer_dst"]) == (ROUTE_OPTIMISED, 0, C6, B6)
    from_peer = IPv6(src=B6, dst=C6) / IPv6ExtHdrRouting(type=2, segleft=1, addresses=[A6]) / SEGMENT
    row = decode(tmp_path, Ether() / from_peer)
    is_the_segment(row, B6, A6)
    assert (row["tunnel"], row["outer_src"], row["outer_dst"]) == (ROUTE_OPTIMISED, B6, C6)


def test_mobility_header(tmp_path):
    packet = IPv6(src=C6, dst=B6) / IPv6ExtHdrDestOpt(options=[HAO(hoa=A6)]) / MIP6MH_BU(seq=7)
    row = decode(tmp_path, Ether() / packet)
    assert (row["protocol"], row["sport"], row["src"], row["problems"]) == (135, 5, A6, 0)
    assert row["payload"][2] == 5


def test_icmp_tells_type_and_code(tmp_path):
    row = decode(tmp_path, Ether() / IP(src=A, dst=B) / ICMP(type=3, code=4))
    assert (row["protocol"], row["sport"], row["dport"], row["payload_bytes"]) == (1, 3, 4, 8)
    row = decode(tmp_path, Ether() / IPv6(src=A6, dst=B6) / ICMPv6EchoRequest())
    assert (row["protocol"], row["sport"], row["dport"]) == (58, 128, 0)


def test_ethernet_padding_is_no_payload(tmp_path):
    row = decode(tmp_path, bytes(Ether() / IP(src=A, dst=B) / TCP(sport=1000, dport=2000)) + bytes(6))
    assert row["payload_bytes"] == 0
    row = decode(tmp_path, bytes(Ether() / IP(src=A, dst=B) / UDP() / Raw(b"hello")) + bytes(20))
    assert row["payload_bytes"] == 5


def test_fragments(tmp_path):
    row = decode(tmp_path, Ether() / IP(src=A, dst=B, flags="MF") / SEGMENT)
    assert (row["problems"], row["sport"]) == (FRAGMENT, 1000)
    row = decode(tmp_path, Ether() / IP(src=A, dst=B, frag=100, proto=6) / Raw(bytes(40)))
    assert (row["problems"], row["sport"], row["protocol"]) == (LATER_FRAGMENT, 0, 6)
    row = decode(tmp_path, Ether() / IPv6(src=A6, dst=B6) / IPv6ExtHdrFragment(m=1) / SEGMENT)
    assert (row["problems"], row["sport"]) == (FRAGMENT, 1000)
    row = decode(tmp_path, Ether() / IPv6(src=A6, dst=B6) / IPv6ExtHdrFragment(offset=9, nh=6) / Raw(bytes(40)))
    assert (row["problems"], row["sport"]) == (LATER_FRAGMENT, 0)


def test_lengths_that_lie(tmp_path):
    assert decode(tmp_path, Ether() / IP(src=A, dst=B, len=900) / SEGMENT)["problems"] == LENGTH_CLIPPED
    row = decode(tmp_path, Ether() / IP(src=A, dst=B, len=0) / SEGMENT)
    assert (row["problems"], row["payload_bytes"]) == (LENGTH_ZERO, 33)
    assert decode(tmp_path, Ether() / IP(src=A, dst=B, len=19) / SEGMENT)["problems"] == IP_MALFORMED
    assert decode(tmp_path, Ether() / IP(src=A, dst=B, ihl=4) / SEGMENT)["problems"] == IP_MALFORMED
    assert decode(tmp_path, Ether() / IP(src=A, dst=B, len=30) / SEGMENT)["problems"] == TRANSPORT_MALFORMED
    row = decode(tmp_path, Ether() / IP(src=A, dst=B) / TCP(sport=1000, dport=2000, dataofs=4) / Raw(b"x"))
    assert (row["problems"], row["sport"], row["payload_bytes"]) == (TRANSPORT_MALFORMED, 1000, 0)
    row = decode(tmp_path, Ether() / IP(src=A, dst=B) / TCP(sport=1000, dport=2000, dataofs=15) / Raw(b"x"))
    assert row["problems"] == TRANSPORT_MALFORMED


@pytest.mark.parametrize(("snap", "problem"), [(10, IP_CUT), (30, IP_CUT), (36, TRANSPORT_CUT), (40, TRANSPORT_CUT),
                                               (54, OPTIONS_CUT), (60, OPTIONS_CUT), (66, 0)])  # fmt: skip
def test_snap_length(tmp_path, snap, problem):
    segment = TCP(sport=1000, dport=2000, options=[("Timestamp", (1, 2)), ("NOP", None), ("NOP", None)]) / Raw(bytes(500))
    row = decode(tmp_path, Ether() / IP(src=A, dst=B) / segment, snap=snap)
    assert row["problems"] == problem
    if not problem & UNUSABLE:
        assert row["payload_bytes"] == 500
    assert row["payload_captured"] == 0


def segment_with(options: bytes, snap=128):
    return syn.tcp(A, 1, B, 2, 1, 2, syn.ACK, 1400, options)


def test_options_of_a_kernel(tmp_path):
    options = b"\x02\x04\x05\xb4\x04\x02\x08\x0a\0\0\0\x01\0\0\0\x02\x01\x03\x03\x07"
    row = decode(tmp_path, segment_with(options))
    assert (row["mss"], row["wscale"], row["tsval"], row["tsecr"], row["problems"]) == (1460, 7, 1, 2, 0)
    sack = b"\x05\x12" + struct.pack(">IIII", 10, 20, 30, 40)
    row = decode(tmp_path, segment_with(b"\x01\x01" + sack))
    assert row["options"] == HAS_SACK
    assert row["sack"] == [[10, 20], [30, 40]]


@pytest.mark.parametrize("options", [b"\x08\x00", b"\x08\x01\0\0", b"\x08\x0b" + bytes(9), b"\x02\x03\x01\x01",
                                     b"\x05\x09" + bytes(7),
                                     b"\x01\x01\x01\x1e"])  # fmt: skip
def test_malformed_options_end_the_options(tmp_path, options):
    row = decode(tmp_path, segment_with(options))
    assert row["problems"] == OPTIONS_MALFORMED
    assert row["sack"] == []


@pytest.mark.parametrize("missing", [1, 2, 6, 14])
def test_dss_shorter_than_its_flags_demand_is_ignored(tmp_path, missing):
    whole = syn.dss(7, 1, 1400, dack=1)
    option = whole[:1] + bytes([len(whole) - missing]) + whole[2 : len(whole) - missing]
    row = decode(tmp_path, segment_with(option))
    assert (row["dss_flags"], row["dsn"], row["dack"], row["map_bytes"]) == (0, 0, 0, 0)
    assert row["problems"] & OPTIONS_MALFORMED
    assert row["mp_subtypes"] == 4


@pytest.mark.parametrize("flags", range(16))
@pytest.mark.parametrize("checksum", [False, True])
def test_dss_of_every_form(tmp_path, flags, checksum):
    body = b""
    if flags & 1:
        body += struct.pack(">Q", 2**40 + 7) if flags & 2 else struct.pack(">I", 7)
    if flags & 4:
        body += struct.pack(">Q", 2**50 + 9) if flags & 8 else struct.pack(">I", 9)
        body += struct.pack(">IH", 33, 1200) + (b"\xab\xcd" if checksum else b"")
    row = decode(tmp_path, segment_with(struct.pack(">BBBB", 30, 4 + len(body), 0x20, flags) + body))
    assert row["options"] == HAS_MPTCP
    assert row["dss_flags"] == flags
    assert row["dack"] == ((2**40 if flags & 2 else 0) + 7 if flags & 1 else 0)
    mapped = flags & 4 > 0
    assert row["dsn"] == ((2**50 if flags & 8 else 0) + 9 if mapped else 0)
    assert (row["ssn"], row["map_bytes"]) == ((33, 1200) if mapped else (0, 0))
    assert row["dss_checksum"] == (0xABCD if mapped and checksum else 0)


def test_all_flags_and_other_fields(tmp_path):
    segment = TCP(sport=1, dport=2, flags="FSRPAUECN", window=4321)
    row = decode(tmp_path, Ether() / IP(src=A, dst=B, ttl=9, tos=0xB8) / segment)
    assert (row["flags"], row["window"], row["ttl"], row["tos"]) == (0x1FF, 4321, 9, 0xB8)
    row = decode(tmp_path, Ether() / IPv6(src=A6, dst=B6, hlim=3, tc=0x2E) / segment)
    assert (row["ttl"], row["tos"]) == (3, 0x2E)


def test_scapy_options_in_one_packet(tmp_path):
    options = [("MSS", 1400), ("SAck", (5, 9)), (30, syn.dss(77, 3, 10)[2:])]
    row = decode(tmp_path, Ether() / IP(src=A, dst=B) / TCP(options=options) / Raw(b"x" * 33))
    assert row["options"] == HAS_MSS | HAS_SACK | HAS_MPTCP
    assert (row["dsn"], row["ssn"], row["map_bytes"], row["sack"]) == (77, 3, 10, [[5, 9]])
