"""Connections of several flows, when their data arrived, captures that lack the beginning or packets, and hostile input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from connection_table import CLIENT_KEY, SERVER_KEY, Line, Packets, capable, data_ack, dsn, initial, join, joined, mapping

from analysis.connections import REINJECTION, UNMAPPED, columns, delivery, reconstruct, reconstruct_core
from analysis.connections.columns import names
from analysis.connections.keys import token_of
from analysis.connections.mapping import INVALID
from analysis.packets import PacketTable, merge, read_captures
from analysis.packets.schema import COLUMNS, TCP
from analysis.packets.signals import empty_signals

KERNEL = Path(__file__).parents[3] / "pcaps" / "kernel"


def down(line: Line, ms: float, at: int, size: int, offset: int, taken: bool = True, version: int = 1) -> None:
    """Data of the server, mapped, and its acknowledgment on the subflow."""
    line.send(ms, False, at, size, **mapping(dsn(False, offset, version), at + 1, size))
    if taken:
        line.send(ms + 0.01, True, acked=at + size)


def grown(packets: Packets, up: bool = False, by="acknowledged") -> list[tuple[float, int]]:
    """(ms, bytes) of connection 0, which must agree with the table of connections."""
    core = reconstruct_core(packets.table())
    time_ns, reached = delivery(core, 0, up, by)
    if by == "acknowledged" and reached.size:
        row = core.connections.loc[0]
        way = "up" if up else "down"
        if not row[f"missed_{way}"]:
            assert row[f"delivered_{way}"] == reached[-1]
        if reached.size > 1:
            assert row[f"gap_{way}_ms"] == pytest.approx(np.diff(time_ns).max() / 1e6)
    return list(zip((time_ns / 1e6).tolist(), reached.tolist(), strict=True))


# --- which flows make a connection ---


@pytest.mark.parametrize("version", [1, 0])
def test_joined_flow_belongs_to_the_connection_of_its_token(version):
    packets = Packets()
    initial(packets, version=version)
    joined(packets, 100, version)
    Line(packets, "10.0.2.1 1002", isn=(5, 6)).handshake(200, join(12, 0xABCD), join(16), join(24))
    core = reconstruct_core(packets.table())
    assert core.flows["connection"].tolist() == [0, 0, 1]
    assert core.flows["subflow"].tolist() == [0, 1, 0]
    assert core.flows["client_id"].tolist() == [0, 1, 0]
    first = core.connections.loc[0]
    assert (first["version"], first["subflows"], first["keys"]) == (version, 2, "verified")
    assert (first["client_key"], first["server_key"]) == (CLIENT_KEY, SERVER_KEY)
    assert (first["client_token"], first["server_token"]) == (token_of(CLIENT_KEY, version), token_of(SERVER_KEY, version))
    assert (first["client_idsn"], first["server_idsn"]) == (dsn(True, 0, version), dsn(False, 0, version))
    assert core.connections["keys"].tolist()[1] == "none"
    assert core.flows["join"].tolist()[0] == ""


def test_version_0_places_data_by_sha1():
    packets = Packets()
    line = initial(packets, version=0)
    down(line, 50, 0, 1000, 0, version=0)
    core = reconstruct_core(packets.table())
    assert core.segments["begin"].tolist() == [0]
    assert core.connections.loc[0, "keys"] == "verified"


def test_join_opened_by_the_server():
    packets = Packets()
    line = initial(packets)
    down(line, 50, 0, 1000, 0)
    back = Line(packets, "10.0.0.9 6001", "10.0.1.1 40002", (700, 300))
    back.handshake(100, join(12, token_of(CLIENT_KEY)), join(16), join(24))
    back.send(150, True, 0, 500, **mapping(dsn(False, 1000), 1, 500))
    core = reconstruct_core(packets.table())
    assert core.flows["opened_by_client"].tolist() == [True, False]
    assert core.flows["client"].tolist() == ["10.0.0.1", "10.0.0.9"]
    assert core.flows["payload_down"].tolist() == [1000, 500]
    assert core.segments["up"].tolist() == [False, False]
    assert core.segments["begin"].tolist() == [0, 1000]


def test_unknown_joins_are_grouped_by_token():
    packets = Packets()
    for number, token in enumerate((7, 8, 7)):
        line = Line(packets, f"10.0.{number}.1 100{number}", isn=(number, 99))
        line.handshake(100 * number, join(12, token), join(16), join(24))
    core = reconstruct_core(packets.table())
    assert core.flows["connection"].tolist() == [0, 1, 0]
    assert core.flows["subflow"].tolist() == [0, 0, 1]
    assert core.connections["transport"].tolist() == ["mptcp", "mptcp"]


def test_of_two_connections_with_the_same_key_the_running_one_is_joined():
    packets = Packets()
    initial(packets, 0, client="10.0.0.1 1", isn=(1, 2))
    initial(packets, 1000, client="10.0.0.1 2", isn=(3, 4))
    joined(packets, 500, client="10.0.1.1 3")
    joined(packets, 1500, client="10.0.1.1 4", isn=(5, 6))
    core = reconstruct_core(packets.table())
    assert dict(zip(core.flows["client_port"].tolist(), core.flows["connection"].tolist(), strict=True)) == {
        1: 0,
        2: 1,
        3: 0,
        4: 1,
    }


def test_connections_do_not_span_capture_points():
    packets = Packets(interfaces=2)
    for interface in (0, 1):
        before = len(packets.rows)
        initial(packets, interface)
        joined(packets, 100 + interface)
        for row in packets.rows[before:]:
            row["interface"] = interface
    core = reconstruct_core(packets.table(), [0, 1])
    assert core.flows["connection"].tolist() == [0, 1, 0, 1]
    assert core.connections["point"].tolist() == [0, 1]
    assert core.flows["point"].tolist() == [0, 1, 0, 1]


def test_wrong_keys_do_not_misplace_data():
    """Somebody replaced the keys in the capture: the data begins at the first number seen."""
    packets = Packets()
    line = initial(packets)
    for n in range(3):
        line.send(50 + n, False, n * 1000, 1000, **mapping(12345 + n * 1000, n * 1000 + 1, 1000))
    core = reconstruct_core(packets.table())
    assert core.connections.loc[0, ["keys", "transport", "server_idsn"]].tolist() == ["wrong", "mptcp", 12345]
    assert core.segments["begin"].tolist() == [0, 1000, 2000]


def test_flows_table():
    packets = Packets()
    line = initial(packets)
    line.send(50, True, 0, 100, **mapping(dsn(True, 0), 1, 100))
    line.send(51, True, 200, 100, **mapping(dsn(True, 200), 201, 100))
    line.send(52, True, 100, 100, **mapping(dsn(True, 100), 101, 100))
    line.send(60, False, acked=300)
    line.send(70, True, 300, flags="FA")
    line.send(80, False, 0, acked=301, flags="FA")
    flow = reconstruct_core(packets.table()).flows.loc[0]
    assert (flow["established_ns"], flow["handshake_ms"], flow["end"]) == (20_000_000, 20.0, "fin")
    assert (flow["packets_up"], flow["packets_down"], flow["payload_up"], flow["out_of_order_up"]) == (6, 3, 300, 1)
    assert (flow["overhead_up"], flow["client_isn"], flow["server_isn"]) == (6 * 52, 1000, 2_000_000)


@pytest.mark.parametrize(("flags", "end"), [((), "open"), (("FA",), "fin"), (("R",), "reset"), (("FA", "R"), "reset")])
def test_how_a_flow_ends(flags, end):
    packets = Packets()
    line = Line(packets)
    line.handshake(0)
    for number, flag in enumerate(flags):
        line.send(50 + number, True, number, flags=flag)
    assert reconstruct_core(packets.table()).flows.loc[0, "end"] == end


# --- when data arrived ---


def test_a_hole_delays_what_follows():
    packets = Packets()
    line = Line(packets)
    line.handshake(0)
    for ms, at in ((40, 0), (50, 2000), (60, 1000), (70, 3000)):
        line.send(ms, False, at, 1000)
        line.send(ms + 0.1, True, acked=at + 1000)
    assert grown(packets) == [(40, 1000), (60, 3000), (70, 4000)]


def test_subflow_delivers_in_its_own_order():
    """A subflow's later bytes wait for its hole even when their data sequence numbers would fit."""
    packets = Packets()
    line, other = initial(packets), joined(packets, 40)
    down(line, 100, 1000, 1000, 1000)
    down(other, 110, 0, 1000, 0)
    down(line, 120, 0, 1000, 0)
    assert grown(packets) == [(110, 1000), (120, 2000)]


