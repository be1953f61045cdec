"""Tunnels, traffic, return routability and handovers."""

from __future__ import annotations

import math
from pathlib import Path

import mobileip_scene as scene
import pytest
from mobileip_scene import (
    CN,
    CN6,
    COA1,
    COA2,
    COA6,
    COB6,
    HA,
    HA6,
    MN,
    MN6,
    at_ns,
    from_mobile,
    in_tunnel,
    in_udp,
    multipath,
    rrp,
    rrq,
    to_mobile,
    udp,
)
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    MIP6MH_BA,
    MIP6MH_BU,
    IPv6,
    MIP6MH_CoT,
    MIP6MH_CoTI,
    MIP6MH_HoT,
    MIP6MH_HoTI,
    MIP6OptNonceIndices,
)
from scapy.layers.l2 import GRE
from scapy.packet import Packet, Raw

from analysis.mobileip import Mobility, read_mobility

Timed = list[tuple[float, Packet]]


def data(size: int = 100, src: str = CN, dst: str = MN) -> Packet:
    return IP(src=src, dst=dst) / UDP(sport=9, dport=9) / Raw(bytes(size))


def data6(size: int = 100, src: str = CN6, dst: str = MN6) -> Packet:
    return IPv6(src=src, dst=dst) / UDP(sport=9, dport=9) / Raw(bytes(size))


def mobility(folder: Path, packets: Timed) -> Mobility:
    return read_mobility(scene.table_of(folder, packets))


@pytest.mark.parametrize(
    ("packet", "kind", "overhead"),
    [
        (in_tunnel(HA, COA1, data()), "IP-in-IP", 20),
        (in_udp(HA, COA1, data()), "UDP (RFC 3519)", 32),
        (IP(src=HA, dst=COA1) / GRE() / data(), "GRE", 24),
        (in_tunnel(HA, COA1, in_tunnel(HA, COA2, data())), "IP-in-IP", 40),
        (IPv6(src=HA6, dst=COA6) / data6(), "IPv6-in-IPv6", 40),
        (IPv6(src=HA6, dst=COA6) / data(), "IPv4-in-IPv6", 40),
        (IP(src=HA, dst=COA1, proto=41) / data6(), "IPv6-in-IPv4", 20),
        (to_mobile(UDP(sport=9, dport=9) / Raw(bytes(100)), src=CN6), "route-optimised", 24),
        (from_mobile(UDP(sport=9, dport=9) / Raw(bytes(100)), dst=CN6), "route-optimised", 24),
    ],
)
def test_inner_and_overhead_bytes_add_up_to_the_packet(tmp_path: Path, packet: Packet, kind: str, overhead: int) -> None:
    row = mobility(tmp_path, [(0.0, packet)]).tunnels.iloc[0]
    assert (row["kind"], row["packets"], row["overhead_bytes"]) == (kind, 1, overhead)
    assert row["inner_bytes"] + overhead == len(bytes(packet))


def test_tunnels_are_counted_per_direction(tmp_path: Path) -> None:
    packets = [
        (0.0, udp(COA1, HA, rrq())),
        (0.1, udp(HA, COA1, rrp())),
        (1.0, in_tunnel(HA, COA1, data(100))),
        (2.0, in_tunnel(HA, COA1, data(300, src="10.5.0.3"))),
        (3.0, in_tunnel(HA, COA2, data(372, dst="10.9.0.6"))),
        (4.0, in_tunnel(COA1, HA, data(72, MN, CN))),
        (5.0, udp(COA2, HA, rrq(COA2, 2, home="10.9.0.6"))),
        (6.0, data(500)),
    ]
    table = mobility(tmp_path, packets).tunnels
    assert table["direction"].tolist() == ["to mobile node", "to mobile node", "from mobile node"]
    assert table["packets"].tolist() == [2, 1, 1]
    assert table["inner_bytes"].tolist() == [456, 400, 100]
    assert table["share"].tolist() == pytest.approx([456 / 856, 400 / 856, 1.0])
    assert table["inner_sources"].tolist() == [2, 1, 1]
    assert table["inner_destinations"].tolist() == [1, 1, 1]
    assert (table["first_ns"][0], table["last_ns"][0]) == (at_ns(1), at_ns(2))
    assert table["signalling"].tolist() == [0, 0, 0]


