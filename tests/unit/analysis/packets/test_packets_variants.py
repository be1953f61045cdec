"""The same packets in another file format, behind another link layer, in a tunnel: the same rows."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from analysis.packets import PacketTable, read_capture
from analysis.packets import schema as s
from tests.pcaps import variants
from tests.pcaps.variants import Record, Records

CARRIED = (
    "protocol", "ip_version", "sport", "dport", "seq", "ack", "flags", "window", "payload_bytes", "options", "mss", "wscale",
    "tsval", "tsecr", "mp_subtypes", "dss_flags", "dack", "dsn", "ssn", "map_bytes", "dss_checksum",
)  # fmt: skip
STEP_NS = {"pcap-us-little": 1000, "pcap-us-big": 1000, "pcapng-us": 1000, "raw-openbsd": 1000, "pcapng-binary-time": 955,
           "null-little": 1000, "null-big": 1000, "loop": 1000, "pcapng-sections": 1000}  # fmt: skip
TUNNELS = {
    "in-ipv4": ({4: s.TUNNEL_IPIP, 6: s.TUNNEL_6IN4}, 1), "in-ipv6": ({4: s.TUNNEL_4IN6, 6: s.TUNNEL_6IN6}, 1),
    "twice-in-ipv4": ({4: s.TUNNEL_6IN4, 6: s.TUNNEL_6IN4}, 2), "gre": ({4: s.TUNNEL_GRE, 6: s.TUNNEL_GRE}, 1),
    "gre-key-sequence": ({4: s.TUNNEL_GRE, 6: s.TUNNEL_GRE}, 1), "gre-checksum": ({4: s.TUNNEL_GRE, 6: s.TUNNEL_GRE}, 1),
    "udp-tunnel": ({4: s.TUNNEL_UDP}, 1), "minimal": ({4: s.TUNNEL_MINIMAL}, 1), "minimal-short": ({4: s.TUNNEL_MINIMAL}, 1),
}  # fmt: skip


@functools.cache
def usable(family: int) -> Records:
    """Records that every variant keeps: whole TCP packets of one IP version, an unfragmented rest left out."""
    kind = variants.ETH_IPV4 if family == 4 else variants.ETH_IPV6
    protocol = 23 if family == 4 else 20
    return [r for r in variants.only(variants.medley(family), kind) if r.frame[protocol] == variants.TCP]


def table_of(path, data: bytes) -> PacketTable:
    path.write_bytes(data)
    capture = read_capture(path)
    assert capture.damage is None
    return capture.table


@pytest.mark.parametrize(
    ("variant", "family"),
    [(v, family) for v in variants.VARIANTS for family in v.families if v.name != "cut-66"],
    ids=lambda value: getattr(value, "name", value),
)
def test_rows_do_not_depend_on_the_wrapping(tmp_path, variant, family):
    records = usable(family)
    plain = table_of(tmp_path / "plain", variants.pcapng(records))
    table = table_of(tmp_path / "variant", variant.make(records))
    assert len(table) == len(records) > 1000
    whole = np.ones(len(table), bool)
    if variant.name == "cut-96":
        whole = table["problems"] & s.OPTIONS_CUT == 0
        assert whole.sum() > 200
    for name in CARRIED:
        np.testing.assert_array_equal(table[name][whole], plain[name][whole], err_msg=name)
    texts, plain_texts = np.array(table.addresses.texts()), np.array(plain.addresses.texts())
    for name in ("src", "dst"):
        assert (texts[table[name]] == plain_texts[plain[name]]).all()
    if variant.name == "pcapng-simple":
        assert (table["time_ns"] == 0).all()
    else:
        late = plain["time_ns"] - table["time_ns"]
        assert (late >= 0).all()
        assert late.max() < STEP_NS.get(variant.name, 1)
    kinds, depth = TUNNELS.get(variant.name, ({4: 0, 6: 0}, 0))
    assert (table["tunnel"] == kinds[family]).all()
    assert (table["tunnel_depth"] == depth).all()
    if variant.name != "cut-96":
        for name in ("subtype", "sender_key", "receiver_key", "token", "nonce", "dsn", "reason", "port", "raw"):
            np.testing.assert_array_equal(table.signals[name], plain.signals[name], err_msg=name)
        np.testing.assert_array_equal(table.sack, plain.sack)
    for row in (40, 700):
        assert table.payload(row) == plain.payload(row)[: int(table["payload_captured"][row])]


@pytest.mark.parametrize("path", variants.captures(), ids=lambda path: path.name.removesuffix(".pcapng.gz"))
def test_frames_are_where_the_file_has_them(path):
    """Times, lengths and payload against a reader that shares no code with ours."""
    records = variants.load(path)
    table = read_capture(path).table
    assert table["time_ns"].tolist() == [r.time_ns for r in records]
    assert table["captured"].tolist() == [len(r.frame) for r in records]
    assert table["length"].tolist() == [r.wire for r in records]
    assert table["interface"].tolist() == [r.interface for r in records]
    for row, record in enumerate(records):
        payload = table.payload(row)
        assert record.frame.endswith(payload)
        if table["protocol"][row] == s.TCP and not table["problems"][row]:
            assert len(record.frame) - len(payload) == header_bytes(record), row


def header_bytes(record: Record) -> int:
    """Ethernet, IP and TCP header of a frame without extension headers."""
    ip = 14 + ((record.frame[14] & 15) * 4 if record.ethertype == variants.ETH_IPV4 else 40)
    return ip + (record.frame[ip + 12] >> 4) * 4