def test_segments_that_the_host_discarded_have_not_arrived():
    packets = Packets()
    line, other = initial(packets), joined(packets, 40)
    down(line, 100, 0, 1000, 0)
    down(line, 110, 1000, 1000, 1000, taken=False)
    down(other, 500, 0, 1000, 1000)
    assert grown(packets) == [(100, 1000), (500, 2000)]
    assert grown(packets, by="arrival") == [(100, 1000), (110, 2000)]


def test_data_acknowledged_though_its_subflow_fell_silent():
    packets = Packets()
    line, other = initial(packets), joined(packets, 40)
    down(line, 100, 0, 1000, 0)
    down(line, 110, 1000, 1000, 1000, taken=False)
    down(other, 500, 0, 1000, 2000)
    other.send(501, True, acked=1000, **data_ack(dsn(False, 3000)))
    assert grown(packets) == [(100, 1000), (110, 2000), (500, 3000)]


def test_a_receiver_that_takes_data_behind_a_hole_of_its_subflow():
    """A proxy passes segments on as they come. The subflow's hole is never closed: what it lacks comes by another subflow."""
    packets = Packets()
    line, other = initial(packets), joined(packets, 40)
    down(line, 100, 0, 1000, 0)
    down(line, 120, 2000, 1000, 2000, taken=False)
    down(other, 300, 0, 1000, 1000)
    other.send(301, True, acked=1000, **data_ack(dsn(False, 3000)))
    assert grown(packets) == [(100, 1000), (300, 3000)]


