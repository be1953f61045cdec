"""Messages of Mobile IPv4, compared with RFC examples and with what tshark decodes."""

from __future__ import annotations

import struct
from pathlib import Path

import mobileip_scene as scene
import pytest
from mobileip_scene import COA1, COA2, FA, HA, MN, authenticator, extension, long_extension, multipath, rrp, rrq, udp
from scapy.layers.inet import ICMP, IP
from scapy.packet import Raw

from analysis.mobileip import discovery, finding, mobileip4, read_mobility
from analysis.mobileip.codes import BINDING_STATUS, NON_SKIPPABLE, REPLY_CODES, UDP_KINDS

NAI = extension(131, b"mn@example.net")
AAA = long_extension(36, 1, struct.pack("!I", 77) + b"\xaa" * 16)
UDP_TUNNEL = extension(144, bytes([0, 0, 0x80, 47, 0, 0]))
UDP_GRANTED = extension(44, bytes([0, 0, 0, 0, 0, 110]))
REVOCATION = struct.pack("!BBH4s4s4sI", 7, 0, 0xC000, scene.octets(MN), scene.octets(HA), scene.octets(COA1), 99)
REVOCATION_ACK = struct.pack("!BBH4sI", 15, 0, 0x8000, scene.octets(MN), 99)
FLOW_BINDING = bytes.fromhex("9a02000c 01 02 0102 01 00880000 01bb 06")


def advertisement(flags: int = 0x9400, care_of: tuple[str, ...] = (FA,), more: bytes = b"") -> bytes:
    """ICMP router advertisement with one router and extension 16."""
    agent = struct.pack("!HHH", 300, 600, flags) + b"".join(map(scene.octets, care_of))
    fixed = struct.pack("!BBHBBH", 9, 0, 0, 1, 2, 1800) + scene.octets(FA) + b"\0\0\0\0"
    return fixed + extension(16, agent) + more


def test_fields_are_those_that_tshark_decodes(tmp_path: Path) -> None:
    bodies = [
        rrq(),
        rrq(COA2, 0xE1E2E3E4E5E6E7E8, 65535, 0xFE, NAI + UDP_TUNNEL + extension(130, b"") + AAA + authenticator(33, 5)),
        rrq(lifetime_s=0, flags=0x01, more=extension(132, b"c" * 8) + authenticator(34, 9)),
        rrp(),
        rrp(133, 0xAAAABBBBCCCCDDDD, 0, UDP_GRANTED + extension(139, bytes([2]) + scene.octets(FA))),
        rrp(66, more=extension(145, bytes([2]) + b"try later") + extension(137, bytes(6))),
        REVOCATION + authenticator(34),
        REVOCATION_ACK + authenticator(34),
    ]
    packets = [(float(n), udp(COA1, HA, body, 434 if n % 2 else 5000)) for n, body in enumerate(bodies)]
    path = scene.write(tmp_path / "a.pcap", packets)
    table = read_mobility(scene.table_of(tmp_path, packets)).messages
    oracle = scene.tshark(path)
    assert len(table) == len(oracle) == len(bodies)
    for ours, theirs in zip(table.itertuples(), oracle, strict=True):
        assert ours.problem == ""
        assert ours.type == scene.number(theirs, "mip.type")
        assert ours.code == scene.number(theirs, "mip.code")
        assert ours.lifetime_s == scene.number(theirs, "mip.life")
        assert [ours.home_address] == scene.shown(theirs, "mip.homeaddr")
        assert [ours.home_agent or None] == (scene.shown(theirs, "mip.haaddr") or scene.shown(theirs, "mip.rev.hda") or [None])
        assert [ours.care_of_address or None] == (
            scene.shown(theirs, "mip.coa") or scene.shown(theirs, "mip.rev.fda") or [None]
        )
        assert ours.identification == max(scene.number(theirs, "mip.ident"), scene.number(theirs, "mip.revid"))
        assert [e.split("/")[0] for e in ours.extensions.split()] == scene.shown(theirs, "mip.ext.type")
        spis = [str(int(value, 16)) for _, value in theirs.get("mip.auth.spi", [])]
        assert [part.split()[-1] for part in ours.authentication.split(", ") if part] == spis
        assert [ours.nai or None] == (scene.shown(theirs, "mip.nai") or [None])
        names = {"s": "S", "b": "B", "d": "D", "m": "M", "g": "G", "v": "r", "t": "T", "x": "x"}
        if ours.kind == "RRQ":
            flags = "".join(name for field, name in names.items() if scene.shown(theirs, f"mip.{field}") == ["1"])
            assert ours.flags.replace(" ", "") == flags
    assert table["flags"].tolist()[6:] == ["A I", "I"]


