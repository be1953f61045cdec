"""Messages of Mobile IPv6, compared with what tshark decodes of packets that scapy builds."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

import mobileip_scene as scene
import pytest
from mobileip_scene import CN6, COA6, COB6, HA6, MN6, from_mobile, to_mobile
from scapy.layers.inet6 import (
    MIP6MH_BA,
    MIP6MH_BE,
    MIP6MH_BRR,
    MIP6MH_BU,
    ICMPv6HAADReply,
    ICMPv6HAADRequest,
    ICMPv6MPAdv,
    ICMPv6MPSol,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptAdvInterval,
    ICMPv6NDOptHAInfo,
    ICMPv6NDOptPrefixInfo,
    IPv6,
    MIP6MH_CoT,
    MIP6MH_CoTI,
    MIP6MH_HoT,
    MIP6MH_HoTI,
    MIP6OptAltCoA,
    MIP6OptBindingAuthData,
    MIP6OptBRAdvice,
    MIP6OptMNID,
    MIP6OptMsgAuth,
    MIP6OptNonceIndices,
    MIP6OptReplayProtection,
)
from scapy.packet import Packet, Raw

from analysis.mobileip import discovery, mobileip6, read_mobility

ENDS = mobileip6.Ends(MN6, HA6, COA6)


def header(kind: int, body: bytes, proto: int = 59) -> bytes:
    """A Mobility Header padded with a PadN option, checksum 0."""
    size = 6 + len(body)
    spare = -size % 8
    pad = b"" if not spare else b"\0" if spare == 1 else bytes([1, spare - 2]) + bytes(spare - 2)
    return struct.pack("!BBBBH", proto, (size + spare) // 8 - 1, kind, 0, 0) + body + pad


def update(options: bytes = b"", flags: int = 0xC000, sequence: int = 9, units: int = 15) -> bytes:
    return header(5, struct.pack("!HHH", sequence, flags, units) + options)


def bid(number: int, address: str = "", status: int = 0) -> bytes:
    packed = ipaddress.ip_address(address).packed if address else b""
    return struct.pack("!BBHBB", 35, 4 + len(packed), number, status, 0) + packed


def in_header(data: bytes, src: str = COA6, dst: str = HA6) -> Packet:
    return IPv6(src=src, dst=dst, nh=135) / Raw(data)


def test_fields_are_those_that_tshark_decodes(tmp_path: Path) -> None:
    cookie, token = bytes(range(8)), bytes(range(8, 16))
    nonces = MIP6OptNonceIndices(olen=4, hni=4, coni=5)  # scapy 2.8 sets 16 by itself
    messages = [
        from_mobile(MIP6MH_BU(seq=65535, flags="AHLK", mhtime=21, options=[MIP6OptAltCoA(acoa=COB6)])),
        from_mobile(MIP6MH_BU(seq=1, flags="A", mhtime=105, options=[nonces, MIP6OptBindingAuthData(olen=12)]), dst=CN6),
        from_mobile(MIP6MH_BU(seq=2, flags="MRP", options=[MIP6OptMNID(id=b"mn@example.net"), MIP6OptMsgAuth(mspi=300)])),
        to_mobile(MIP6MH_BA(status=135, seq=77, mhtime=3, options=[MIP6OptBRAdvice(rinter=9)])),
        to_mobile(MIP6MH_BA(status=0, seq=78, flags="K", mhtime=3, options=[MIP6OptReplayProtection(timestamp=1 << 40)])),
        IPv6(src=COA6, dst=HA6) / IPv6(src=MN6, dst=CN6) / MIP6MH_HoTI(cookie=cookie),
        IPv6(src=COA6, dst=CN6) / MIP6MH_CoTI(cookie=token),
        IPv6(src=CN6, dst=MN6) / MIP6MH_HoT(cookie=cookie, token=token, index=1234),
        IPv6(src=CN6, dst=COA6) / MIP6MH_CoT(cookie=token, token=cookie, index=65535),
        IPv6(src=HA6, dst=MN6) / MIP6MH_BRR(),
        IPv6(src=CN6, dst=COA6) / MIP6MH_BE(status=1, ha=MN6),
        in_header(update(bid(3) + bid(4, COB6) + bid(5, "10.1.0.77"))),
        in_header(header(16, struct.pack("!BBHH", 1, 1, 500, 0x8000))),
    ]
    packets = [(float(n), message) for n, message in enumerate(messages)]
    oracle = scene.tshark(scene.write(tmp_path / "a.pcap", packets))
    table = read_mobility(scene.table_of(tmp_path, packets)).messages
    assert len(table) == len(oracle)
    for ours, theirs in zip(table.itertuples(), oracle, strict=True):
        assert ours.problem == ""
        assert ours.type == scene.number(theirs, "mip6.mhtype")
        known = {"mip6.bu.seqnr", "mip6.ba.seqnr", "mip6.bri_seqnr"} & theirs.keys()
        assert ours.sequence == (scene.number(theirs, known.pop()) if known else -1)
        lifetime = max(scene.number(theirs, "mip6.bu.lifetime"), scene.number(theirs, "mip6.ba.lifetime"))
        assert ours.lifetime_s == (lifetime * 4 if lifetime >= 0 else -1)
        statuses = [scene.number(theirs, f"mip6.{name}") for name in ("ba.status", "be.status", "bri_r.trigger")]
        assert ours.code == max(statuses)
        cookies = [value for name in theirs if name.endswith(".cookie") for _, value in theirs[name]]
        assert [f"{ours.cookie:016x}"] == (cookies or ["0" * 16])
        tokens = [value for name in theirs if name.endswith(".token") for _, value in theirs[name]]
        assert [f"{ours.token:016x}"] == (tokens or ["0" * 16])
        assert ours.home_nonce == max(scene.number(theirs, n) for n in ("mip6.hot.nindex", "mip6.ni.hni"))
        cot = scene.number(theirs, "mip6.hot.nindex") if ours.kind == "CoT" else -1
        assert ours.care_of_nonce == max(cot, *(scene.number(theirs, n) for n in ("mip6.cot.nindex", "mip6.ni.cni")))
        found = [int(value[:2], 16) for name in theirs if name.startswith("mip6.options.") for _, value in theirs[name]]
        assert sorted(map(int, ours.extensions.split())) == sorted(n for n in found if n > 1)
        if ours.kind == "BU":
            names = [f"mip6.{'nemo.' if letter == 'r' else ''}bu.{letter}_flag" for letter in "ahlkmrpftb"]
            flags = [name[-6].upper() for name in names if scene.shown(theirs, name) == ["1"]]
            assert ours.flags.split() == flags
        assert list(ours.bids) == [int(value, 16) for _, value in theirs.get("mip6.bi.bid", [])]
        if "mip6.acoa.acoa" in theirs:
            assert [ours.care_of_address] == scene.shown(theirs, "mip6.acoa.acoa")
        if "mip6.mnid.identifier" in theirs:
            assert [ours.nai] == scene.shown(theirs, "mip6.mnid.identifier")
        if "mip6.auth.mobility_spi" in theirs:
            assert ours.authentication == f"MN-HA SPI {scene.number(theirs, 'mip6.auth.mobility_spi')}"
    kinds = ["BU", "BU", "BU", "BA", "BA", "HoTI", "CoTI", "HoT", "CoT", "BRR", "BE", "BU", "BRI"]
    assert table["kind"].tolist() == kinds
    assert table["flags"].tolist()[:5] == ["A H L K", "A", "M R P", "K", "K"]
    assert table["home_address"].tolist()[:2] == [MN6, MN6]
    assert table["care_of_address"].tolist()[:2] == [COB6, COA6]
    assert table["home_agent"].tolist()[:2] == [HA6, ""]
    assert table["identification"][4] == 1 << 40


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x3b\0\5", "Mobility Header has 3 bytes, 6 are needed"),
        (header(5, bytes(6), proto=6), "BU: payload proto 6, not 59"),
        (b"\x3b\x09" + update()[2:], "header length says 80 bytes"),
        (header(3, b""), "HoT: fixed part has 8 bytes, 24 are needed"),
        (update(b"\x23\x40\0\1"), "option 35 claims 64 bytes"),
        (update(b"\x23\x02\0\1"), "option 35 has 2 bytes, 4 are needed"),
        (update(b"\x23\x06\0\1\0\0\0\0"), "option 35 has 6 bytes, not 4, 8 or 20"),
        (update(b"\x03\x08" + bytes(8)), "option 3 has 8 bytes, 16 are needed"),
        (update(b"\x01\x70"), "option 1 claims 112 bytes"),
        (update(bytes([200, 0]) * 65), "more than 64 options"),
        (header(16, struct.pack("!BBHH", 9, 0, 1, 0)), "binding revocation type 9"),
        (update(b"\x2d\x04" + bytes(4)), "flow identification option has 4 bytes"),
        (update(b"\x2d\x0b" + bytes(6) + b"\x02\x03\0\1\2"), "BID reference sub-option has 3 bytes"),
        (update(b"\x2d\x08" + bytes(6) + b"\x03\x50"), "ends behind it"),
    ],
)
def test_lying_lengths_make_a_malformed_message(data: bytes, reason: str) -> None:
    message = mobileip6.decode(data, ENDS)
    assert message.kind == "malformed"
    assert reason in message.problem


def test_what_the_capture_cut_off_is_not_held_against_the_message() -> None:
    whole = update(bid(1, COB6))
    message = mobileip6.decode(whole[:14], ENDS, len(whole) - 14)
    assert (message.kind, message.sequence, message.bids) == ("BU", 9, ())
    assert "the capture holds 14 of 40 bytes" in message.note


def test_checksums_are_verified(tmp_path: Path) -> None:
    good = [from_mobile(MIP6MH_BU(seq=1)), to_mobile(MIP6MH_BA(seq=1)), IPv6(src=COA6, dst=CN6) / MIP6MH_CoTI()]
    bad = [Raw(bytes(packet)[:-1] + b"\x77") for packet in good]
    table = read_mobility(scene.table_of(tmp_path, [(float(n), packet) for n, packet in enumerate(good + bad)])).messages
    assert table["note"].tolist() == [""] * 3 + ["wrong checksum: receivers discard the message"] * 3


def test_flow_identification_option_of_rfc_6089() -> None:
    selector = struct.pack("!I", 1 << (31 - 10)) + struct.pack("!H", 443)  # K: start of the destination port
    body = (
        struct.pack("!HHBB", 7, 10, 0, 129) + b"\0" + bytes([2, 4, 0, 1, 0, 2]) + bytes([3, 2 + len(selector), 2, 0]) + selector
    )
    option = bytes([45, len(body)]) + body
    (rule,) = mobileip6.decode(update(option), ENDS).flow_bindings
    assert (rule.flow, rule.priority, rule.bids, rule.selector, rule.status) == (7, 10, (1, 2), "dport 443", -1)
    answer = header(6, struct.pack("!BBHH", 0, 0, 9, 15) + option)
    assert mobileip6.decode(answer, ENDS).flow_bindings[0].status == 129


def test_proxy_registration_is_about_the_prefix() -> None:
    prefix = bytes([22, 18, 0, 64]) + ipaddress.IPv6Address("2001:db8:77::").packed
    four = bytes([29, 6, 128, 0, 10, 9, 0, 5])
    message = mobileip6.decode(update(prefix + four, 0x8200), mobileip6.Ends(COA6, HA6))
    assert (message.home_address, message.care_of_address, message.home_agent) == ("2001:db8:77::/64", COA6, HA6)
    assert "IPv4 home address 10.9.0.5" in message.note


def test_discovery_messages(tmp_path: Path) -> None:
    ra = ICMPv6ND_RA(H=1, M=1, routerlifetime=30) / ICMPv6NDOptPrefixInfo(prefix=HA6, R=1) / ICMPv6NDOptAdvInterval(advint=70)
    bodies = [
        ICMPv6ND_RS(),
        ra / ICMPv6NDOptHAInfo(pref=3, lifetime=40),
        ICMPv6HAADRequest(id=9),
        ICMPv6HAADReply(id=9, addresses=[HA6, CN6]),
        ICMPv6MPSol(id=3),
        ICMPv6MPAdv(id=3),
    ]
    packets = [(float(n), IPv6(src=HA6, dst=COA6) / body) for n, body in enumerate(bodies)]
    found = read_mobility(scene.table_of(tmp_path, packets))
    table = found.messages
    assert table["kind"].tolist() == [
        "router solicitation", "router advertisement", "HA discovery request", "HA discovery reply", "prefix solicitation",
        "prefix advertisement",
    ]  # fmt: skip
    assert table["identification"].tolist() == [0, 0, 9, 9, 3, 3]
    assert table["flags"][1] == "M H"
    assert table["note"][1] == f"router address {HA6}/64; advertisement interval 70 ms; home agent preference 3 for 40 s"
    assert table["home_agent"][3] == HA6
    assert f"2 home agents: {HA6} {CN6}" in table["note"][3]
    assert found.present


def test_neighbour_discovery_options_of_length_zero_end_the_message() -> None:
    message = discovery.decode_icmpv6(bytes(ICMPv6ND_RA()) + b"\x03\0" + bytes(30))
    assert (message.kind, message.problem) == ("malformed", "router advertisement: option 3 claims 0 bytes, 32 are left")
