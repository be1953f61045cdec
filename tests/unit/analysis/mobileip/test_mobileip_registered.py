"""What a run's metrics say of the registrations in its captures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mobileip_scene as scene
from mobileip_scene import COA1, COA2, HA, MN, long_extension, multipath, rrp, rrq, udp
from scapy.packet import Packet

from analysis.registered import registration_facts

Timed = list[tuple[float, Packet]]
FLOW_BINDING = long_extension(154, 2, bytes([1, 1, 1, 1]) + bytes.fromhex("00800000 01bb"))
"""FORWARD to BID 1: destination port 443 (RFC 7629 section 4.2)."""


def facts(folder: Path, wlan: Timed, lte: Timed) -> Any:
    table = scene.table_of(folder, wlan, lte)
    return registration_facts(SimpleNamespace(packets=lambda _: (table, ["mn-wlan", "mn-lte"])))  # type: ignore[arg-type]


def exchange(at_s: float, care_of: str, bid: int, ident: int, code: int = 0, source: str = "", more: bytes = b"") -> Timed:
    source = source or care_of
    extensions = (multipath(bid) if bid else b"") + more
    return [(at_s, udp(source, HA, rrq(care_of, ident, more=extensions))), (at_s + 0.1, udp(HA, source, rrp(code, ident)))]


def test_each_registration_through_its_own_interface(tmp_path: Path) -> None:
    found = facts(tmp_path, exchange(0.0, COA1, 1, 5, more=FLOW_BINDING), exchange(1.0, COA2, 2, 6, more=FLOW_BINDING * 2))
    assert found == {
        "registrations": 2, "deregistrations": 0, "accepted": 2, "refused": 0, "unanswered": 0, "latency_ms": 100.0,
        "multipath": True, "flow_bindings": 3, "tunnels": "", "udp_only": False, "own_interface": True,
    }  # fmt: skip


def test_a_registration_by_way_of_another_interface_is_seen(tmp_path: Path) -> None:
    assert facts(tmp_path, exchange(0.0, COA1, 1, 5, source=COA2), [])["own_interface"] is False
    assert facts(tmp_path, exchange(0.0, COA1, 1, 5), exchange(1.0, COA1, 1, 6))["own_interface"] is False


def test_tunnels_in_udp_are_told_from_others(tmp_path: Path) -> None:
    inner = udp("10.5.0.2", MN, b"data", 9, 9)
    known = exchange(0.0, COA1, 1, 5)
    found = facts(tmp_path, [*known, (1.0, scene.in_udp(HA, COA1, inner))], [])
    assert (found["tunnels"], found["udp_only"]) == ("UDP (RFC 3519)", True)
    found = facts(tmp_path, [*known, (1.0, scene.in_udp(HA, COA1, inner)), (2.0, scene.in_tunnel(HA, COA1, inner))], [])
    assert found["udp_only"] is False


def test_refusals_and_silence_are_counted(tmp_path: Path) -> None:
    found = facts(tmp_path, exchange(0.0, COA1, 0, 5, code=131), [(1.0, udp(COA2, HA, rrq(COA2, 6)))])
    assert (found["accepted"], found["refused"], found["unanswered"]) == (0, 1, 1)
    assert (found["multipath"], found["own_interface"]) == (False, None)


def test_without_registrations_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert facts(tmp_path, [(0.0, udp(MN, HA, b"hello", 9, 9))], []) is None
