"""The timeline of bindings."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import mobileip_scene as scene
import pytest
from mobileip_scene import (
    CN6,
    COA1,
    COA2,
    COA6,
    COB6,
    FA,
    HA,
    HA6,
    MN,
    MN6,
    at_ns,
    extension,
    from_mobile,
    multipath,
    rrp,
    rrq,
    to_mobile,
    udp,
)
from scapy.layers.inet import IP
from scapy.layers.inet6 import MIP6MH_BA, MIP6MH_BE, MIP6MH_BU, IPv6
from scapy.packet import Packet, Raw
from test_mobileip_messages6 import bid, header

from analysis.mobileip import read_mobility

Timed = list[tuple[float, Packet]]


def exchange(at_s: float, number: int, care_of: str = COA1, code: int = 0, granted_s: int = 60, **fields: Any) -> Timed:
    """A request and its reply 0.1 s later."""
    fields.setdefault("lifetime_s", granted_s)
    request = rrq(care_of, number, **fields)
    return [(at_s, udp(care_of, HA, request)), (at_s + 0.1, udp(HA, care_of, rrp(code, number, granted_s)))]


def bindings(folder: Path, packets: Timed, end_s: float | None = None) -> Any:
    if end_s is not None:
        packets = [*packets, (end_s, IP(src=HA, dst=FA) / Raw(b"end"))]
    return read_mobility(scene.table_of(folder, packets)).bindings


def spans(table: Any) -> list[tuple[str, int, float, float, str]]:
    start = at_ns(0)
    return [
        (row.care_of_address, row.bid, (row.from_ns - start) / 1e9, (row.to_ns - start) / 1e9, row.ended)
        for row in table.itertuples()
    ]


def test_a_refreshed_binding_is_one_row_until_the_capture_ends(tmp_path: Path) -> None:
    table = bindings(tmp_path, exchange(0, 1) + exchange(30, 2) + exchange(60, 3), 61.0)
    assert spans(table) == [(COA1, 0, 0.1, 61.0, "end of capture")]
    row = table.iloc[0]
    assert (row["refreshes"], row["registration"], row["last_registration"], row["lifetime_s"]) == (2, 0, 2, 60)
    assert (row["home_address"], row["peer"], row["role"], row["encapsulation"]) == (MN, HA, "home agent", "IP-in-IP")
    assert (row["reverse_tunnel"], row["foreign_agent"]) == (True, False)


def test_a_binding_expires_by_the_granted_lifetime(tmp_path: Path) -> None:
    table = bindings(tmp_path, exchange(0, 1, granted_s=20, lifetime_s=900) + exchange(30, 2), 31.0)
    assert spans(table) == [(COA1, 0, 0.1, 20.1, "expired"), (COA1, 0, 30.1, 31.0, "end of capture")]


def test_infinity_does_not_expire(tmp_path: Path) -> None:
    table = bindings(tmp_path, exchange(0, 1, granted_s=65535), 100_000.0)
    assert spans(table) == [(COA1, 0, 0.1, 100_000.0, "end of capture")]


def test_a_new_care_of_address_replaces_the_binding(tmp_path: Path) -> None:
    table = bindings(tmp_path, exchange(0, 1) + exchange(5, 2, COA2), 6.0)
    assert spans(table) == [(COA1, 0, 0.1, 5.1, "replaced"), (COA2, 0, 5.1, 6.0, "end of capture")]


@pytest.mark.parametrize(("code", "first"), [(0, (8.0, "end of capture")), (1, (5.1, "replaced"))])
def test_simultaneous_bindings_live_side_by_side(tmp_path: Path, code: int, first: tuple[float, str]) -> None:
    table = bindings(tmp_path, exchange(0, 1, flags=0xA0) + exchange(5, 2, COA2, code, flags=0xA0), 8.0)
    assert spans(table) == [(COA1, 0, 0.1, *first), (COA2, 0, 5.1, 8.0, "end of capture")]


def test_deregistration_of_one_care_of_address_and_of_all(tmp_path: Path) -> None:
    both = exchange(0, 1, flags=0xA0) + exchange(1, 2, COA2, flags=0xA0)
    one = bindings(tmp_path, both + exchange(5, 3, COA1, granted_s=0), 8.0)
    assert spans(one) == [(COA1, 0, 0.1, 5.1, "deregistered"), (COA2, 0, 1.1, 8.0, "end of capture")]
    home = bindings(tmp_path, both + exchange(5, 3, MN, granted_s=0), 8.0)
    assert [span[3:] for span in spans(home)] == [(5.1, "deregistered")] * 2


def test_refused_and_unanswered_requests_bind_nothing(tmp_path: Path) -> None:
    table = bindings(tmp_path, exchange(0, 1, code=131) + exchange(5, 2)[:1], 8.0)
    assert table.empty
    assert table["from_ns"].dtype == "int64"


def test_bindings_with_identifiers_live_side_by_side(tmp_path: Path) -> None:
    packets = exchange(0, 1, more=multipath(1)) + exchange(1, 2, COA2, more=multipath(2, label=7))
    packets += exchange(3, 3, FA, more=multipath(1)) + exchange(5, 4, COA2, granted_s=0, more=multipath(2))
    table = bindings(tmp_path, packets, 8.0)
    assert spans(table) == [
        (COA1, 1, 0.1, 3.1, "replaced"),
        (COA2, 2, 1.1, 5.1, "deregistered"),
        (FA, 1, 3.1, 8.0, "end of capture"),
    ]
    assert (table["label"][1], table["access_technology"][1]) == (7, "802.11")


def test_overwrite_flag_replaces_all_bindings_by_one(tmp_path: Path) -> None:
    packets = exchange(0, 1, more=multipath(1)) + exchange(1, 2, COA2, more=multipath(2))
    table = bindings(tmp_path, packets + exchange(3, 3, FA, more=multipath(1, 0x40)), 8.0)
    assert spans(table) == [
        (COA1, 1, 0.1, 3.1, "overwritten"),
        (COA2, 2, 1.1, 3.1, "overwritten"),
        (FA, 1, 3.1, 8.0, "end of capture"),
    ]


def test_bulk_flag_extends_or_ends_all_bindings(tmp_path: Path) -> None:
    packets = exchange(0, 1, more=multipath(1), granted_s=10) + exchange(1, 2, COA2, more=multipath(2), granted_s=10)
    packets += exchange(8, 3, COA1, more=multipath(1, 0x80), granted_s=10)
    extended = bindings(tmp_path, packets, 17.0)
    assert [span[3:] for span in spans(extended)] == [(17.0, "end of capture")] * 2
    ended = bindings(tmp_path, packets + exchange(9, 4, COA1, more=multipath(1, 0x80), granted_s=0), 17.0)
    assert [span[3:] for span in spans(ended)] == [(9.1, "deregistered")] * 2


def test_a_plain_registration_replaces_bindings_with_identifiers(tmp_path: Path) -> None:
    table = bindings(tmp_path, exchange(0, 1, more=multipath(1)) + exchange(3, 2, COA2), 8.0)
    assert spans(table) == [(COA1, 1, 0.1, 3.1, "replaced"), (COA2, 0, 3.1, 8.0, "end of capture")]


@pytest.mark.parametrize(("foreign", "ended"), [(COA2, ["end of capture", "revoked"]), ("0.0.0.0", ["revoked", "revoked"])])
def test_revocation_ends_the_named_or_all_bindings(tmp_path: Path, foreign: str, ended: list[str]) -> None:
    packets = exchange(0, 1, flags=0xA0) + exchange(1, 2, COA2, flags=0xA0)
    parts = map(scene.octets, (MN, HA, foreign))
    revocation = struct.pack("!BBH4s4s4sI", 7, 0, 0x8000, *parts, 1)
    table = bindings(tmp_path, [*packets, (4.0, udp(HA, COA2, revocation))], 8.0)
    assert table["ended"].tolist() == ended


def test_a_granted_udp_tunnel_is_the_encapsulation(tmp_path: Path) -> None:
    granted = extension(44, bytes([0, 0, 0, 0, 0, 110]))
    packets = [(0.0, udp(COA1, HA, rrq())), (0.1, udp(HA, COA1, rrp(more=granted)))]
    assert bindings(tmp_path, packets)["encapsulation"][0] == "UDP (RFC 3519)"


def test_a_foreign_agents_binding_is_marked(tmp_path: Path) -> None:
    table = bindings(tmp_path, exchange(0, 1, FA, flags=0x00))
    assert (table["foreign_agent"][0], table["reverse_tunnel"][0]) == (True, False)


def test_mobile_ipv6_binds_at_home_agent_and_correspondent(tmp_path: Path) -> None:
    packets = [
        (0.0, from_mobile(MIP6MH_BU(seq=1, flags="AH", mhtime=15))),
        (0.1, to_mobile(MIP6MH_BA(seq=1, mhtime=2))),
        (1.0, from_mobile(MIP6MH_BU(seq=2, flags="", mhtime=15), dst=CN6)),
        (2.0, from_mobile(MIP6MH_BU(seq=3, flags="AH", mhtime=15), care_of=COB6)),
        (2.1, to_mobile(MIP6MH_BA(seq=3, mhtime=2), care_of=COB6)),
        (5.0, IPv6(src=CN6, dst=COA6) / MIP6MH_BE(status=1, ha=MN6)),
    ]
    table = bindings(tmp_path, packets, 20.0)
    assert spans(table) == [
        (COA6, 0, 0.1, 2.1, "replaced"),
        (COA6, 0, 1.0, 5.0, "binding error"),
        (COB6, 0, 2.1, 10.1, "expired"),
    ]
    assert table["role"].tolist() == ["home agent", "correspondent", "home agent"]
    assert table["encapsulation"].tolist() == ["IPv6-in-IPv6", "route-optimised", "IPv6-in-IPv6"]


def test_several_care_of_addresses_in_one_update(tmp_path: Path) -> None:
    body = struct.pack("!HHH", 9, 0xC000, 15) + bid(1, COA6) + bid(2, COB6) + bid(3, CN6)
    answer = struct.pack("!BBHH", 4, 0, 9, 15) + bid(1) + bid(2) + bid(3, status=167)
    update = bytearray(bytes(from_mobile(Raw(header(5, body)))))
    update[40] = 135  # the options header is followed by a Mobility Header
    reply = IPv6(src=HA6, dst=MN6, nh=135) / Raw(header(6, answer))
    table = bindings(tmp_path, [(0.0, Raw(bytes(update))), (0.1, reply)], 8.0)
    assert [(row.care_of_address, row.bid) for row in table.itertuples()] == [(COA6, 1), (COB6, 2)]
    assert table["home_address"].tolist() == [MN6, MN6]
