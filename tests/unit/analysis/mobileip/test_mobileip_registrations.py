"""Requests and replies: pairs, retransmissions, relays, copies, refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import mobileip_scene as scene
from mobileip_scene import CN6, COA1, COA2, COA6, FA, HA, HA6, MN, MN6, at_ns, from_mobile, multipath, rrp, rrq, to_mobile, udp
from scapy.layers.inet6 import MIP6MH_BA, MIP6MH_BU, IPv6
from scapy.packet import Packet

from analysis.mobileip import read_mobility

Timed = list[tuple[float, Packet]]


def registrations(folder: Path, *points: Timed) -> Any:
    return read_mobility(scene.table_of(folder, *points)).registrations


def test_request_and_reply_are_paired_by_the_low_half_of_the_identification(tmp_path: Path) -> None:
    table = registrations(
        tmp_path,
        [
            (0.0, udp(COA1, HA, rrq(ident=1 << 32 | 5, lifetime_s=300))),
            (0.5, udp(HA, COA2, rrp(ident=6))),  # another number: belongs to no request
            (1.0, udp(HA, COA1, rrp(ident=9 << 32 | 5, lifetime_s=60))),
        ],
    )
    first, other = table.iloc[0], table.iloc[1]
    assert (first["result"], first["code"], first["code_text"]) == ("accepted", 0, "registration accepted")
    assert (first["requested_s"], first["granted_s"], first["latency_ms"]) == (300, 60, 1000.0)
    assert (first["home_address"], first["home_agent"], first["care_of_address"]) == (MN, HA, COA1)
    assert (first["request_row"], first["reply_row"], first["hops"]) == (0, 2, 1)
    assert (other["kind"], other["result"], other["request_row"], other["reply_row"]) == ("unknown", "accepted", -1, 1)
    assert math.isnan(other["latency_ms"])


def test_a_reply_for_another_home_address_is_no_answer(tmp_path: Path) -> None:
    table = registrations(tmp_path, [(0.0, udp(COA1, HA, rrq())), (1.0, udp(HA, COA1, rrp(home="10.9.0.6")))])
    assert table["result"].tolist() == ["unanswered", "accepted"]


def test_retransmissions_with_new_identifications_are_one_registration(tmp_path: Path) -> None:
    table = registrations(
        tmp_path,
        [
            (0.0, udp(COA1, HA, rrq(ident=1))),
            (1.0, udp(COA1, HA, rrq(ident=2))),
            (3.0, udp(COA1, HA, rrq(ident=3))),
            (3.1, udp(HA, COA1, rrp(ident=2))),  # the second one is answered
            (9.0, udp(COA1, HA, rrq(ident=4))),  # after an answer: a new registration
            (9.1, udp(HA, COA1, rrp(ident=4))),
        ],
    )
    assert table["retransmissions"].tolist() == [2, 0]
    assert table["latency_ms"].tolist() == [2100.0, 100.0]
    assert table["total_ms"].tolist() == [3100.0, 100.0]
    assert table["kind"].tolist() == ["registration", "refresh"]
    assert table["sent_ns"].tolist() == [at_ns(0), at_ns(9)]


def test_the_same_request_again_is_a_retransmission(tmp_path: Path) -> None:
    table = registrations(tmp_path, [(0.0, udp(COA1, HA, rrq())), (1.0, udp(COA1, HA, rrq()))])
    assert (table["retransmissions"].tolist(), table["result"].tolist()) == ([1], ["unanswered"])


def test_another_care_of_address_or_binding_is_another_registration(tmp_path: Path) -> None:
    requests = [rrq(ident=1), rrq(COA2, ident=2), rrq(ident=3, more=multipath(1)), rrq(ident=4, more=multipath(2))]
    requests.append(rrq(ident=5, lifetime_s=0))
    table = registrations(tmp_path, [(float(n), udp(COA1, HA, body)) for n, body in enumerate(requests)])
    assert table["result"].tolist() == ["unanswered"] * 5
    assert table["bids"].tolist() == [(), (), (1,), (2,), ()]
    assert table["kind"].tolist() == ["registration"] * 4 + ["deregistration"]


def test_relayed_by_a_foreign_agent_it_is_one_registration_with_two_hops(tmp_path: Path) -> None:
    request, reply = rrq(FA, flags=0x02), rrp()
    table = registrations(
        tmp_path,
        [
            (0.000, udp(MN, FA, request)),
            (0.010, udp(FA, HA, request)),
            (0.030, udp(HA, FA, reply)),
            (0.045, udp(FA, MN, reply)),
        ],
    )
    assert len(table) == 1
    row = table.iloc[0]
    assert (row["hops"], row["retransmissions"], row["latency_ms"]) == (2, 0, 45.0)
    assert (row["accepted_ns"], row["reply_ns"]) == (at_ns(0.030), at_ns(0.045))
    assert row["path"] == (f"{MN} > {FA} +0.0 ms, {FA} > {HA} +10.0 ms, {HA} > {FA} +30.0 ms, {FA} > {MN} +45.0 ms")


def test_what_several_capture_points_saw_is_one_message(tmp_path: Path) -> None:
    near = [(0.0, udp(COA1, HA, rrq())), (0.05, udp(HA, COA1, rrp()))]
    far = [(0.02, udp(COA1, HA, rrq())), (0.03, udp(HA, COA1, rrp()))]
    found = read_mobility(scene.table_of(tmp_path, near, far))
    assert found.messages["copy"].tolist() == [False, True, False, True]
    assert found.messages["point"].tolist() == [0, 1, 1, 0]
    row = found.registrations.iloc[0]
    assert (len(found.registrations), row["hops"], row["retransmissions"], row["latency_ms"]) == (1, 1, 0, 50.0)


def test_refusals_name_the_reason(tmp_path: Path) -> None:
    table = registrations(
        tmp_path,
        [
            (0.0, udp(COA1, HA, rrq(ident=1))),
            (0.1, udp(HA, COA1, rrp(133, ident=7 << 32 | 1, lifetime_s=0))),
            (0.2, udp(COA1, HA, rrq(ident=7 << 32 | 2))),
            (0.3, udp(HA, COA1, rrp(0, ident=7 << 32 | 2))),
        ],
    )
    assert table["result"].tolist() == ["refused", "accepted"]
    assert table["code_text"][0] == "home agent: registration identification mismatch"
    assert table["accepted_ns"].tolist() == [-1, at_ns(0.3)]


def test_an_assigned_home_address_is_taken_from_the_reply(tmp_path: Path) -> None:
    table = registrations(
        tmp_path, [(0.0, udp(COA1, HA, rrq(home="0.0.0.0"))), (0.1, udp(HA, COA1, rrp(home="10.9.0.9")))]
    )  # fmt: skip
    assert (len(table), table["home_address"][0], table["result"][0]) == (1, "10.9.0.9", "accepted")


def test_binding_updates_are_paired_by_sequence_home_address_and_correspondent(tmp_path: Path) -> None:
    table = registrations(
        tmp_path,
        [
            (0.0, from_mobile(MIP6MH_BU(seq=7, flags="AH", mhtime=15))),
            (0.1, from_mobile(MIP6MH_BU(seq=7, flags="A", mhtime=15), dst=CN6)),
            (0.2, to_mobile(MIP6MH_BA(seq=7, mhtime=10), src=CN6)),
            (0.5, to_mobile(MIP6MH_BA(seq=7, mhtime=14))),
            (1.0, from_mobile(MIP6MH_BU(seq=8, flags="", mhtime=15), dst=CN6)),
        ],
    )
    assert table["peer"].tolist() == [HA6, CN6, CN6]
    assert table["home_agent"].tolist() == [HA6, "", ""]
    assert table["result"].tolist() == ["accepted", "accepted", "no answer asked for"]
    assert table["granted_s"].tolist() == [56, 40, 60]
    assert table["latency_ms"].tolist()[:2] == [500.0, 100.0]
    assert (table["home_address"][0], table["care_of_address"][0]) == (MN6, COA6)
    assert table["path"][0] == f"{COA6} > {HA6} +0.0 ms, {HA6} > {COA6} +500.0 ms"


def test_sequence_out_of_window_carries_another_number(tmp_path: Path) -> None:
    table = registrations(
        tmp_path,
        [
            (0.0, from_mobile(MIP6MH_BU(seq=7, flags="AH"))),
            (0.1, to_mobile(MIP6MH_BA(status=135, seq=900))),
            (1.0, from_mobile(MIP6MH_BU(seq=901, flags="AH"))),
            (1.1, to_mobile(MIP6MH_BA(seq=901, mhtime=3))),
        ],
    )
    assert table["result"].tolist() == ["refused", "accepted"]
    assert table["sequence"].tolist() == [7, 901]
    assert table["code_text"][0] == "sequence number out of window"


def test_at_home_the_update_is_a_deregistration(tmp_path: Path) -> None:
    bare = IPv6(src=MN6, dst=HA6) / MIP6MH_BU(seq=7, flags="AH", mhtime=0)
    table = registrations(tmp_path, [(0.0, bare)])
    assert (table["kind"][0], table["home_address"][0], table["care_of_address"][0]) == ("deregistration", MN6, MN6)


def test_malformed_messages_register_nothing(tmp_path: Path) -> None:
    found = read_mobility(scene.table_of(tmp_path, [(0.0, udp(COA1, HA, rrq()[:-1])), (1.0, udp(HA, COA1, rrp()[:10]))]))
    assert found.messages["kind"].tolist() == ["malformed", "malformed"]
    assert found.registrations.empty
    assert found.bindings.empty