def test_without_the_receivers_packets_all_that_was_sent_counts():
    packets = Packets()
    line = Line(packets)
    line.handshake(0)
    del packets.rows[1:]
    line.send(40, True, 0, 1000)
    line.send(50, True, 1000, 1000)
    packets.rows[1]["flags"] = packets.rows[2]["flags"] = 16
    row = reconstruct_core(packets.table()).connections.loc[0]
    assert (row["delivered_up"], row["gap_up_ms"]) == (2000, 10.0)


def test_out_of_order_depth():
    packets = Packets()
    line, other = initial(packets), joined(packets, 40)
    down(other, 100, 0, 3000, 1000)
    down(other, 101, 3000, 500, 6000)
    down(line, 110, 0, 1000, 0)
    row = reconstruct_core(packets.table()).connections.loc[0]
    assert (row["depth_down"], row["depth_up"], row["delivered_down"]) == (3500, 0, 4000)


# --- captures that lack something ---


def test_what_the_capture_missed_counts_from_its_acknowledgment_on():
    packets = Packets()
    line = Line(packets)
    line.handshake(0)
    for n in range(10):
        if n not in (3, 4, 9):
            line.send(40 + n, False, n * 1000, 1000)
        line.send(100 + n, True, acked=n * 1000 + 1000)
    core = reconstruct_core(packets.table())
    row = core.connections.loc[0]
    assert (row["bytes_down"], row["missed_down"], row["delivered_down"]) == (7000, 2000, 3000)
    assert row["depth_down"] == 4000
    assert grown(packets)[-2:] == [(42, 3000), (104, 9000)]