def test_traffic_of_a_home_address_by_its_way(tmp_path: Path) -> None:
    ro = UDP(sport=9, dport=9) / Raw(bytes(52))
    packets = [
        (0.0, from_mobile(MIP6MH_BU(seq=1, flags="AH", mhtime=15))),
        (0.1, IPv6(src=HA6, dst=COA6) / data6(100)),
        (0.2, IPv6(src=HA6, dst=COA6) / data6(100)),
        (0.3, data6(100)),  # between correspondent and home agent there is no tunnel
        (1.1, from_mobile(ro, dst=CN6)),
        (1.2, to_mobile(ro, src=CN6)),
        (1.3, data6(100, CN6, HA6)),  # of nobody
    ]
    table = mobility(tmp_path, packets).traffic
    rows = [
        tuple(row) for row in table[["to_mobile", "packets", "tunnelled_bytes", "route_optimised_bytes", "plain_bytes"]].values
    ]
    assert rows == [(True, 3, 296, 0, 148), (False, 1, 0, 100, 0), (True, 1, 0, 100, 0)]
    assert table["time_ns"].tolist() == [at_ns(0), at_ns(1), at_ns(1)]
    assert set(table["home_address"]) == {MN6}


def test_route_optimisation_shows_without_signalling(tmp_path: Path) -> None:
    found = mobility(tmp_path, [(0.0, to_mobile(TCP(), src=CN6)), (1.0, from_mobile(TCP(), dst=CN6))])
    assert found.present
    assert found.messages.empty
    assert found.tunnels["direction"].tolist() == ["to mobile node", "from mobile node"]
    assert found.traffic["route_optimised_bytes"].tolist() == [60, 60]


def test_other_tunnels_are_not_mobile_ip(tmp_path: Path) -> None:
    found = mobility(tmp_path, [(0.0, in_tunnel(HA, COA1, data()))])
    assert not found.present
    assert len(found.tunnels) == 1


def test_a_handover_is_split_into_its_phases(tmp_path: Path) -> None:
    packets = [
        (0.0, udp(COA1, HA, rrq(ident=1))),
        (0.1, udp(HA, COA1, rrp(ident=1))),
        (0.2, in_tunnel(HA, COA1, data())),
        (1.0, in_tunnel(COA1, HA, data(10, MN, CN))),  # the last one on the old path
        (1.7, udp(COA2, HA, rrq(COA2, 2))),
        (2.7, udp(COA2, HA, rrq(COA2, 3))),
        (2.9, udp(HA, COA2, rrp(ident=3))),
        (3.0, in_tunnel(HA, COA2, data(dst="10.9.0.6"))),  # somebody else's
        (3.4, in_tunnel(HA, COA2, data())),
        (3.5, in_tunnel(HA, COA1, data())),  # a straggler
        (3.6, in_tunnel(HA, COA2, data())),
    ]
    table = mobility(tmp_path, packets).handovers
    assert table["kind"].tolist() == ["attach", "move"]
    row = table.iloc[1]
    assert (row["old_care_of"], row["new_care_of"], row["registration"]) == (COA1, COA2, 1)
    assert [row[name] for name in ("last_old_ns", "request_ns", "reply_ns", "first_new_ns")] == [
        at_ns(1.0), at_ns(1.7), at_ns(2.9), at_ns(3.4),
    ]  # fmt: skip
    assert (row["detect_ms"], row["register_ms"], row["resume_ms"], row["gap_ms"]) == (700.0, 1200.0, 500.0, 2400.0)
    assert math.isnan(table["gap_ms"][0])


def test_an_added_binding_and_a_silent_one(tmp_path: Path) -> None:
    packets = [
        (0.0, udp(COA1, HA, rrq(ident=1, more=multipath(1)))),
        (0.1, udp(HA, COA1, rrp(ident=1))),
        (1.0, udp(COA2, HA, rrq(COA2, 2, more=multipath(2)))),
        (1.1, udp(HA, COA2, rrp(ident=2))),
        (1.2, in_tunnel(HA, COA1, data())),
        (1.3, udp(HA, COA2, b"")),
    ]
    table = mobility(tmp_path, packets).handovers
    assert table["kind"].tolist() == ["attach", "add"]
    assert table["first_new_ns"].tolist() == [at_ns(1.2), -1]
    assert table["last_old_ns"].tolist() == [-1, at_ns(1.2)]
    assert table["detect_ms"][1] == 0.0