def test_every_code_that_tshark_knows_has_a_text() -> None:
    known = scene.tshark_values("mip.code"), scene.tshark_values("mip6.ba.status")
    assert known[0].keys() - REPLY_CODES.keys() == {127, 192}  # for experiments
    assert known[1].keys() - BINDING_STATUS.keys() == {176, 177, 178}  # later than what is supported
    for number, name in scene.tshark_values("mip.ext.type").items():
        assert (number in NON_SKIPPABLE) == (number < 128), name
    assert scene.tshark_values("mip.type").keys() - {255} <= UDP_KINDS.keys()


def test_codes_tell_who_refused() -> None:
    assert REPLY_CODES[152] == "multiple tunnel registration not allowed"  # RFC 7629: unknown to tshark 4.0
    assert [mobileip4.decode(rrp(code)).code_text for code in (0, 64, 128, 200)] == [
        "registration accepted",
        "foreign agent: reason unspecified",
        "home agent: reason unspecified",
        "home agent: code 200",
    ]


def test_flow_binding_example_of_rfc_7629() -> None:
    message = mobileip4.decode(rrq(more=multipath(2, 0x40, label=9) + FLOW_BINDING))
    assert (message.bids, message.bid_flags, message.label, message.access_technology) == ((2,), "O", 9, "802.11")
    assert message.extensions == ("154/1", "154/2", "32")
    (rule,) = message.flow_bindings
    assert (rule.action, rule.bids, rule.selector) == ("forward", (1, 2), "dport 443 protocol TCP")
    assert "BID 2 O" in message.text
    assert "forward dport 443 protocol TCP to BID 1 2" in message.text


def test_flow_bindings_are_a_table_with_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [rrq(ident=1, more=multipath(2) + FLOW_BINDING), rrp(ident=1, more=FLOW_BINDING), rrq(ident=2, more=FLOW_BINDING)]
    packets = [(float(n), udp(COA1, HA, body)) for n, body in enumerate(bodies)]
    table = scene.table_of(tmp_path, packets)
    rules = read_mobility(table).flow_bindings
    assert rules[["row", "kind", "home_address"]].values.tolist() == [[0, "RRQ", MN], [1, "RRP", MN], [2, "RRQ", MN]]
    assert (rules["bids"][0], rules["selector"][0], rules["flow"][0]) == ((1, 2), "dport 443 protocol TCP", -1)
    monkeypatch.setattr(finding, "MAX_FLOW_BINDINGS", 2)
    assert read_mobility(table).flow_bindings["row"].tolist() == [0, 1]


def test_traffic_selectors_of_rfc_6088() -> None:
    flags = struct.pack("!I", 0b11110000110000_00 << 16)
    addresses = b"".join(map(scene.octets, ("10.0.0.0", "10.0.0.255", "10.5.0.2", "10.5.0.9")))
    body = bytes([1, 1, 1, 1]) + flags + addresses + struct.pack("!HH", 80, 90)
    message = mobileip4.decode(rrq(more=long_extension(154, 2, body)))
    assert message.flow_bindings[0].selector == "src 10.0.0.0-10.0.0.255 dst 10.5.0.2-10.5.0.9 dport 80-90"
    six = bytes([0, 1, 1, 2]) + struct.pack("!I", 0x80000000) + bytes(15) + b"\1"
    message = mobileip4.decode(rrq(more=long_extension(154, 2, six)))
    assert (message.flow_bindings[0].action, message.flow_bindings[0].selector) == ("drop", "src ::1")


