"""Hand-made packets -> the reconstruction -> the metrics of one direction of a connection, computed by hand."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis.connections import delivery, reconstruct
from analysis.measures import measure_all, measure_stream, observe
from analysis.measures.roundtrips import flow_round_trip
from analysis.packets import read_capture
from tests.unit.analysis.connections.connection_scene import (
    CLIENT_KEY,
    SERVER_KEY,
    START_NS,
    Scene,
    dss,
    first_dsn,
    prio,
    remove_addr,
    timestamps,
)

SIZE = 1000
KERNEL = sorted((Path(__file__).parents[3] / "pcaps" / "kernel").glob("*.pcapng.gz"))


class Transfer:
    """A stream over subflows, up or down, every segment acknowledged 1 ms later unless told otherwise."""

    def __init__(self, up=False, mptcp=True, **places):
        self.scene, self.up, self.mptcp = Scene(), up, mptcp
        self.lines = [self.scene.initial(0, **places) if mptcp else self.scene.line(**places)]
        if not mptcp:
            self.lines[0].handshake(0)
        self.sent = [0, 0, 0]  # bytes of each subflow's own stream
        self.dsn = first_dsn(CLIENT_KEY if up else SERVER_KEY)

    def join(self, ms, client="10.0.2.1:1001", isn=(5000, 6000)):
        self.lines.append(self.scene.line(client, isn=isn))
        self.lines[-1].join(ms)

    def put(self, ms, number, subflow=0, place=None, acked=True, options=b"", reached=None):
        """Segment `number` of the stream; `place`: its number in the subflow, when that is sent once more."""
        at = self.sent[subflow] if place is None else place * SIZE
        self.sent[subflow] = max(self.sent[subflow], at + SIZE)
        mapping = dss(None, self.dsn + number * SIZE, at + 1, SIZE) if self.mptcp else b""
        self.lines[subflow].send(ms, self.up, at=at + 1, size=SIZE, options=options + mapping)
        if acked:
            top = number if reached is None else reached
            answer = dss(self.dsn + (top + 1) * SIZE) if self.mptcp else b""
            self.lines[subflow].send(ms + 1, not self.up, acked=self.sent[subflow] + 1, options=answer)

    def run(self, first, last, every_ms=10, start_ms=100, **options):
        for number in range(first, last):
            self.put(start_ms + (number - first) * every_ms, number, **options)

    def rec(self):
        return reconstruct(self.scene.table())

    def measure(self, events_s=(), **options):
        return measure_stream(self.rec(), 0, self.up, events_s, START_NS, **options)


def phases(row):
    return tuple(row[name] for name in ("recovery_ms", "detect_ms", "register_ms", "join_ms", "resume_ms", "signal"))


def break_before_make(up):
    """The first path ends at 1 s; the next one is joined at 1.1 s and carries data from 1.2 s on."""
    transfer = Transfer(up)
    transfer.run(0, 90)  # until 990 ms
    transfer.join(1100)  # SYN/ACK at 1105, third ACK at 1110
    transfer.lines[1].send(1125, False, options=dss(first_dsn(CLIENT_KEY)))
    transfer.run(90, 150, start_ms=1200, subflow=1)
    return transfer


# --- disruption ------------------------------------------------------------------------------------------------------


def test_break_before_make_download():
    found = break_before_make(up=False).measure([1.0], complete=True)
    [row] = found["handovers"]
    assert phases(row) == (200, 100, None, 10, 90, "MP_JOIN SYN")  # the third ACK lets the server send
    assert (row["event_s"], row["interruption_ms"]) == (1.0, 210)
    assert (found["gap_ms"], found["gap_start_s"], found["delivered_bytes"]) == (210, 0.99, 150 * SIZE)
    assert (found["stalls"], found["stall_total_ms"], found["stall_threshold_ms"]) == (1, 210, 200)


def test_break_before_make_upload():
    [row] = break_before_make(up=True).measure([1.0], complete=True)["handovers"]
    assert phases(row) == (200, 100, None, 25, 75, "MP_JOIN SYN")  # the client has to wait for the fourth ACK


def test_a_join_that_fails_is_no_phase():
    transfer = Transfer()
    transfer.run(0, 90)
    transfer.scene.line("10.0.2.1:1001").send(1050, True, "S", 0, options=b"\x1e\x0c\x10\x01" + bytes(8))
    transfer.run(90, 150, start_ms=1200)
    [row] = transfer.measure([1.0], complete=True)["handovers"]
    assert phases(row)[:1] == (200,)
    assert row["join_ms"] is None


def test_the_other_subflow_takes_over():
    transfer = Transfer()
    transfer.join(20)
    transfer.run(0, 90)
    transfer.lines[1].send(1040, True, options=remove_addr(0))
    transfer.lines[1].send(1080, True, options=prio(False))
    transfer.run(90, 150, start_ms=1200, subflow=1)
    [row] = transfer.measure([1.0], complete=True)["handovers"]
    assert phases(row) == (200, 40, None, None, 160, "REMOVE_ADDR")
    assert row["why"] == {"register": "no registration", "join": "no MP_JOIN"}


def test_plain_tcp_detects_by_its_first_retransmission():
    transfer = Transfer(mptcp=False)
    transfer.run(0, 90)
    transfer.put(1300, 89, place=89)
    transfer.run(90, 150, start_ms=1310)
    [row] = transfer.measure([1.0], complete=True)["handovers"]
    assert phases(row) == (310, 300, None, None, 10, "retransmission")


def test_a_signal_after_the_next_event_answers_that_one():
    transfer = Transfer()
    transfer.join(20)
    transfer.run(0, 90)
    transfer.lines[1].send(2040, True, options=prio(False))
    transfer.run(90, 150, start_ms=2100, subflow=1)
    first, second = transfer.measure([1.0, 2.0], complete=True)["handovers"]
    assert phases(first) == (1100, None, None, None, 1100, None)
    assert phases(second) == (100, 40, None, None, 60, "MP_PRIO")


def test_a_join_after_the_next_event_answers_that_one():
    first, second = break_before_make(up=False).measure([1.0, 1.05], complete=True)["handovers"]
    assert phases(first) == (200, None, None, None, 200, None)
    assert phases(second) == (150, 50, None, 10, 90, "MP_JOIN SYN")


def test_no_interruption():
    transfer = Transfer()
    transfer.run(0, 200)
    [row] = transfer.measure([1.0], complete=True)["handovers"]
    assert (row["recovery_ms"], row["interruption_ms"], set(row["why"].values())) == (0, None, {"no interruption"})


def test_a_connection_that_never_recovers():
    transfer = Transfer(mptcp=False)
    transfer.run(0, 90)
    found = transfer.measure([1.0], complete=False, ended_s=10.0, recovery_s=5.0)
    assert (found["gap_ms"], found["gap_at_least_ms"]) == (None, pytest.approx(5010))
    [row] = found["handovers"]
    assert (row["recovery_ms"], row["at_least_ms"], row["resume_ms"]) == (None, 5010, None)


def mobility(requests, present=True):
    """Tables of Mobile IP: (sent, accepted or -1, kind) in ms."""
    sent, accepted, kind = zip(*requests, strict=True)
    time_ns = START_NS + np.array(sent, np.int64) * 10**6
    answers = np.where(np.array(accepted) < 0, -1, START_NS + np.array(accepted, np.int64) * 10**6)
    messages = pd.DataFrame({"time_ns": time_ns, "kind": "RRQ", "copy": False, "row": range(len(requests))})
    table = pd.DataFrame({"sent_ns": time_ns, "accepted_ns": answers, "kind": kind})
    return SimpleNamespace(messages=messages, registrations=table, present=present)


def test_mobile_ip_registers():
    transfer = Transfer(mptcp=False)
    transfer.run(0, 90)
    transfer.run(90, 150, start_ms=1500)
    tables = mobility(
        [(500, 520, "registration"), (1050, 1060, "refresh"), (1100, -1, "registration"), (1200, 1250, "registration")]
    )
    found = transfer.measure([1.0], complete=True, mobility=tables)
    assert phases(found["handovers"][0]) == (500, 50, 150, None, 300, "RRQ")
    assert found["mobility_bytes"] > 0
    absent = transfer.measure([1.0], complete=True, mobility=mobility([(1100, 1200, "registration")], present=False))
    assert phases(absent["handovers"][0]) == (500, None, None, None, 500, None)


# --- loss, repetitions, order ------------------------------------------------------------------------------------------


def reinjecting(lossy):
    """Segments 10 to 12 go over the first subflow; 10 and 11 again over the other, 11 there twice. `lossy`: the receiver's
    capture, which the first copies of 10 and 11 did not reach."""
    transfer = Transfer()
    transfer.join(20)
    transfer.run(0, 10)
    transfer.sent[0] = 10 * SIZE
    for number in (10, 11, 12):
        if lossy and number < 12:
            transfer.sent[0] += SIZE
        else:
            transfer.put(200 + number, number, acked=False)
    transfer.put(300, 10, 1, reached=10)
    transfer.put(310, 11, 1, acked=False)
    transfer.put(400, 11, 1, place=1, reached=11)
    transfer.put(410, 10, 0, place=10, acked=False)
    transfer.put(420, 11, 0, place=11, reached=12)
    transfer.put(430, 13, 0)
    return transfer


def test_repetitions_at_the_sender():
    found = reinjecting(lossy=False).measure(point="sender")
    assert (found["payload_bytes"], found["delivered_bytes"]) == (19 * SIZE, 14 * SIZE)
    assert (found["retransmitted_bytes"], found["reinjected_bytes"]) == (3 * SIZE, 2 * SIZE)
    assert found["efficiency"] == pytest.approx(14 / 19, abs=1e-6)
    assert (found["lost_bytes"], found["loss_source"], found["duplicate_bytes"]) == (3 * SIZE, "retransmissions", None)


def test_loss_between_sender_and_receiver():
    sender, receiver = reinjecting(lossy=False).rec(), reinjecting(lossy=True).rec()
    found = measure_stream(receiver, 0, False, sent=observe(sender, 0, False))
    assert (found["sent_bytes"], found["lost_bytes"], found["lost_packets"]) == (19 * SIZE, 2 * SIZE, 2)
    assert (found["multiplied_bytes"], found["loss_source"]) == (0, "two capture points")
    assert found["loss_ratio"] == pytest.approx(2 / 19, abs=1e-6)
    assert (found["retransmitted_bytes"], found["retransmissions_seen_at"]) == (3 * SIZE, "sender")
    assert found["duplicate_bytes"] == 3 * SIZE
    assert found["payload_bytes"] + found["lost_bytes"] == found["sent_bytes"]


def test_a_subflow_that_nothing_arrived_on_is_lost_as_a_whole():
    whole, part = Transfer(), Transfer()
    whole.join(20)
    for transfer in (whole, part):
        transfer.run(0, 10)
    whole.run(10, 15, start_ms=150, subflow=1, acked=False)
    found = measure_stream(part.rec(), 0, False, sent=observe(whole.rec(), 0, False))
    assert (found["sent_bytes"], found["lost_bytes"]) == (15 * SIZE, 5 * SIZE)


def test_a_subflow_is_the_same_at_both_points_whatever_its_number():
    sender, receiver = Transfer(), Transfer()
    sender.scene.line("10.0.7.1:7").handshake(-50)  # another connection, so that numbers differ
    sender.join(20)  # this one did not get through
    sender.run(10, 13, start_ms=250, subflow=1, acked=False)
    for transfer in (sender, receiver):
        transfer.join(40, "10.0.3.1:1002", (7000, 8000))
        transfer.run(0, 10)
        transfer.run(10, 15, start_ms=350, subflow=len(transfer.lines) - 1)
    whole = sender.rec()
    number = int(whole.connections["payload_down"].argmax())
    found = measure_stream(receiver.rec(), 0, False, sent=observe(whole, number, False))
    assert (number, found["sent_bytes"], found["lost_bytes"], found["multiplied_bytes"]) == (1, 18 * SIZE, 3 * SIZE, 0)


def test_packets_that_were_joined_on_the_way_are_not_counted():
    sender, receiver = Transfer(mptcp=False), Transfer(mptcp=False)
    sender.run(0, 10)
    receiver.run(0, 4)
    receiver.lines[0].send(200, False, at=4 * SIZE + 1, size=5 * SIZE)
    found = measure_stream(receiver.rec(), 0, False, sent=observe(sender.rec(), 0, False))
    assert (found["lost_bytes"], found["lost_packets"]) == (SIZE, None)


def test_what_a_receiver_alone_can_tell_of_loss():
    found = reinjecting(lossy=True).measure()
    assert (found["lost_bytes"], found["lost_packets"]) == (
        2 * SIZE,
        2,
    )  # what filled the hole on subflow 0, a round trip later
    assert (found["reordered_packets"], found["loss_source"]) == (0, "retransmissions")
    assert found["out_of_order_depth_bytes"] == SIZE
    assert found["data_reordered_ratio"] == pytest.approx(2 / 14, abs=1e-6)


def test_reordering_is_not_loss():
    transfer = Transfer(mptcp=False)
    transfer.run(0, 10)
    transfer.put(200, 11, place=11, acked=False, options=timestamps(5))
    transfer.put(202, 10, place=10, reached=11, options=timestamps(4))
    found = transfer.measure()
    assert (found["reordered_packets"], found["reordered_ratio"]) == (1, pytest.approx(1 / 12, abs=1e-6))
    assert (found["reordering_extent_packets"], found["reordering_late_ms"], found["lost_bytes"]) == (1, 2, 0)


# --- bytes -----------------------------------------------------------------------------------------------------------


def test_paths_and_overhead():
    transfer = Transfer(mptcp=False)
    transfer.run(0, 10)
    found = transfer.measure()
    assert found["bytes_per_path"] == {"10.0.9.9 > 10.0.1.1": 10 * SIZE}
    assert found["path_share"] == {"10.0.9.9 > 10.0.1.1": 1.0}
    assert (found["header_bytes"], found["ack_bytes"]) == (10 * 40, 11 * 40)  # the handshake's third ACK is one
    assert (found["signalling_bytes"], found["signalling_packets"], found["options_and_tunnels_bytes"]) == (2 * 40, 2, 0)
    assert found["overhead_bytes"] == 23 * 40
    assert found["overhead_per_byte"] == pytest.approx(23 * 40 / (10 * SIZE))
    assert (found["handshake_ms"], found["rtt_min_ms"]) == (10, None)
    named = transfer.measure(paths={"": "wlan"})
    assert named["bytes_per_path"] == {"wlan": 10 * SIZE}


def test_goodput_of_the_phases():
    transfer = Transfer()
    transfer.run(0, 301)  # 100 ms to 3100 ms, 0.8 Mbit/s
    found = transfer.measure([1.0, 2.0], complete=True)
    names = ("goodput_mbit", "goodput_before_mbit", "goodput_during_mbit", "goodput_after_mbit")
    assert [found[name] for name in names] == pytest.approx([0.8] * 4, rel=0.02)


def test_at_the_ends_data_arrives_with_its_acknowledgment():
    transfer = Transfer()
    transfer.run(0, 20)
    transfer.put(320, 20, acked=False)
    transfer.put(700, 20, place=20)
    found = [transfer.measure(point=point, complete=True) for point in ("sender", "between", "receiver")]
    assert [one["delivered_bytes"] for one in found] == [21 * SIZE] * 3
    # Somewhere on the way the first copy counts; at the receiver it would have been acknowledged if its host had taken it.
    assert [one["stall_longest_ms"] for one in found] == [410, 0, 410]


def test_a_capture_of_one_direction():
    transfer = Transfer(mptcp=False)
    transfer.scene.packets.clear()
    transfer.run(0, 20, acked=False)
    assert transfer.measure()["delivered_bytes"] == 20 * SIZE


@pytest.mark.parametrize("mptcp", [True, False])
def test_the_end_of_the_stream_makes_it_complete(mptcp):
    transfer = Transfer(mptcp=mptcp)
    transfer.run(0, 20)
    transfer.lines[0].send(900, True, "FA")  # the client's own end says nothing about the server's data
    found = transfer.measure()
    assert (found["complete"], found["stall_longest_ms"]) == (False, 610)
    fin = dss(None, transfer.dsn + 20 * SIZE, 0, 1, fin=True) if mptcp else b""
    transfer.lines[0].send(950, False, "A" if mptcp else "FA", at=20 * SIZE + 1, options=fin)
    found = transfer.measure()
    assert (found["complete"], found["stall_longest_ms"]) == (True, 0)


# --- asking ----------------------------------------------------------------------------------------------------------


def test_wrong_questions_are_refused():
    rec = Transfer().rec()
    with pytest.raises(IndexError, match="connection 1: the capture has 1"):
        measure_stream(rec, 1, True)
    with pytest.raises(ValueError, match="point is 'elsewhere': it must be"):
        measure_stream(rec, 0, True, point="elsewhere")


def test_a_direction_without_data():
    found = Transfer().measure([1.0])
    assert (found["gap_ms"], found["goodput_mbit"], found["loss_ratio"], found["overhead_per_byte"]) == (None,) * 4
    assert (found["delivered_bytes"], found["bytes_per_path"]) == (0, {})


def test_every_direction_with_payload_is_measured():
    transfer = Transfer()
    transfer.run(0, 5)
    [found] = measure_all(transfer.rec())
    assert (found["connection"], found["direction"], found["delivered_bytes"]) == (0, "down", 5 * SIZE)


@pytest.mark.parametrize("path", KERNEL[::6], ids=lambda path: path.name)
def test_captures_of_the_kernel_agree_with_the_reconstruction(path):
    rec = reconstruct(read_capture(path).table)
    measured = measure_all(rec)
    assert measured
    for found in measured:
        row, side = rec.connections.iloc[found["connection"]], found["direction"]
        for metric, column in (
            ("delivered_bytes", "delivered"), ("payload_bytes", "payload"), ("duplicate_bytes", "duplicate"),
            ("unmapped_bytes", "unmapped"), ("reinjected_bytes", "reinjected"), ("out_of_order_depth_bytes", "depth"),
        ):  # fmt: skip
            assert found[metric] == row[f"{column}_{side}"], metric
        times, _ = delivery(rec, found["connection"], side == "up", at_receiver=True)
        assert found["stall_longest_ms"] == pytest.approx(_longest_ms(times, found["stall_threshold_ms"]), abs=1e-6)
        assert found["rtt_min_ms"] is None or 20 <= found["rtt_min_ms"] <= found["rtt_median_ms"]
        assert sum(found["bytes_per_path"].values()) == found["payload_bytes"]


@pytest.mark.parametrize("path", KERNEL[::9], ids=lambda path: path.name)
def test_a_gap_is_set_against_the_round_trip_of_its_moment(path):
    rec = reconstruct(read_capture(path).table)
    for found in measure_all(rec, events_s=[0.05]):
        [row] = found["handovers"]
        flows = rec.flow[rec.flow >= 0]
        trips = [flow_round_trip(rec.packets, rows, rec.from_client[rows]) for rows in map(_rows_of(rec), np.unique(flows))]
        least = min((trip.least_ms for trip in trips if trip.least_ms is not None), default=None)
        if row["round_trip_ms"] is None:
            assert row["gap_beyond_round_trip_ms"] is None
            continue
        assert row["round_trip_ms"] >= least
        if row["gap_ms"] is not None:
            assert row["gap_beyond_round_trip_ms"] == pytest.approx(row["gap_ms"] - row["round_trip_ms"], abs=1e-5)


def test_no_round_trip_where_no_data_came():
    transfer = Transfer()
    transfer.run(0, 90)
    [row] = transfer.measure([5.0], complete=True)["handovers"]
    assert (row["round_trip_ms"], row["gap_beyond_round_trip_ms"]) == (None, None)


def _rows_of(rec):
    return lambda number: np.flatnonzero(rec.flow == number)


def _longest_ms(times, threshold_ms):
    steps = np.diff(times) / 1e6
    return steps[steps > threshold_ms].max(initial=0.0)


@pytest.mark.parametrize("seed", range(12))
def test_damaged_captures_are_measured_all_the_same(seed, tmp_path):
    random = np.random.default_rng(seed)
    data = bytearray(gzip.decompress(KERNEL[seed * 7 % len(KERNEL)].read_bytes()))
    for place in random.integers(200, len(data), 10 ** random.integers(1, 5)).tolist():
        data[place] = random.integers(256)
    path = tmp_path / "damaged.pcapng"
    path.write_bytes(data)
    rec = reconstruct(read_capture(path).table)
    for point in ("receiver", "sender", "between"):
        for found in measure_all(rec, events_s=[0.05, 0.2], point=point):
            assert found["lost_bytes"] >= 0
            assert found["retransmitted_bytes"] >= 0
            assert sum(found["bytes_per_path"].values()) == found["payload_bytes"]
            for row in found["handovers"]:
                parts = [row[f"{name}_ms"] or 0 for name in ("detect", "register", "join", "resume")]
                assert row["recovery_ms"] is None or sum(parts) == pytest.approx(row["recovery_ms"], abs=1e-4)