def test_a_correspondents_binding_moves_route_optimised_packets(tmp_path: Path) -> None:
    ro = UDP(sport=9, dport=9) / Raw(bytes(52))
    packets = [
        (0.0, from_mobile(MIP6MH_BU(seq=1, flags="", mhtime=15), dst=CN6)),
        (0.5, to_mobile(ro, src=CN6)),
        (1.0, from_mobile(MIP6MH_BU(seq=2, flags="", mhtime=15), care_of=COB6, dst=CN6)),
        (1.2, IPv6(src=HA6, dst=COB6) / data6()),  # by way of the home agent
        (1.5, to_mobile(ro, care_of=COB6, src=CN6)),
    ]
    row = mobility(tmp_path, packets).handovers.iloc[1]
    assert (row["kind"], row["role"], row["gap_ms"], row["detect_ms"]) == ("move", "correspondent", 1000.0, 500.0)


def cookies(number: int) -> bytes:
    return number.to_bytes(8, "big")


def home_init(cookie: int) -> Packet:
    return IPv6(src=COA6, dst=HA6) / IPv6(src=MN6, dst=CN6) / MIP6MH_HoTI(cookie=cookies(cookie))


def home_test(cookie: int, nonce: int) -> Packet:
    return IPv6(src=HA6, dst=COA6) / IPv6(src=CN6, dst=MN6) / MIP6MH_HoT(cookie=cookies(cookie), token=b"T" * 8, index=nonce)


def care_of_init(cookie: int, care_of: str = COA6) -> Packet:
    return IPv6(src=care_of, dst=CN6) / MIP6MH_CoTI(cookie=cookies(cookie))


def care_of_test(cookie: int, nonce: int, care_of: str = COA6) -> Packet:
    return IPv6(src=CN6, dst=care_of) / MIP6MH_CoT(cookie=cookies(cookie), token=b"t" * 8, index=nonce)


def update(sequence: int, home_nonce: int, care_of_nonce: int, care_of: str = COA6) -> Packet:
    nonces = MIP6OptNonceIndices(olen=4, hni=home_nonce, coni=care_of_nonce)
    return from_mobile(MIP6MH_BU(seq=sequence, flags="A", mhtime=15, options=[nonces]), care_of=care_of, dst=CN6)


def test_return_routability_and_reuse_of_the_home_token(tmp_path: Path) -> None:
    packets = [
        (0.00, home_init(1)),
        (0.00, care_of_init(2)),
        (0.02, care_of_test(2, 60)),
        (0.06, home_test(1, 50)),
        (0.10, update(7, 50, 60)),
        (0.15, to_mobile(MIP6MH_BA(seq=7, mhtime=10), src=CN6)),
        (5.00, care_of_init(3, COB6)),
        (5.03, care_of_test(3, 61, COB6)),
        (5.04, update(8, 50, 61, COB6)),
        (5.09, to_mobile(MIP6MH_BA(seq=8, mhtime=10), care_of=COB6, src=CN6)),
        (6.00, home_init(4)),
        (7.00, home_init(4)),
        (8.00, care_of_init(5)),
        (8.01, care_of_test(5, 62)),
    ]
    table = mobility(tmp_path, packets).return_routability
    assert table["result"].tolist() == ["accepted", "accepted", "unanswered", "unused"]
    first, second = table.iloc[0], table.iloc[1]
    assert (first["home_ms"], first["care_of_ms"], first["total_ms"]) == (60.0, 20.0, 150.0)
    assert (first["home_nonce"], first["care_of_nonce"], first["home_reused"]) == (50, 60, False)
    assert (first["bu_ns"], first["ba_ns"], first["registration"]) == (at_ns(0.10), at_ns(0.15), 0)
    assert (second["home_reused"], second["care_of_reused"], second["total_ms"]) == (True, False, 90.0)
    assert second["care_of_address"] == COB6
    assert (table["retransmissions"][2], table["home_address"][2], table["care_of_address"][3]) == (1, MN6, COA6)


def test_a_home_test_seen_on_both_legs_is_one(tmp_path: Path) -> None:
    bare_init = IPv6(src=MN6, dst=CN6) / MIP6MH_HoTI(cookie=cookies(1))
    bare_test = IPv6(src=CN6, dst=MN6) / MIP6MH_HoT(cookie=cookies(1), token=b"T" * 8, index=5)
    packets = [(0.00, home_init(1)), (0.01, bare_init), (0.02, bare_test), (0.03, home_test(1, 5))]
    table = mobility(tmp_path, packets).return_routability
    assert (len(table), table["home_ms"][0], table["retransmissions"][0]) == (1, 30.0, 0)
