"""Packets that lie: nothing raises, nothing grows without bound."""

from __future__ import annotations

import random
import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mobileip_scene import COA1, FA, HA, authenticator, extension, long_extension, multipath, rrp, rrq
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6NDOptPrefixInfo
from test_mobileip_messages import AAA, FLOW_BINDING, NAI, REVOCATION, UDP_GRANTED, UDP_TUNNEL, advertisement
from test_mobileip_messages6 import ENDS, bid, header, update
from work import count_calls

from analysis.mobileip import Message, discovery, mobileip4, mobileip6, read_mobility
from analysis.mobileip.finding import fair_share
from analysis.packets import PacketTable, Point
from analysis.packets.schema import ICMP, ICMPV6, MOBILITY, ROUTE_OPTIMISED, UDP

INPUTS = 2_500
SEEDS = (
    rrq(more=NAI + UDP_TUNNEL + AAA + multipath(3, 0x40) + FLOW_BINDING + authenticator(33)),
    rrp(more=UDP_GRANTED + extension(139, bytes(5)) + extension(145, b"\1hello")),
    REVOCATION + authenticator(34),
    update(bid(1) + bid(2, "2001:db8::1") + bytes([45, 12]) + bytes(6) + bytes([2, 4, 0, 1, 0, 2])),
    header(6, struct.pack("!BBHH", 135, 0, 9, 15) + bytes([2, 2, 0, 9, 4, 4, 0, 1, 0, 2])),
    header(3, bytes(18)),
    header(16, struct.pack("!BBHH", 2, 0, 1, 0x8000)),
    advertisement(0xFFFF, (FA, HA), extension(19, b"\x18") + extension(24, b"challenge")),
    bytes(ICMPv6ND_RA() / ICMPv6NDOptPrefixInfo(prefix="2001:db8::")),
)


def everything(data: bytes, missing: int) -> list[Message]:
    return [
        mobileip4.decode(data, missing),
        mobileip6.decode(data, ENDS, missing),
        discovery.decode_icmp(data, 1, missing),
        discovery.decode_icmpv6(data, missing),
    ]


def check(message: Message) -> None:
    """A message is understood, or says why not; its texts stay small and printable."""
    assert (message.kind == "malformed") == bool(message.problem)
    assert message.text.isprintable() and message.text  # noqa: PT018
    assert len(message.text) < 2000
    assert len(message.note) < 1000
    assert len(message.extensions) <= 65
    assert -1 <= message.lifetime_s <= 0xFFFF * 4
    assert 0 <= message.identification < 1 << 64


@settings(max_examples=INPUTS, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 100))
def test_random_bytes_never_raise(data: bytes, missing: int) -> None:
    for message in everything(data, missing):
        check(message)


@settings(max_examples=INPUTS, deadline=None)
@given(st.sampled_from(SEEDS), st.randoms(use_true_random=False), st.integers(0, 60))
def test_mutated_messages_never_raise(seed: bytes, dice: random.Random, missing: int) -> None:
    data = bytearray(seed)
    for _ in range(dice.randrange(1, 6)):
        what, place = dice.randrange(4), dice.randrange(len(data)) if data else 0
        if what == 0 and data:
            data[place] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
        elif what == 1:
            del data[place:]
        elif what == 2:
            data[place:place] = bytes(dice.randrange(1, 9))
        elif data:
            data += data[place : place + 40]
    for message in everything(bytes(data), missing):
        check(message)


Row = tuple[int, int, int, int, bytes]


