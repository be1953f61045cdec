"""Tunnelled packets against scapy: headers, checksums, what is copied, what is refused; errors that are relayed or not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP
from scapy.packet import Packet, Raw

from agents.wire.errors import WireError
from agents.wire.mobileip import tunnel, tunnel_errors
from agents.wire.mobileip.tunnel_errors import TunnelError

MN, CN, HA, COA, ROUTER = "10.9.0.5", "10.64.0.2", "10.33.0.2", "10.1.0.77", "10.255.1.1"
INNER = bytes(IP(src=CN, dst=MN, tos=0xB8, flags="DF", ttl=17) / TCP(sport=5001, dport=40000) / Raw(b"x" * 100))


def checked(data: bytes) -> Packet:
    """The packet as scapy reads it, once its own checksums have been found to be those in it."""
    packet = IP(data)
    again = IP(data)
    for layer in (IP, ICMP):
        if layer in again:
            del again[layer].chksum
    assert bytes(again) == data
    return packet


@given(st.integers(0, 255), st.booleans(), st.binary(max_size=80), st.sampled_from((4, 47)), st.integers(0, 1 << 20))
def test_what_goes_in_comes_out(tos: int, whole: bool, payload: bytes, protocol: int, identification: int) -> None:
    inner = bytes(IP(src=CN, dst=MN, tos=tos, flags="DF" if whole else 0, ttl=9, proto=253) / Raw(payload))
    data = tunnel.encapsulate(inner, HA, COA, identification, protocol)
    assert len(data) == len(inner) + tunnel.OVERHEAD[protocol]
    outer = checked(data)
    assert (outer.src, outer.dst, outer.proto, outer.ttl, outer.tos) == (HA, COA, protocol, 64, tos)
    assert (outer.id, outer.flags.DF, outer.len) == (identification & 0xFFFF, whole, len(data))
    if protocol == 47:
        assert (outer[GRE].proto, outer[GRE].version, outer[GRE].chksum_present) == (0x0800, 0, 0)
    assert tunnel.decapsulate(data + b"padding") == (HA, COA, protocol, inner)


def test_udp_tunnel_data() -> None:
    payload = tunnel.tunnel_data(INNER)
    assert payload == b"\x04\x04\0\0" + INNER
    assert tunnel.from_tunnel_data(payload + b"junk") == INNER
    assert len(IP(src=HA, dst=COA) / UDP() / Raw(payload)) - len(INNER) == tunnel.OVERHEAD[17]
    for bad in (b"", payload[:3], b"\x03" + payload[1:], b"\x04\x2f" + payload[2:], payload[:-1], payload[:10]):
        with pytest.raises(WireError):
            tunnel.from_tunnel_data(bad)


@pytest.mark.parametrize(
    "packet",
    [
        b"", INNER[:19], b"\x60" + INNER[1:], b"\x44" + INNER[1:], b"\x4f" + INNER[1:3] + b"\x20" + INNER[4:], INNER[:-1],
    ],
)  # fmt: skip
def test_what_is_no_packet_is_not_encapsulated(packet: bytes) -> None:
    with pytest.raises(WireError):
        tunnel.encapsulate(packet, HA, COA, 1)


def test_a_packet_that_would_be_too_long_is_refused() -> None:
    longest = tunnel.ipv4_header(CN, MN, 253, 65535 - 20) + bytes(65535 - 20)
    with pytest.raises(WireError, match="65555"):
        tunnel.encapsulate(longest, HA, COA, 1)


@pytest.mark.parametrize(
    "outer",
    [
        IP(src=HA, dst=COA, proto=4, flags="MF") / Raw(INNER),
        IP(src=HA, dst=COA, proto=4, frag=3) / Raw(INNER),
        IP(src=HA, dst=COA, proto=4, frag=256) / Raw(INNER),
        IP(src=HA, dst=COA, proto=6) / Raw(INNER),
        IP(src=HA, dst=COA, proto=4) / Raw(INNER[:30]),
        IP(src=HA, dst=COA, proto=4) / Raw(b"\x60" + INNER[1:]),
        IP(src=HA, dst=COA, proto=47) / Raw(b"\0\0\x08"),
        IP(src=HA, dst=COA, proto=47) / GRE(proto=0x86DD) / Raw(INNER),
        IP(src=HA, dst=COA, proto=47) / GRE(proto=0x800, key_present=1, key=1) / Raw(INNER),
        IP(src=HA, dst=COA, proto=47) / GRE(proto=0x800, version=1) / Raw(INNER),
        IP(src=HA, dst=COA, proto=47) / GRE(proto=0x800, chksum_present=1, chksum=1) / Raw(INNER),
        IP(src=HA, dst=COA, proto=47) / Raw(b"\x80\0\x08\0\0"),
        IP(src=HA, dst=COA, proto=4, tos=3) / IP(src=CN, dst=MN) / UDP(),  # congestion on a path that knows no ECN
    ],
)
def test_what_a_tunnel_end_discards(outer: Packet) -> None:
    with pytest.raises(WireError):
        tunnel.decapsulate(bytes(outer))


def test_gre_with_a_checksum_is_read() -> None:
    data = bytes(IP(src=HA, dst=COA, proto=47) / GRE(proto=0x800, chksum_present=1) / Raw(INNER))
    assert tunnel.decapsulate(data).inner == INNER


def test_outer_options_are_passed_over() -> None:
    data = bytes(IP(src=HA, dst=COA, proto=4, options=b"\x01\x01\x01\x00") / Raw(INNER))
    assert tunnel.decapsulate(data).inner == INNER


@pytest.mark.parametrize("ecn", [1, 2, 3])
def test_congestion_on_the_way_reaches_the_inner_packet(ecn: int) -> None:
    inner = bytes(IP(src=CN, dst=MN, tos=0xB8 | ecn, proto=253) / Raw(b"abc"))
    out = tunnel.decapsulate(bytes(IP(src=HA, dst=COA, proto=4, tos=3) / Raw(inner))).inner
    assert checked(out).tos == 0xBB
    assert out[20:] == inner[20:]


@given(st.integers(2, 255), st.integers(0, 255), st.ip_addresses(v=4))
def test_forwarding_lowers_the_ttl(ttl: int, protocol: int, source: object) -> None:
    packet = bytes(IP(src=str(source), dst=MN, ttl=ttl, proto=protocol))
    assert checked(tunnel.forwarded(packet)).ttl == ttl - 1


@pytest.mark.parametrize("ttl", [0, 1])
def test_a_ttl_ends(ttl: int) -> None:
    with pytest.raises(WireError, match="TTL"):
        tunnel.forwarded(bytes(IP(src=CN, dst=MN, ttl=ttl)))


def outer_packet(protocol: int) -> bytes:
    if protocol == 17:
        return bytes(IP(src=HA, dst=COA, flags="DF") / UDP(sport=434, dport=40434) / Raw(tunnel.tunnel_data(INNER)))
    return tunnel.encapsulate(INNER, HA, COA, 7, protocol)


def icmp(kind: int, code: int, quoted: bytes, mtu: int = 0) -> bytes:
    return bytes(IP(src=ROUTER, dst=HA) / ICMP(type=kind, code=code, nexthopmtu=mtu) / Raw(quoted))


@pytest.mark.parametrize(("protocol", "overhead", "port"), [(4, 20, 0), (47, 24, 0), (17, 32, 40434)])
def test_too_big_is_relayed_with_what_fits_into_the_tunnel(protocol: int, overhead: int, port: int) -> None:
    """RFC 2003 section 4.1."""
    error = tunnel_errors.read_error(icmp(3, 4, outer_packet(protocol), 1400))
    assert error == TunnelError(3, 4, HA, COA, protocol, port, 1400 - overhead, INNER)
    out = tunnel_errors.relayed(error, HA)
    assert out is not None
    told = checked(out)
    assert (told.src, told.dst, told[ICMP].type, told[ICMP].code) == (HA, CN, 3, 4)
    assert told[ICMP].nexthopmtu == 1400 - overhead
    assert out[28:] == INNER


@pytest.mark.parametrize(
    ("kind", "code", "told"),
    [(3, 0, 0), (3, 1, 1), (3, 2, 1), (3, 3, None), (3, 5, None), (3, 13, None), (4, 0, None), (5, 1, None), (11, 0, 1),
     (11, 1, 1), (12, 0, None)],
)  # fmt: skip
def test_errors_are_relayed_as_rfc_2003_section_4_has_it(kind: int, code: int, told: int | None) -> None:
    out = tunnel_errors.relayed(tunnel_errors.read_error(icmp(kind, code, outer_packet(4))), HA)
    if told is None:
        assert out is None
    else:
        assert out is not None
        message = checked(out)[ICMP]
        assert (message.type, message.code, message.nexthopmtu) == (3, told, 0)


def test_a_router_that_names_no_mtu_or_a_tiny_one() -> None:
    assert tunnel_errors.read_error(icmp(3, 4, outer_packet(4), 0)).inner_mtu == 0
    assert tunnel_errors.read_error(icmp(3, 4, outer_packet(4), 70)).inner_mtu == 68


def test_a_short_quote_tells_the_mtu_only() -> None:
    """RFC 792: 64 bits behind the outer header; the inner source is not among them."""
    error = tunnel_errors.read_error(icmp(3, 4, outer_packet(4)[:28], 1400))
    assert error == TunnelError(3, 4, HA, COA, 4, 0, 1380, INNER[:8])
    assert tunnel_errors.relayed(error, HA) is None
    assert tunnel_errors.read_error(icmp(3, 4, outer_packet(17)[:28], 1400)).inner == b""


@pytest.mark.parametrize(
    "inner",
    [
        IP(src="0.0.0.0", dst=MN) / UDP(), IP(src="127.0.0.1", dst=MN) / UDP(), IP(src="224.0.0.5", dst=MN) / UDP(),
        IP(src=CN, dst="224.0.0.5") / UDP(), IP(src=CN, dst="255.255.255.255") / UDP(),
        IP(src=CN, dst=MN, frag=2) / Raw(b"x" * 8), IP(src=CN, dst=MN) / ICMP(type=3, code=1) / Raw(INNER),
        IP(src=CN, dst=MN) / Raw(b"x" * 7),
    ],
)  # fmt: skip
def test_nobody_is_told_about_such_packets(inner: Packet) -> None:
    """RFC 1122 section 3.2.2."""
    assert tunnel_errors.too_big(bytes(inner), 1400, HA) is None
    error = tunnel_errors.read_error(icmp(3, 4, tunnel.encapsulate(bytes(inner), HA, COA, 7), 1400))
    assert tunnel_errors.relayed(error, HA) is None


def test_too_big_quotes_no_more_than_576_octets_hold() -> None:
    packet = bytes(IP(src=CN, dst=MN, flags="DF") / UDP() / Raw(bytes(1400)))
    out = tunnel_errors.too_big(packet, 1380, HA)
    assert out is not None
    told = checked(out)
    assert (len(out), told.src, told.dst, told[ICMP].nexthopmtu) == (576, HA, CN, 1380)
    assert out[28:] == packet[:548]
    ping = bytes(IP(src=CN, dst=MN) / ICMP(type=8) / Raw(bytes(60)))
    assert tunnel_errors.too_big(ping, 68, HA) is not None
    with pytest.raises(WireError, match="MTU"):
        tunnel_errors.too_big(packet, 65536, HA)


@pytest.mark.parametrize(
    "packet",
    [
        bytes(IP(src=ROUTER, dst=HA) / ICMP(type=8) / Raw(outer_packet(4))),
        bytes(IP(src=ROUTER, dst=HA) / ICMP(type=3, chksum=1) / Raw(outer_packet(4))),
        bytes(IP(src=ROUTER, dst=HA) / UDP()),
        icmp(3, 4, b""),
        icmp(3, 4, outer_packet(4)[:19]),
        icmp(3, 4, b"\x60" + outer_packet(4)[1:]),
        icmp(3, 3, bytes(IP(src=HA, dst=COA) / UDP(sport=53, dport=5353) / Raw(b"dns"))),
        icmp(3, 3, bytes(IP(src=HA, dst=COA) / UDP(sport=434, dport=434) / Raw(b"\x03"))),  # a registration reply
        icmp(3, 4, outer_packet(47)[:22]),
        icmp(3, 4, outer_packet(17)[:24]),
    ],
)
def test_what_is_no_error_about_a_tunnel(packet: bytes) -> None:
    with pytest.raises(WireError):
        tunnel_errors.read_error(packet)


@given(st.binary(max_size=120), st.integers(0, 40), st.binary(max_size=4))
def test_damaged_packets_raise_nothing_else(tail: bytes, at: int, damage: bytes) -> None:
    for base in (outer_packet(4), outer_packet(47), icmp(3, 4, outer_packet(17), 1400), INNER):
        damaged = (base[:at] + damage + base[at + len(damage) :])[:150] + tail
        for function in (
            tunnel.decapsulate,
            tunnel.forwarded,
            tunnel.from_tunnel_data,
            lambda data: tunnel_errors.relayed(tunnel_errors.read_error(data), HA),
            lambda data: tunnel_errors.too_big(data, 1400, HA),
        ):
            try:
                function(damaged)
            except WireError:
                continue
