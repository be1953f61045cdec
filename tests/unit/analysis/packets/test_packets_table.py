"""Tables, the rare options in them, addresses, Parquet."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import synthetic as syn
from hypothesis import given
from hypothesis import strategies as st

from analysis.packets import AddressBook, PacketTable, merge, open_stream, read_capture, read_captures
from analysis.packets.parquet import arrow_table, write_parquet
from analysis.packets.schema import ADD_ADDR, COLUMNS, MP_CAPABLE, MP_FASTCLOSE, MP_JOIN, MP_PRIO, MP_TCPRST, REMOVE_ADDR
from analysis.packets.signals import removed_ids

A, B = "10.0.0.1", "10.0.0.2"
A6 = "2001:db8::1"


def mp(subtype: int, low: int, rest: bytes) -> bytes:
    return bytes([30, 3 + len(rest), subtype << 4 | low]) + rest


def one_option(folder: Path, *options: bytes):
    """The signals of a packet with these options."""
    path = folder / "one.pcap"
    path.write_bytes(syn.pcap([(5, syn.tcp(A, 1, B, 2, 1, 2, syn.ACK, 0, b"".join(options)))]))
    return read_capture(path).table


def fields(table: PacketTable, index: int = 0) -> dict[str, int]:
    """What is not zero in a signal, without what every signal has."""
    skipped = ("raw", "row", "subtype", "length")
    return {n: int(v[index]) for n, v in table.signals.items() if n not in skipped and v[index]}


KEY, PEER = struct.pack(">Q", 2**63 + 1), struct.pack(">Q", 3)
OPTIONS = {
    "capable syn, version 1": (mp(0, 1, b"\x81"), {"version": 1, "flags": 0x81}),
    "capable syn, version 0": (mp(0, 0, b"\x01" + KEY), {"flags": 1, "sender_key": 2**63 + 1}),
    "capable ack": (mp(0, 1, b"\x01" + KEY + PEER), {"version": 1, "flags": 1, "sender_key": 2**63 + 1, "receiver_key": 3}),
    "capable data": (
        mp(0, 1, b"\x01" + KEY + PEER + b"\x05\x00"),
        {"version": 1, "flags": 1, "sender_key": 2**63 + 1, "receiver_key": 3, "data_bytes": 1280},
    ),
    "capable data with checksum": (
        mp(0, 1, b"\x81" + KEY + PEER + b"\x05\x00\xaa\xbb"),
        {"version": 1, "flags": 0x81, "sender_key": 2**63 + 1, "receiver_key": 3, "data_bytes": 1280},
    ),
    "join syn": (
        mp(1, 1, b"\x07" + struct.pack(">II", 9, 8)), {"flags": 1, "backup": 1, "address_id": 7, "token": 9, "nonce": 8},
    ),
    "join syn/ack": (mp(1, 0, b"\x07" + KEY + b"\0\0\0\x08"), {"address_id": 7, "hmac_at": 4, "hmac_bytes": 8, "nonce": 8}),
    "join ack": (mp(1, 0, b"\0" + bytes(range(20))), {"hmac_at": 4, "hmac_bytes": 20}),
    "add v4": (mp(3, 0, b"\x05\x0a\0\0\x01" + KEY), {"address_id": 5, "address": 1, "hmac_at": 8, "hmac_bytes": 8}),
    "add v4 with port": (
        mp(3, 0, b"\x05\x0a\0\0\x01\x01\x02" + KEY),
        {"address_id": 5, "address": 1, "port": 258, "hmac_at": 10, "hmac_bytes": 8},
    ),
    "add echo": (mp(3, 1, b"\x05\x0a\0\0\x01"), {"flags": 1, "echo": 1, "address_id": 5, "address": 1}),
    "add version 0": (mp(3, 4, b"\x05\x0a\0\0\x01\x01\x02"), {"version": 4, "address_id": 5, "address": 1, "port": 258}),
    "remove": (mp(4, 0, b"\x05\x06"), {"address_id": 5}),
    "prio": (mp(5, 1, b""), {"flags": 1, "backup": 1}),
    "prio version 0": (mp(5, 0, b"\x04"), {"address_id": 4}),
    "fail": (mp(6, 0, b"\0" + KEY), {"dsn": 2**63 + 1}),
    "fastclose": (mp(7, 0, b"\0" + KEY), {"receiver_key": 2**63 + 1}),
    "reset": (mp(8, 1, b"\x06"), {"flags": 1, "reason": 6}),
    "unknown": (mp(12, 3, b"\x06\x07"), {}),
    "stumps": (mp(0, 0, b""), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option(tmp_path, name):
    option, wanted = OPTIONS[name]
    table = one_option(tmp_path, option)
    assert fields(table) == wanted
    assert table.signals["subtype"].tolist() == [option[2] >> 4]
    assert table["mp_subtypes"].tolist() == [1 << (option[2] >> 4)]
    assert table.signals["raw"][0, : len(option)].tobytes() == option
    assert not table.signals["raw"][0, len(option) :].any()


def test_addresses_of_add_addr(tmp_path):
    import ipaddress

    six = ipaddress.IPv6Address(A6).packed
    for rest, port in ((six + KEY, 0), (six + b"\x1f\x90" + KEY, 8080), (six, 0), (six + b"\x1f\x90", 8080)):
        echo = len(rest) < 24
        table = one_option(tmp_path, mp(3, int(echo), b"\x02" + rest))
        assert table.addresses.text(table.signals["address"][0]) == A6
        assert (table.signals["port"][0], table.signals["echo"][0]) == (port, echo)


def test_several_options_in_one_packet(tmp_path):
    table = one_option(tmp_path, syn.dss(5, 1, 9, dack=2)[:0], mp(4, 0, b"\x01\x02\x03"), mp(5, 1, b""), mp(5, 0, b""))
    assert table.signals["subtype"].tolist() == [REMOVE_ADDR, MP_PRIO, MP_PRIO]
    assert removed_ids(table.signals, 0) == [1, 2, 3]
    assert table.signals["backup"].tolist() == [0, 1, 0]


def test_a_second_dss_is_a_signal(tmp_path):
    first, second = (bytes([30, 8, 0x20, 1]) + struct.pack(">I", n) for n in (5, 6))
    table = one_option(tmp_path, first, second)
    assert table["dack"].tolist() == [5]
    assert table.signals["subtype"].tolist() == [2]


def mixed(folder: Path) -> Path:
    writer = syn.Pcapng(("wlan", "lte"))
    writer.add(30, syn.tcp(A, 1, B, 2, 1, 0, syn.SYN, 0, b"\x02\x04\x05\xb4" + syn.capable()))
    writer.add(10, syn.tcp(B, 2, A, 1, 1, 2, syn.ACK, 0, b"\x01\x01\x05\x12" + struct.pack(">4I", 1, 2, 3, 4)), 1)
    writer.add(20, syn.tcp(A6, 1, "2001:db8::2", 2, 1, 2, syn.ACK, 100, syn.dss(2**40, 1, 100, dack=5)))
    writer.add(40, syn.tcp(A, 3, B, 2, 9, 0, syn.SYN, 0, syn.join_syn(77)), 1)
    writer.add(50, b"\xff" * 12 + b"\x08\x06" + bytes(28))
    writer.add(60, syn.tcp(A, 1, B, 2, 2, 2, syn.ACK, 0, mp(3, 0, b"\x05\x0a\0\0\x09" + KEY)))
    path = folder / "mixed.pcapng"
    path.write_bytes(writer.bytes())
    return path


def test_take_keeps_what_belongs_together(tmp_path):
    table = read_capture(mixed(tmp_path)).table
    taken = table.take(np.array([5, 1, 0, 1]))
    assert taken["time_ns"].tolist() == [60, 10, 30, 10]
    assert np.diff(taken.sack_start).tolist() == [0, 2, 0, 2]
    assert taken.sack.tolist() == [[1, 2], [3, 4]] * 2
    assert list(zip(taken.signals["row"].tolist(), taken.signals["subtype"].tolist(), strict=True)) == [
        (0, ADD_ADDR),
        (2, MP_CAPABLE),
    ]
    assert len(table.take(table["time_ns"] > 45)) == 2
    assert len(table.take(np.zeros(6, np.bool_))) == 0


def test_order_of_time(tmp_path):
    table = read_capture(mixed(tmp_path)).table.sorted_by_time()
    assert table["time_ns"].tolist() == [10, 20, 30, 40, 50, 60]
    assert table.signals["row"].tolist() == [2, 3, 5]
    assert table.sorted_by_time() is table


def test_order_of_time_in_place_is_the_same(tmp_path):
    path = mixed(tmp_path)
    wanted, table = read_capture(path).table.sorted_by_time(), read_capture(path, by_time=True).table
    for name, values in wanted.columns.items():
        assert table[name].tolist() == values.tolist(), name
    assert table.sack_start.tolist() == wanted.sack_start.tolist()
    assert table.sack.tolist() == wanted.sack.tolist()
    assert {n: v.tolist() for n, v in table.signals.items()} == {n: v.tolist() for n, v in wanted.signals.items()}
    assert table.payload(1) == wanted.payload(1) != b""


def test_merged_captures(tmp_path):
    other = tmp_path / "other.pcap"
    other.write_bytes(syn.pcap([(35, syn.udp(B, 5, A, 6, 7))]))
    captures = read_captures([mixed(tmp_path), other])
    table = merge(captures)
    assert table["time_ns"].tolist() == [10, 20, 30, 35, 40, 50, 60]
    assert [table.points[i].interface for i in table["interface"]] == ["lte", "wlan", "wlan", "", "lte", "wlan", "wlan"]
    assert table.points[2].file == str(other)
    assert table.signals["row"].tolist() == [2, 4, 6]
    assert table.payload(3) == bytes(7)
    assert captures[0].table["time_ns"].tolist() == [30, 10, 20, 40, 50, 60]  # untouched
    assert captures[0].packets == 6


def test_text_of_addresses():
    book = AddressBook()
    texts = ["10.0.0.1", "::", "0.0.0.0", "2001:db8::ff", "255.255.255.255", "::a00:1"]
    codes = [book.code(text) for text in texts]
    assert sorted(codes) == [1, 2, 3, 4, 5, 6]
    assert [book.text(code) for code in codes] == texts
    assert [book.code(text) for text in texts] == codes
    assert book.code("") == 0
    with pytest.raises(ValueError, match="address"):
        book.code("somewhere")


@given(st.lists(st.tuples(st.sampled_from([4, 6]), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=3000))
def test_codes_are_as_distinct_as_addresses(numbers):
    numbers = [(v, 0 if v == 4 else high, low % 2**32 if v == 4 else low) for v, high, low in numbers]
    book = AddressBook()
    codes = [
        int(c)
        for part in (numbers[:7], numbers[7:])
        if part
        for c in book.codes(*(np.array(p, np.uint64) for p in zip(*part, strict=True)))
    ]
    assert len(set(zip(codes, numbers, strict=True))) == len(set(codes)) == len(set(numbers))


def test_parquet_is_the_table(tmp_path):
    path, out = mixed(tmp_path), tmp_path / "out.parquet"
    assert write_parquet([open_stream(path, AddressBook())], out) == 6
    frame = pd.read_parquet(out)
    assert frame["time"].astype("int64").tolist() == [30, 10, 20, 40, 50, 60]
    assert frame["src"].tolist()[:4] == [A, B, A6, A]
    assert frame["src"].isna().tolist() == [False] * 4 + [True, False]
    assert frame["interface"].tolist() == ["wlan", "lte", "wlan", "lte", "wlan", "wlan"]
    assert frame["mss"].tolist()[0] == 1460
    assert frame["mss"].isna().sum() == 5
    assert frame["dsn"].tolist()[2] == 2**40
    assert frame["dsn"].isna().sum() == 5
    assert [None if s is None else s.tolist() for s in frame["sack"]] == [None, [1, 2, 3, 4], None, None, None, None]
    assert frame["join_token"].tolist()[3] == 77
    assert frame["add_address"].tolist()[5] == "10.0.0.9"
    assert frame["add_hmac"].tolist()[5] == KEY
    assert frame["seq"].isna().tolist() == [False] * 4 + [True, False]
    assert not list(tmp_path.glob(".out*"))
    pd.testing.assert_frame_equal(read_capture(path).table.frame(), frame, check_categorical=False)


def test_parquet_of_many_chunks_and_files(tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.packets.reader.CHUNK_PACKETS", 2)
    path, out = mixed(tmp_path), tmp_path / "out.parquet"
    book = AddressBook()
    stream = open_stream(path, book)
    tables = list(stream.chunks(2))
    assert [len(t) for t in tables] == [2, 2, 2]
    write_parquet([open_stream(path, book), open_stream(path, book)], out)
    assert pq.read_metadata(out).num_rows == 12
    assert pd.read_parquet(out)["src"].tolist()[6:10] == [A, B, A6, A]


def test_parquet_of_nothing_and_of_failure(tmp_path):
    empty, out = tmp_path / "empty.pcap", tmp_path / "out.parquet"
    empty.write_bytes(syn.pcap([]))
    assert write_parquet([open_stream(empty, AddressBook())], out) == 0
    assert len(pd.read_parquet(out)) == 0
    out.unlink()

    def broken():
        yield open_stream(mixed(tmp_path), AddressBook())
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_parquet(broken(), out)
    assert not list(tmp_path.glob("*out.parquet*"))
    assert not list(tmp_path.glob(".*"))


def test_every_column_has_a_meaning_and_goes_to_the_file(tmp_path):
    names = set(arrow_table(read_capture(mixed(tmp_path)).table).column_names)
    assert {column.name for column in COLUMNS} - names == {"time_ns"}
    assert all(column.meaning for column in COLUMNS)
    assert {MP_JOIN, MP_FASTCLOSE, MP_TCPRST}  # each with columns of its own
    assert {"join_hmac", "fastclose_key", "reset_reason"} <= names