def table_of_bytes(rows: list[Row]) -> PacketTable:
    """A table without a file. Rows: time, protocol, source code, destination code, payload."""
    table = PacketTable.empty(len(rows))
    for number in range(1, 40):
        table.addresses.code(f"10.0.0.{number}")
    at = 0
    for row, (time_ns, protocol, src, dst, data) in enumerate(rows):
        values = {"time_ns": time_ns, "protocol": protocol, "src": src, "dst": dst, "payload_at": at, "ip_version": 4}
        values |= {"payload_bytes": len(data), "payload_captured": len(data), "ttl": 1}
        values["sport"] = 434 if protocol == UDP else data[2] if protocol == MOBILITY else data[0]
        if protocol in (MOBILITY, ICMPV6):
            values |= {"ip_version": 6, "tunnel": ROUTE_OPTIMISED, "outer_src": dst, "outer_dst": dst}
        for name, value in values.items():
            table[name][row] = value
        at += len(data)
    table.points = (Point("made", "", 101, np.frombuffer(b"".join(row[4] for row in rows), np.uint8)),)
    return table


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_whole_tables_never_raise(dice: random.Random) -> None:
    rows = []
    for _ in range(dice.randrange(1, 30)):
        data = bytearray(dice.choice(SEEDS))
        for _ in range(dice.randrange(3)):
            data[dice.randrange(len(data))] = dice.choice((0, 1, 255, dice.randrange(256)))
        protocol = dice.choice((UDP, MOBILITY, ICMP, ICMPV6))
        moment = dice.choice((0, 1, 10**9, 2**62, -(2**62), dice.randrange(10**10)))
        rows.append((moment, protocol, dice.randrange(1, 5), dice.randrange(1, 5), bytes(data)))
    found = read_mobility(table_of_bytes(rows))
    assert found.messages["time_ns"].is_monotonic_increasing
    assert (found.bindings["to_ns"] >= found.bindings["from_ns"]).all()
    assert (found.registrations["request_row"] < len(rows)).all()


def test_a_flood_of_one_source_hides_nobody_else() -> None:
    flood = [(n, UDP, 1, 2, rrq(ident=n)) for n in range(3000)]
    others = [(5000 + n, UDP, 3 + n, 2, rrq(COA1, ident=9)) for n in range(10)]
    found = read_mobility(table_of_bytes(flood + others), limit=100)
    assert found.left_out == 3010 - len(found.messages)
    assert (len(found.messages), found.messages["src"].nunique()) == (100, 11)
    assert found.messages["row"].tolist() == [*range(90), *range(3000, 3010)]


def test_fair_share_with_more_sources_than_room() -> None:
    rows = np.arange(50)
    assert fair_share(rows, rows, 20).tolist() == list(range(20))
    assert fair_share(rows, rows, 50).tolist() == rows.tolist()


def flood(size: int) -> list[list[Row]]:
    """Messages full of extensions, replies to one number, simultaneous bindings: each a way to make work grow."""
    full = rrq(more=b"".join(long_extension(154, 2, bytes([1, 1, 1, 1]) + bytes(4)) for _ in range(60)))
    many = [(n, UDP, 1, 2, full) for n in range(size // 8)]
    legs = [(n, UDP, 1 + n % 30, 31 + n % 9, rrq()) for n in range(size)]
    bound: list[Row] = []
    for n in range(size):
        care_of = f"10.{n >> 8}.{n & 255}.1"
        bound += [(2 * n, UDP, 1, 2, rrq(care_of, n, flags=0xA0)), (2 * n + 1, UDP, 2, 1, rrp(ident=n))]
    revoked: list[Row] = [(10**6 + n, UDP, 2, 1, REVOCATION) for n in range(size)]
    return [many, legs, bound + revoked]


def test_a_flood_costs_work_in_proportion() -> None:
    for few, many in zip(flood(500), flood(2000), strict=True):
        tables = [table_of_bytes(rows) for rows in (few, many)]
        read_mobility(tables[0])  # imports
        little, much = (count_calls(lambda table=table: read_mobility(table)) for table in tables)
        assert much < 6 * little


def test_lengths_up_to_64_kib_are_walked_once() -> None:
    short, long = (rrq()[:24] + extension(255, b"") * count for count in (8_000, 32_000))
    assert mobileip4.decode(long).kind == "malformed"
    assert count_calls(lambda: mobileip4.decode(long)) < 6 * count_calls(lambda: mobileip4.decode(short)) + 100
