"""Outer headers and what is inside, against scapy."""

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import GRE
from scapy.packet import Raw

from agents.kernel.mobileip.tunnels.headers import gre_header_length, inner_of_raw, outer_header

CARE_OF, AGENT = "10.1.0.100", "10.33.0.2"
INNER = bytes(IP(src="10.65.0.2", dst="10.33.0.100", flags="DF", tos=0xB8) / TCP(dport=80) / Raw(b"x" * 100))
TUNNEL = {"src": AGENT, "dst": CARE_OF}


def test_outer_header() -> None:
    read = IP(outer_header(AGENT, CARE_OF, 4, 0xB8, True))
    assert (read.src, read.dst, read.proto, read.tos, str(read.flags), read.ttl) == (AGENT, CARE_OF, 4, 0xB8, "DF", 64)
    assert str(IP(outer_header(AGENT, CARE_OF, 4, 0, False)).flags) == ""


def test_what_is_inside() -> None:
    assert inner_of_raw(bytes(IP(**TUNNEL) / IP(INNER)), 4) == INNER
    assert inner_of_raw(bytes(IP(**TUNNEL) / GRE() / IP(INNER)), 47) == INNER
    assert inner_of_raw(bytes(IP(**TUNNEL) / GRE(key_present=1, seqnum_present=1, chksum_present=1) / IP(INNER)), 47) == INNER
    assert inner_of_raw(bytes(IP(**TUNNEL) / GRE(proto=0x86DD) / Raw(b"x" * 40)), 47) is None
    assert inner_of_raw(bytes(IP(**TUNNEL, proto=4) / Raw(INNER[:-1])), 4) is None, "cut off"
    assert gre_header_length(b"\x40\0\x08\0") is None, "routing present"


def test_rfc_6040_section_4_2_congestion_on_the_way_reaches_the_receiver() -> None:
    able = bytes(IP(src="10.65.0.2", dst="10.33.0.100", tos=2) / UDP(dport=9))
    for outer, protocol in ((IP(**TUNNEL, tos=3) / IP(able), 4), (IP(**TUNNEL, tos=3) / GRE() / IP(able), 47)):
        inner = inner_of_raw(bytes(outer), protocol)
        assert inner is not None
        assert inner[1] & 3 == 3
    assert inner_of_raw(bytes(IP(**TUNNEL, tos=1) / IP(able)), 4) == able


@given(st.binary(min_size=20, max_size=120))
def test_nothing_that_is_read_raises(data: bytes) -> None:
    inner_of_raw(data, 4)
    inner_of_raw(data, 47)
