"""Datagrams at the receiver and the sender -> the metrics of a UDP flow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.measures import Datagrams, datagrams_of, measure_datagrams, unwrap16
from analysis.packets.table import PacketTable, Point

MS = 1_000_000
START = 1_700_000_000_000 * MS


def flow(numbers, at_ms=None, size=160, sent_ms=None):
    number = np.array(numbers, np.int64)
    times = START + (number * 20 if at_ms is None else np.array(at_ms, np.int64)) * MS
    sent = None if sent_ms is None else np.array(sent_ms, np.int64) * MS
    return Datagrams(times, np.full(number.size, size), number, sent)


def test_a_call_with_a_handover():
    arrived = [*range(100), *range(125, 300)]
    found = measure_datagrams(flow(arrived), flow(range(300)), [2.0], START)
    assert (found["sent_datagrams"], found["received_datagrams"], found["lost_datagrams"]) == (300, 275, 25)
    assert (found["loss_ratio"], found["longest_loss_run"]) == (pytest.approx(25 / 300, abs=1e-6), 25)
    assert (found["gap_ms"], found["gap_start_s"]) == (pytest.approx(520), pytest.approx(1.98))
    assert (found["stalls"], found["stall_longest_ms"], found["stall_threshold_ms"]) == (1, pytest.approx(520), 200)
    assert (found["delivered_bytes"], found["duplicate_bytes"]) == (275 * 160, 0)
    assert found["goodput_before_mbit"] == pytest.approx(99 * 160 * 8 / 2e6, rel=0.02)
    assert found["loss_source"] == "two capture points"


def test_second_copies_are_no_new_data_and_no_reordering():
    found = measure_datagrams(flow([0, 1, 1, 2, 4, 3], [0, 20, 21, 40, 60, 65]))
    assert (found["duplicate_datagrams"], found["duplicate_bytes"], found["payload_bytes"]) == (1, 160, 6 * 160)
    assert (found["reordered_packets"], found["reordered_ratio"]) == (1, 0.2)
    assert (found["reordering_extent_packets"], found["reordering_late_ms"]) == (1, 5.0)
    assert (found["lost_datagrams"], found["loss_source"]) == (0, "sequence numbers")


def test_without_numbers_the_counts_remain():
    bare = [Datagrams(f.time_ns, f.payload_bytes) for f in (flow(range(0, 10, 2)), flow(range(10)))]
    found = measure_datagrams(*bare)
    assert (found["lost_datagrams"], found["loss_ratio"], found["loss_source"]) == (5, 0.5, "counts at two capture points")
    assert found["reordered_ratio"] is None
    assert found["duplicate_bytes"] is None
    alone = measure_datagrams(bare[0])
    assert (alone["received_datagrams"], alone["lost_datagrams"], alone["loss_ratio"]) == (5, None, None)


def test_jitter_needs_the_sending_times():
    found = measure_datagrams(flow([0, 1, 2], [100, 136, 140], sent_ms=[0, 20, 40]))
    assert (found["jitter_ms"], found["jitter_max_ms"]) == (pytest.approx(1 * 15 / 16 + 1), pytest.approx(1 * 15 / 16 + 1))
    assert measure_datagrams(flow([0, 1]))["jitter_ms"] is None


def test_nothing_received():
    found = measure_datagrams(flow([]), flow(range(5)), [0.05], START, complete=False, ended_s=3.0)
    assert (found["gap_ms"], found["goodput_mbit"], found["loss_ratio"], found["lost_datagrams"]) == (None, None, 1.0, 5)


def test_datagrams_of_a_packet_table():
    table = PacketTable.empty(4)
    table.points = (Point("f", "mn-wlan", 1), Point("f", "mn-lte", 1))
    table.columns["time_ns"][:] = START + np.arange(4) * 20 * MS
    table.columns["payload_bytes"][:] = [172, 9, 172, 100]
    table.columns["overhead_bytes"][:] = 28
    table.columns["interface"][:] = [0, 0, 1, 1]
    rows = np.array([0, 2, 3])
    found = measure_datagrams(datagrams_of(table, rows, np.arange(3), paths={"mn-wlan": "wlan", "mn-lte": "lte"}))
    assert found["bytes_per_path"] == {"wlan": 172, "lte": 272}
    assert found["path_share"] == {"wlan": pytest.approx(172 / 444, abs=1e-6), "lte": pytest.approx(272 / 444, abs=1e-6)}
    assert (found["overhead_bytes"], found["overhead_per_byte"]) == (84, pytest.approx(84 / 444, abs=1e-6))


@given(st.lists(st.integers(-300, 300), max_size=200), st.integers(0, 65535))
def test_unwrapping_follows_any_steps_of_less_than_half_the_range(steps, first):
    wide = first + np.cumsum([0, *[100 * step for step in steps]])
    assert unwrap16(wide & 0xFFFF).tolist() == wide.tolist()
    assert not unwrap16(np.zeros(0, np.uint16)).size


@given(st.lists(st.integers(0, 50), max_size=60), st.sets(st.integers(0, 50)))
def test_received_and_lost_are_sent(numbers, sent):
    received = flow(numbers, list(range(len(numbers))))
    found = measure_datagrams(received, flow(sorted(sent)))
    assert found["received_datagrams"] + found["lost_datagrams"] == found["sent_datagrams"]
    assert found["delivered_bytes"] + found["duplicate_bytes"] == found["payload_bytes"]