def test_of_a_hole_only_the_acknowledged_part_was_missed():
    packets = Packets()
    line = Line(packets)
    line.handshake(0)
    for at in (0, 3000):
        line.send(40 + at / 1000, False, at, 1000)
    line.send(50, True, acked=2000)
    core = reconstruct_core(packets.table())
    assert core.connections.loc[0, ["missed_down", "delivered_down"]].tolist() == [1000, 1000]
    assert grown(packets) == [(40, 1000), (50, 2000)]


def test_missed_bytes_of_a_subflow():
    packets = Packets()
    line, other = initial(packets), joined(packets, 40)
    for n in range(6):
        flow, at = (line, other)[n % 2], n // 2 * 1000
        if n != 2:
            down(flow, 100 + n, at, 1000, n * 1000, taken=False)
        flow.send(200 + n, True, acked=at + 1000, **data_ack(dsn(False, n * 1000 + 1000)))
    assert grown(packets) == [(100, 1000), (101, 2000), (202, 6000)]


def test_a_hole_that_is_filled_later_was_not_missed():
    """Whatever the acknowledgments say: the segment is in the capture."""
    packets = Packets()
    line = Line(packets)
    line.handshake(0)
    for ms, at in ((40, 0), (50, 2000), (80, 1000)):
        line.send(ms, False, at, 1000)
    line.send(60, True, acked=3000)
    assert grown(packets) == [(40, 1000), (80, 3000)]


def test_capture_that_begins_in_mid_connection():
    """The first byte seen is position 0; what was sent before it has no place."""
    packets = Packets()
    line = Line(packets, server="10.0.0.9 80")
    line.send(0, True, 500)
    line.send(1, False, 70_000, 1000, **mapping(2**40, 69_001, 3000))
    line.send(2, False, 71_000, 1000, **mapping(2**40, 69_001, 3000))
    line.send(3, False, 68_000, 1000, **mapping(2**40 - 1000, 68_001, 1000))
    line.send(4, True, 500, acked=72_000, **data_ack(2**40 + 3000))
    core = reconstruct_core(packets.table())
    row = core.connections.loc[0]
    assert (row["transport"], row["version"], row["keys"], row["server_idsn"]) == ("mptcp", -1, "none", 2**40 + 1000)
    assert core.segments["begin"].tolist() == [0, 1000, -1]
    assert core.segments["flow_begin"].tolist() == [0, 1000, -2000]
    assert (row["bytes_down"], row["payload_down"], row["delivered_down"]) == (2000, 3000, 2000)
    assert core.acks["data_ack"].tolist()[-1] == 2000


def test_keep_alive_probe_is_no_data():
    packets = Packets()
    line = Line(packets)
    line.handshake(0)
    line.send(1000, True, -1, 1)
    line.send(1010, False)
    line.send(2000, True, 0, 100)
    line.send(2010, False, acked=100)
    assert grown(packets, up=True) == [(2000, 100)]


def test_subflows_without_keys_are_brought_together_by_their_numbers():
    packets = Packets()
    one, two, stranger = (Line(packets, f"10.0.{n}.1 100{n}", isn=(n, n + 50)) for n in range(3))
    turned = Line(packets, "10.0.0.9 50000", "10.0.3.1 80", isn=(8, 9))  # its ports suggest the wrong client
    for number, (line, base) in enumerate(((one, 2**50), (two, 2**50 + 5000), (stranger, 2**60))):
        line.send(number, False, 0, 1000, **mapping(base, 1, 1000))
        line.send(number + 0.5, True, acked=1000, **data_ack(base + 1000))
        line.send(number + 0.6, False, 1000, **data_ack(2**55 + 7))
    turned.send(10, True, 0, 1000, **mapping(2**50 + 6000, 1, 1000))
    turned.send(11, False, 0, 0, **data_ack(2**50 + 7000))
    turned.send(12, True, 1000, 0, **data_ack(2**55 + 7))
    core = reconstruct_core(packets.table())
    assert core.flows["connection"].tolist() == [0, 0, 1, 0]
    assert core.flows["opened_by_client"].tolist() == [True, True, True, False]
    assert core.connections["keys"].tolist() == ["none", "none"]
    assert core.segments[core.segments["connection"] == 0]["begin"].tolist() == [0, 5000, 6000]