@pytest.mark.parametrize(
    ("more", "note"),
    [
        (multipath(1) + multipath(2), "a second multipath extension"),
        (multipath(1, 0xC0), "flags B and O together"),
        (multipath(255), "BID 255 is reserved"),
        (authenticator() + multipath(1), "behind the MN-HA authenticator has no effect"),
        (long_extension(154, 2, bytes([0, 2, 1, 2, 1]) + bytes(4)), "2 BIDs in a drop rule"),
        (long_extension(154, 2, bytes([1, 0, 1]) + bytes(4)), "0 BIDs, 1-8"),
        (extension(60, b"?"), "extension 60 is unknown and not skippable"),
        (UDP_TUNNEL, "UDP tunnel requested for GRE F"),
    ],
)
def test_what_a_strict_receiver_objects_to_is_noted(more: bytes, note: str) -> None:
    message = mobileip4.decode(rrq(more=more))
    assert message.kind == "RRQ"
    assert note in message.note


def test_unknown_skippable_extension_is_only_listed() -> None:
    message = mobileip4.decode(rrq(more=extension(200, b"whatever")))
    assert (message.extensions, message.note) == (("200", "32"), "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (rrq()[:23], "RRQ: fixed part has 23 bytes, 24 are needed"),
        (rrp()[:19], "RRP: fixed part has 19 bytes"),
        (rrq()[:-1], "RRQ: extension 32 claims 20 bytes, 19 are left"),
        (rrq()[:24] + b"\x83", "header of extension 131 has 1 bytes"),
        (rrq()[:24] + b"\x24\x01\x00", "header of extension 36 has 3 bytes"),
        (rrq()[:24] + long_extension(154, 1, b"abc"), "extension 154/1 has 3 bytes, not 4"),
        (rrq()[:24] + b"\x9a\x02\xff\xff" + bytes(40), "extension 154/2 claims 65535 bytes, 40 are left"),
        (rrq()[:24] + long_extension(154, 2, bytes([1, 9, 1])), "extension 154/2 with 9 BIDs"),
        (rrq()[:24] + long_extension(154, 2, bytes([1, 1, 1, 1]) + b"\x40\0\0\0" + bytes(4)), "end of src without a start"),
        (rrq()[:24] + long_extension(154, 2, bytes([1, 1, 1, 1]) + b"\x80\0\0\0" + bytes(3)), "src ends at 8"),
        (rrq()[:24] + long_extension(154, 2, bytes([1, 1, 1, 1]) + b"\x80\0\0\0" + bytes(5)), "flags tell of 8"),
        (rrq()[:24] + extension(32, b"abc"), "extension 32 has 3 bytes, 4 are needed"),
        (rrq()[:24] + extension(200, b"") * 65, "more than 64 extensions"),
        (REVOCATION[:19], "revocation: fixed part"),
    ],
)
def test_lying_lengths_make_a_malformed_message(data: bytes, reason: str) -> None:
    message = mobileip4.decode(data)
    assert message.kind == "malformed"
    assert reason in message.problem
    assert message.text.startswith("malformed: ")


def test_what_the_capture_cut_off_is_not_held_against_the_message() -> None:
    whole = rrq(more=NAI)
    message = mobileip4.decode(whole[:30], len(whole) - 30)
    assert (message.kind, message.care_of_address) == ("RRQ", COA1)
    assert message.note == f"the capture holds 30 of {len(whole)} bytes"
    assert mobileip4.decode(whole[:20], len(whole) - 20).kind == "malformed"


