"""Outer headers, GRE, and ICMP errors out of tunnels, against scapy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import GRE
from scapy.packet import Raw

from agents.kernel.mobileip.tunnels import errors
from agents.kernel.mobileip.tunnels.headers import gre_header_length, inner_of_raw, outer_header
from agents.wire.checksum import ones_sum

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


def icmp(kind: int, code: int, quoted: bytes, mtu: int = 0) -> bytes:
    return bytes(IP(src="10.9.9.9", dst=AGENT) / ICMP(type=kind, code=code, nexthopmtu=mtu) / Raw(quoted))


@pytest.mark.parametrize(
    ("outer", "protocol", "port"),
    [
        (IP(**TUNNEL) / IP(INNER), 4, 0),
        (IP(**TUNNEL) / GRE() / IP(INNER), 47, 0),
        (IP(**TUNNEL) / UDP(sport=434, dport=5000) / Raw(b"\x04\x04\0\0" + INNER), 17, 5000),
    ],
)
def test_rfc_2003_section_4_too_big_is_relayed_with_the_tunnels_mtu(outer: IP, protocol: int, port: int) -> None:
    error = errors.parse(icmp(3, 4, bytes(outer), 1300))
    assert error is not None
    assert (error.local, error.remote, error.protocol, error.remote_port, error.mtu) == (AGENT, CARE_OF, protocol, port, 1300)
    assert error.inner == INNER
    told = errors.relayed(error, 1280)
    assert told is not None
    assert told[0] == "10.65.0.2"
    read = ICMP(told[1])
    assert (read.type, read.code, read.nexthopmtu) == (3, 4, 1280)
    assert told[1][8:] == INNER[:548]
    assert ones_sum(told[1]) == 0, "checksum"


@pytest.mark.parametrize(("kind", "code"), [(3, 0), (3, 1), (3, 2), (11, 0)])
def test_rfc_2003_section_4_other_errors_become_host_unreachable(kind: int, code: int) -> None:
    error = errors.parse(icmp(kind, code, bytes(IP(**TUNNEL) / IP(INNER))))
    told = errors.relayed(error, 1480) if error else None
    assert told is not None
    assert (ICMP(told[1]).type, ICMP(told[1]).code) == (3, 1)


def test_what_nobody_is_told() -> None:
    about_icmp = bytes(IP(src="10.65.0.2", dst="10.33.0.100") / ICMP(type=3, code=1) / Raw(b"x" * 40))
    without_df = bytes(IP(src="10.65.0.2", dst="10.33.0.100") / UDP() / Raw(b"x" * 40))
    for kind, code, inner in ((3, 1, about_icmp), (3, 4, without_df), (3, 3, INNER), (12, 0, INNER), (3, 1, INNER[:20])):
        error = errors.parse(icmp(kind, code, bytes(IP(**TUNNEL, proto=4) / Raw(inner)), 1300))
        assert error is not None
        assert errors.relayed(error, 1280) is None
    assert errors.parse(icmp(3, 1, bytes(IP(**TUNNEL) / TCP()))) is None, "no tunnel"
    assert errors.parse(icmp(8, 0, bytes(IP(**TUNNEL) / IP(INNER)))) is None, "no error"


@given(st.binary(max_size=120))
def test_nothing_that_is_read_raises(data: bytes) -> None:
    if len(data) >= 20:
        inner_of_raw(data, 4)
        inner_of_raw(data, 47)
    error = errors.parse(data)
    if error is not None:
        errors.relayed(error, 1280)


@given(st.binary(max_size=80))
def test_errors_that_quote_anything(quoted: bytes) -> None:
    error = errors.parse(icmp(3, 4, quoted, 1300))
    if error is not None:
        errors.relayed(error, 1280)