# --- real captures ---


def kernel_captures():
    """(scenario, capture point)."""
    for path in sorted(KERNEL.glob("*.json")):
        facts = json.loads(path.read_text())
        for point in sorted({capture["point"] for capture in facts["captures"]}):
            yield path.stem, point


@pytest.mark.parametrize(("scenario", "point"), list(kernel_captures()))
def test_bytes_are_those_of_the_sockets(scenario, point):
    """What the programs sent and received, by their own count; of an aborted connection the last bytes may be lost."""
    facts = json.loads((KERNEL / f"{scenario}.json").read_text())
    files = [KERNEL / capture["file"] for capture in facts["captures"] if capture["point"] == point]
    core = reconstruct_core(merge(read_captures(files)))
    told = core.connections
    for connection in facts["connections"]:
        client, server = connection["client"], connection["server"]
        row = told[told["client_port"] == client["local"][1]] if not scenario.startswith("nat") else told
        assert len(row) == 1
        one = row.iloc[0]
        assert (one["bytes_up"], one["bytes_down"]) == (client["sent_bytes"], server["sent_bytes"])
        whole = client["end"] == "eof"
        received = one["delivered_up"], one["delivered_down"]
        assert not whole or received == (server["received_bytes"], client["received_bytes"])
        token = (client.get("kernel") or {}).get("token")
        assert token is None or one["transport"] == "tcp" or token == one["client_token"]
    assert (core.segments["kind"] == UNMAPPED).any() == (scenario.startswith("strip-joined") and point == "client")


# --- against a slow model, and hostile input ---


def slow_model(core) -> list[tuple[int, bool]]:
    """New bytes and whether something was sent before on the data level, by sets."""
    seen: dict[tuple[int, bool], set[int]] = {}
    out = []
    names = ("connection", "up", "begin", "end")
    for connection, up, begin, end in zip(*(core.segments[name].tolist() for name in names), strict=True):
        have = seen.setdefault((connection, up), set())
        fresh = set(range(max(begin, 0), max(end, 0))) - have
        have |= fresh
        out.append(len(fresh))
    return out


@pytest.mark.parametrize("seed", range(12))
def test_random_transfers_against_sets(seed):
    """Two subflows, reordering, retransmission and reinjection of small segments, mappings of several segments."""
    rng = np.random.default_rng(seed)
    packets = Packets()
    flows = [initial(packets), joined(packets, 40)]
    sent: list[list[tuple[int, int]]] = [[], []]  # (position in the subflow, data offset) of each segment of 10 bytes
    plan = [(int(rng.integers(2)), n * 10) for n in range(150)]
    plan += [(int(rng.integers(2)), int(rng.integers(150)) * 10) for _ in range(40)]
    events = []
    for index, (flow, offset) in enumerate(plan):
        place = len(sent[flow]) * 10
        sent[flow].append((place, offset))
        for _ in range(1 + (rng.random() < 0.1)):
            events.append((100 + index + rng.random() * 20 * (rng.random() < 0.3), flow, place, offset))
    for ms, flow, place, offset in sorted(events):
        flows[flow].send(ms, False, place, 10, **mapping(dsn(False, offset), place + 1, 10, wide=bool(rng.integers(2))))
    core = reconstruct_core(packets.table())
    placed = {(flow, place): offset for flow in (0, 1) for place, offset in sent[flow]}
    segments = core.segments
    wanted = [placed[key] for key in zip(segments["flow"].tolist(), segments["flow_begin"].tolist(), strict=True)]
    assert segments["begin"].tolist() == wanted
    assert segments["new_bytes"].tolist() == slow_model(core)
    row = core.connections.loc[0]
    assert row["bytes_down"] == 1500
    assert row["duplicate_down"] == row["payload_down"] - 1500
    unique = core.flows["unique_down"].sum()
    assert row["reinjected_down"] == unique - 1500
    assert (segments["kind"] == REINJECTION).sum() * 10 == unique - 1500