def test_agent_advertisements_are_those_that_tshark_decodes(tmp_path: Path) -> None:
    more = extension(19, bytes([24])) + extension(24, b"challeng") + b"\0"
    bodies = [advertisement(), advertisement(0x8DF0, (FA, COA1), more), advertisement(0x2000, ())]
    packets = [(float(n), IP(src=FA, dst="224.0.0.1", ttl=1, proto=1) / Raw(b)) for n, b in enumerate(bodies)]
    oracle = scene.tshark(scene.write(tmp_path / "a.pcap", packets))
    table = read_mobility(scene.table_of(tmp_path, packets)).messages
    letters = {"r": "R", "b": "B", "h": "H", "f": "F", "m": "M", "g": "G", "v": "r", "rt": "T", "u": "U", "x": "X"}
    for ours, theirs in zip(table.itertuples(), oracle, strict=True):
        assert ours.kind == "agent advertisement"
        assert ours.sequence == scene.number(theirs, "icmp.mip.seq")
        assert ours.lifetime_s == scene.number(theirs, "icmp.mip.life")
        assert ours.care_of_address == (scene.shown(theirs, "icmp.mip.coa") or [""])[0]
        flags = "".join(name for field, name in letters.items() if scene.shown(theirs, f"icmp.mip.{field}") == ["1"])
        assert ours.flags.replace(" ", "").removesuffix("I") == flags  # RFC 4857: unknown to tshark 4.0
    assert table["flags"][1] == "R M G T U X I"
    assert table["extensions"].tolist() == ["16", "16 19 24", "16"]
    assert table["note"][1] == f"more care-of addresses: {COA1}; challenge of 8 bytes"


def test_router_discovery_without_mobility_is_told_apart(tmp_path: Path) -> None:
    plain = advertisement()[:16]
    packets = [
        (0.0, IP(src=FA, dst="224.0.0.1") / Raw(plain)),
        (1.0, IP(src=MN, dst="224.0.0.2", ttl=64) / ICMP(type=10)),
        (2.0, IP(src=MN, dst="224.0.0.11", ttl=1) / ICMP(type=10)),
    ]
    packets[0][1].proto = 1
    found = read_mobility(scene.table_of(tmp_path, packets[:2]))
    assert found.messages["kind"].tolist() == ["router advertisement", "router solicitation"]
    assert not found.present
    found = read_mobility(scene.table_of(tmp_path, packets))
    assert found.messages["kind"].tolist()[2] == "agent solicitation"
    assert found.present


@pytest.mark.parametrize("cut", [1, 7, 15, 17, 20])
def test_cut_advertisements_are_malformed(cut: int) -> None:
    assert discovery.decode_icmp(advertisement()[:cut], 1).kind == "malformed"


def test_extension_16_must_hold_whole_addresses() -> None:
    message = discovery.decode_icmp(advertisement()[:16] + extension(16, bytes(9)), 1)
    assert (message.kind, message.problem) == ("malformed", "agent advertisement: extension 16 has 9 bytes, not 6 + 4N")


def test_tunnel_data_is_no_signalling_but_keepalives_are(tmp_path: Path) -> None:
    inside = IP(src=MN, dst="10.5.0.2") / ICMP()
    ping = IP(src=MN, dst=HA) / ICMP()
    pong = IP(src=HA, dst=MN) / ICMP(type=0)
    packets = [
        (0.0, scene.in_udp(COA1, HA, inside)),
        (1.0, scene.in_udp(COA1, HA, ping)),
        (2.0, scene.in_udp(HA, COA1, pong)),
        (3.0, udp(COA1, HA, b"\x04\x37\0\0" + bytes(4))),  # cut minimal encapsulation: the reader leaves it packed
    ]
    table = read_mobility(scene.table_of(tmp_path, packets)).messages
    assert table["kind"].tolist() == ["tunnel keepalive", "tunnel keepalive", "tunnel data"]
    assert table["home_address"].tolist()[:2] == [MN, MN]
    assert table["row"].tolist() == [1, 2, 3]
    assert table["encapsulation"][2] == "minimal"
