"""What no standard has is found, what standards have is not counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic as syn

from analysis.measures.audit import mptcp_options, odd_messages, odd_options, other_traffic
from analysis.packets import PacketTable, merge, read_captures

A, B = "10.1.0.100", "10.65.0.2"
PORTS = {5001}


def table(folder: Path, *frames: bytes) -> PacketTable:
    path = folder / "one.pcap"
    path.write_bytes(syn.pcap([(number, frame) for number, frame in enumerate(frames)]))
    return merge(read_captures([path]))


def with_option(option: bytes) -> bytes:
    return syn.tcp(A, 40000, B, 5001, 1, 1, syn.ACK, 0, option)


def option(subtype: int, size: int) -> bytes:
    return bytes([30, size, subtype << 4]) + bytes(size - 3)


def test_options_of_the_standard_are_named_and_not_odd(tmp_path: Path) -> None:
    seen = table(
        tmp_path,
        syn.tcp(A, 40000, B, 5001, 1, 0, syn.SYN, 0, syn.capable()),
        syn.tcp(A, 40001, B, 5001, 1, 0, syn.SYN, 0, syn.join_syn(7)),
        with_option(syn.dss(5, 1, 100, dack=7)), with_option(option(4, 4)), with_option(option(5, 3)),
    )  # fmt: skip
    assert mptcp_options(seen) == {"MP_CAPABLE", "MP_JOIN", "DSS", "REMOVE_ADDR", "MP_PRIO"}
    assert not odd_options(seen)


@pytest.mark.parametrize(
    ("odd", "kind"),
    [
        (option(9, 4), "MPTCP subtype 9"),
        (option(15, 4), "MPTCP MP_EXPERIMENTAL"),
        (option(5, 4), "MP_PRIO of another length"),
        (option(8, 6), "MP_TCPRST of another length"),
        (bytes([30, 4, 0x00, 0x01]), "MP_CAPABLE of another version"),
        (bytes([222, 4, 0, 0]), "unknown TCP option"),
    ],
)
def test_other_options_are_counted_by_kind(tmp_path: Path, odd: bytes, kind: str) -> None:
    assert odd_options(table(tmp_path, with_option(odd), with_option(syn.dss(dack=5)))) == {kind: 1}


def messages(**fields: object) -> pd.DataFrame:
    row = {"family": 4, "kind": "RRQ", "code": -1, "extensions": "32"}
    return pd.DataFrame([row, {**row, **fields}])


def test_registered_messages_are_not_odd() -> None:
    rows = messages(kind="RRP", code=0, extensions="144 154/1 154/2 32")
    assert not odd_messages(rows)
    assert not odd_messages(rows.iloc[:0])


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"kind": "malformed"}, "malformed message"),
        ({"kind": "type 99"}, "message of type 99"),
        ({"kind": "RRP", "code": 200}, "RRP code 200"),
        ({"extensions": "200 32"}, "extension 200"),
    ],
)
def test_other_messages_are_counted_by_kind(fields: dict[str, object], kind: str) -> None:
    assert odd_messages(messages(**fields)) == {kind: 1}


def test_traffic_of_no_known_kind_is_found_also_in_a_tunnel(tmp_path: Path) -> None:
    inner = syn.udp(A, 9, B, 7, 4)
    known = [
        with_option(b""), syn.udp(A, 434, B, 434, 24), syn.udp("0.0.0.0", 68, "255.255.255.255", 67, 300),
        syn.ip(A, B, 1, bytes(8)), b"\xff" * 6 + b"\x02" * 6 + b"\x88\xb5" + bytes(40),
    ]  # fmt: skip
    assert not other_traffic(table(tmp_path, *known), PORTS)
    others = [inner, syn.ip("10.9.0.1", A, 4, inner[14:]), syn.ip(A, B, 99, bytes(8)), syn.tcp(A, 40000, B, 22, 1)]
    assert other_traffic(table(tmp_path, *known, *others), PORTS) == {"UDP port 7": 2, "IP protocol 99": 1, "TCP port 22": 1}


def test_no_packets_are_no_oddity() -> None:
    empty = PacketTable.empty()
    assert (mptcp_options(empty), odd_options(empty), other_traffic(empty, PORTS)) == (set(), {}, {})
    assert np.size(empty["time_ns"]) == 0