def hostile_table(seed: int, count: int = 3000) -> PacketTable:
    """Random fields in few flows, with numbers around every edge."""
    rng = np.random.default_rng(seed)
    table = PacketTable.empty(count)
    codes = [table.addresses.code(f"10.0.0.{n}") for n in range(1, 4)]
    for column in COLUMNS:
        kind = np.dtype(column.kind)
        if kind.kind == "u":
            top = np.iinfo(kind).max
            edges = np.array([0, 1, 2, top, top - 1, top // 2, top // 2 + 1], np.uint64)
            near = rng.integers(0, 5000, count, dtype=np.uint64) % (top + 1 if top < 2**64 - 1 else top)
            wild = rng.integers(0, top, count, dtype=np.uint64, endpoint=True)
            values = np.choose(rng.integers(0, 3, count), [edges[rng.integers(0, edges.size, count)], near, wild])
            table.columns[column.name][:] = values.astype(kind)
    table.columns["time_ns"][:] = np.sort(rng.integers(0, 10**9, count))
    table.columns["protocol"][:] = TCP
    table.columns["problems"][:] = 0
    table.columns["interface"][:] = rng.integers(0, 2, count)
    table.columns["src"][:], table.columns["dst"][:] = rng.choice(codes, count), rng.choice(codes, count)
    table.columns["sport"][:], table.columns["dport"][:] = rng.integers(1, 3, count), rng.integers(1, 3, count)
    table.columns["flags"][:] = rng.choice([2, 18, 16, 16, 16, 16, 24, 17, 4, 20, 255], count)
    table.columns["dss_flags"][:] = rng.integers(0, 32, count)
    options = 400
    table.signals = empty_signals(options)
    table.signals["row"][:] = np.sort(rng.integers(0, count, options))
    table.signals["subtype"][:] = rng.integers(0, 10, options)
    table.signals["length"][:] = rng.choice([4, 12, 16, 20, 22, 24, 3, 40], options)
    for name, top in (("version", 3), ("sender_key", 3), ("receiver_key", 3), ("data_bytes", 2000), ("address_id", 256)):
        table.signals[name][:] = rng.integers(0, top, options)
    tokens = [token_of(1), token_of(2), token_of(1, 0), 7]
    table.signals["token"][:] = rng.choice(tokens, options)
    table.signals["hmac_bytes"][:] = rng.choice([0, 8, 20], options)
    table.signals["hmac_at"][:] = np.where(table.signals["hmac_bytes"] > 0, 4, 0)
    return table


@pytest.mark.parametrize("seed", range(40))
def test_hostile_tables_keep_their_books(seed):
    core = reconstruct_core(hostile_table(seed), [0, seed % 2])
    segments, flows, connections = core.segments, core.flows, core.connections
    size = segments["flow_end"] - segments["flow_begin"]
    assert (size > 0).all()
    assert ((segments["new_bytes"] >= 0) & (segments["new_bytes"] <= size)).all()
    assert ((segments["end"] - segments["begin"] <= size) & (segments["end"] >= segments["begin"])).all()
    assert segments["row"].is_monotonic_increasing
    used = core.packets["payload_bytes"][segments["row"].unique()]
    assert used.sum() == size.sum()
    for way in ("up", "down"):
        assert flows[f"payload_{way}"].sum() == connections[f"payload_{way}"].sum()
        assert (connections[f"delivered_{way}"] <= connections[f"bytes_{way}"]).all()
        assert (connections[f"duplicate_{way}"] >= 0).all()
        assert (flows[f"unique_{way}"] <= flows[f"payload_{way}"]).all()
        assert (connections[f"depth_{way}"] >= 0).all()
    assert flows["connection"].max() == len(connections) - 1
    assert (core.acks["data_ack"] >= -1).all()
    assert (core.acks["data_ack"] < -(INVALID // 2)).all()
    for connection in connections.index[:5]:
        for up in (True, False):
            time_ns, reached = delivery(core, connection, up)
            assert (np.diff(time_ns) > 0).all()
            assert (np.diff(reached, prepend=0) > 0).all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_tables_of_almost_nothing(count):
    core = reconstruct(hostile_table(5, count=3000).take(np.arange(count)))
    assert len(core.flow) == count
    assert list(core.segments.columns) == list(reconstruct_core(PacketTable.empty()).segments.columns)


def test_columns_are_those_described():
    packets = Packets()
    down(initial(packets), 50, 0, 1000, 0)
    core = reconstruct_core(packets.table())
    for table in ("flows", "connections", "segments", "acks"):
        assert sorted(getattr(core, table).columns) == sorted(names(getattr(columns, table.upper())))


def test_capable_twice_is_not_an_answer():
    packets = Packets()
    line = Line(packets)
    line.handshake(0, capable(length=4), capable(length=4), None)
    assert reconstruct_core(packets.table()).connections.loc[0, "fallback"] == "the SYN/ACK carried no MP_CAPABLE"


# --- which of several copies the receiver took ---


def copies(needed: bool, at_receiver: bool = True) -> list[tuple[float, int]]:
    """Bytes 1000 to 2000 come behind a hole at 20 ms, and again on another subflow at 60 ms; the missing ones there at 50 ms.
    All is acknowledged at once then, or after the second copy when that was `needed`. Growth in (ms, bytes)."""
    packets = Packets()
    first = initial(packets)
    second = joined(packets, 5)
    first.send(20, False, 1000, 1000, **mapping(dsn(False, 1000), 1001, 1000))
    second.send(50, False, 0, 1000, **mapping(dsn(False, 0), 1, 1000))
    second.send(50.01, True, acked=1000, **data_ack(dsn(False, 1000 if needed else 2000)))
    second.send(60, False, 1000, 1000, **mapping(dsn(False, 1000), 1001, 1000))
    second.send(60.01, True, acked=2000, **data_ack(dsn(False, 2000)))
    core = reconstruct_core(packets.table())
    time_ns, reached = delivery(core, 0, False, at_receiver=at_receiver)
    return list(zip((time_ns / 1e6).tolist(), reached.tolist(), strict=True))


def test_a_copy_that_came_after_the_acknowledgment_was_not_needed():
    assert copies(needed=False) == [(50, 2000)]


def test_a_copy_that_fills_nothing_until_the_next_one_comes_was_not_taken():
    assert copies(needed=True) == [(50, 1000), (60, 2000)]


@pytest.mark.parametrize(("answer_ms", "taken_ms"), [(250.0, 60), (2.0, 500)])
def test_a_late_copy_that_nobody_answers_proves_nothing(answer_ms, taken_ms):
    """A host that has lost its address takes data and cannot say so; that is repeated at 500 ms. What it answers then, it took
    then."""
    packets = Packets()
    first = initial(packets)
    second = joined(packets, 5)
    first.send(50, False, 0, 1000, **mapping(dsn(False, 0), 1, 1000))
    first.send(50.01, True, acked=1000, **data_ack(dsn(False, 1000)))
    first.send(60, False, 1000, 1000, **mapping(dsn(False, 1000), 1001, 1000))
    first.send(500, False, 1000, 1000, **mapping(dsn(False, 1000), 1001, 1000))
    second.send(500 + answer_ms, True, **data_ack(dsn(False, 2000)))
    time_ns, reached = delivery(reconstruct_core(packets.table()), 0, False, at_receiver=True)
    assert list(zip((time_ns / 1e6).tolist(), reached.tolist(), strict=True)) == [(50, 1000), (taken_ms, 2000)]


def test_elsewhere_on_the_path_the_acknowledged_copy_counts():
    assert copies(needed=False, at_receiver=False) == [(50, 1000), (60, 2000)]
