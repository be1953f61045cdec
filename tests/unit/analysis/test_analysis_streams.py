"""Data-level delivery from captures: answers are known because the captures are made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import synthetic as syn
from hypothesis import given
from hypothesis import strategies as st
from synthetic import Scene, Subflow

from analysis.captures import read_capture
from analysis.flows import find_flows, first_dsn_of, token_of
from analysis.sequence import covered, frontier, merge_intervals, signed32, union_bytes, unwrap32
from analysis.streams import datagram_arrivals, trace_stream

MN = {"10.1.0.100", "10.2.0.100"}


def trace(scene: Scene, tmp_path, node="mn", towards=True, local=None, peer=None):
    frames = []
    for interface, records in scene.records.items():
        if interface.startswith(node) and records:
            path = tmp_path / f"{interface}.pcapng"
            path.write_bytes(syn.capture_bytes(records, interface))
            frame = read_capture(path).frame.assign(device=interface)
            frames.append(frame.assign(src=frame["src"].astype(str), dst=frame["dst"].astype(str)))
    packets = pd.concat(frames).sort_values("time_ns", kind="stable", ignore_index=True)
    return trace_stream(packets, local, peer, MN if node == "mn" else {syn.CN}, towards)


def seconds(stream) -> list[float]:
    return ((stream.time_ns - syn.WALL0) / 1e9).round(6).tolist()


# --- arithmetic ---


def test_signed32_is_the_nearest_difference():
    assert signed32(np.array([1, 2**32 - 1, 2**31 - 1, 2**31])).tolist() == [1, -1, 2**31 - 1, -(2**31)]


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(-(2**30), 2**30), max_size=30))
def test_unwrap_gives_back_what_was_wrapped(origin, steps):
    wide = np.cumsum(np.array(steps, np.int64))
    assert unwrap32((wide + origin) % 2**32, origin).tolist() == wide.tolist()


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=25))
def test_coverage_is_that_of_a_set(segments):
    start = np.array([a for a, _ in segments], np.int64)
    end = start + np.array([n for _, n in segments], np.int64)
    seen: set[int] = set()
    wanted = []
    for low, high in zip(start.tolist(), end.tolist(), strict=True):
        seen |= set(range(low, high))
        wanted.append(next(i for i in range(200) if i not in seen))
    assert frontier(start, end).tolist() == wanted
    assert union_bytes(start, end) == len(seen)
    low, high = merge_intervals(start, end)
    assert {b for a, z in zip(low.tolist(), high.tolist(), strict=True) for b in range(a, z)} == seen
    assert (low[1:] > high[:-1]).all()
    inside = covered(start, start + 3, low, high)
    assert inside.tolist() == [set(range(a, a + 3)) <= seen for a in start.tolist()]


def test_token_and_first_dsn_come_from_the_key():
    assert token_of(syn.SERVER_KEY) == syn.token(syn.SERVER_KEY)
    assert first_dsn_of(syn.SERVER_KEY) == syn.idsn(syn.SERVER_KEY) + 1


# --- plain TCP ---


@pytest.mark.parametrize("isn", [2000, 2**32 - 3000, 2**32 - 1])
def test_tcp_hole_delays_what_follows(tmp_path, isn):
    scene = Scene(mptcp=False)
    flow = scene.open(Subflow("mn-wlan", 40000, server_isn=isn), 0.1)
    scene.data(flow, 0.2, 1000, 0)
    scene.data(flow, 0.3, 1000, 1000, arrives=False)
    scene.data(flow, 0.4, 1000, 2000)
    scene.data(flow, 0.5, 1000, 1000, subflow_position=1000)  # the retransmission fills the hole
    scene.data(flow, 0.6, 1000, 3000)
    stream = trace(scene, tmp_path)
    assert stream.transport == "tcp"
    assert seconds(stream) == [0.2, 0.5, 0.6]
    assert stream.delivered_bytes.tolist() == [1000, 3000, 4000]
    assert (stream.payload_bytes, stream.repeated_bytes) == (4000, 0)
    sent = trace(scene, tmp_path, "cn", towards=False)
    assert (sent.payload_bytes, sent.repeated_bytes, sent.reinjected_bytes) == (5000, 1000, 0)
    assert sent.total_bytes == 4000


def test_tcp_beyond_four_gigabytes_of_sequence_space(tmp_path):
    scene = Scene(mptcp=False)
    flow = scene.open(Subflow("mn-wlan", 40000, server_isn=2**32 - 100), 0.1)
    for index in range(300):
        scene.data(flow, 0.2 + index / 100, 1400, 1400 * index)
    stream = trace(scene, tmp_path)
    assert stream.total_bytes == 300 * 1400
    assert (np.diff(stream.delivered_bytes) == 1400).all()


def test_upload_is_followed_at_the_correspondent_node(tmp_path):
    scene = Scene(mptcp=False)
    flow = scene.open(Subflow("mn-wlan", 40000), 0.1)
    for index in range(3):
        frame = syn.tcp(syn.ADDRESSES["mn-wlan"], 40000, syn.CN, 5001, 1001 + 100 * index, 2001, syn.ACK, 100)
        scene.up(flow, 0.2 + index / 10, frame)
    scene.down(flow, 0.6, syn.tcp(syn.CN, 5001, "10.1.0.100", 40000, 2001, 1301))
    stream = trace(scene, tmp_path, "cn", towards=True, local=(syn.CN, 5001), peer=("10.1.0.100", 40000))
    assert stream.delivered_bytes.tolist() == [100, 200, 300]
    assert seconds(stream) == [0.215, 0.315, 0.415]


def test_new_handshake_on_the_same_ports_is_another_flow(tmp_path):
    scene = Scene(mptcp=False)
    scene.open(Subflow("mn-wlan", 40000, client_isn=1), 0.1)
    scene.open(Subflow("mn-wlan", 40000, client_isn=2, server_isn=99), 0.3)
    path = tmp_path / "c.pcapng"
    path.write_bytes(syn.capture_bytes(scene.records["mn-wlan"], "mn-wlan"))
    assert [flow.client_isn for flow in find_flows(read_capture(path).frame)] == [1, 2]


def test_the_applications_ports_choose_the_flow(tmp_path):
    scene = Scene(mptcp=False)
    wanted = scene.open(Subflow("mn-wlan", 40000), 0.1)
    other = scene.open(Subflow("mn-wlan", 40009), 0.1)
    scene.data(wanted, 0.2, 100, 0)
    scene.data(other, 0.3, 1400, 0)
    assert trace(scene, tmp_path).total_bytes == 1400  # without a hint: the busiest
    assert trace(scene, tmp_path, local=("10.1.0.100", 40000), peer=(syn.CN, 5001)).total_bytes == 100


# --- MPTCP ---


def two_paths(**more) -> tuple[Scene, Subflow, Subflow]:
    scene = Scene(**more)
    wlan = scene.open(Subflow("mn-wlan", 40000), 0.1)
    lte = scene.open(Subflow("mn-lte", 40001, initial=False, client_isn=5, server_isn=2**32 - 500), 0.15)
    return scene, wlan, lte


@pytest.mark.parametrize("wide", [True, False])
def test_two_subflows_merge_by_their_mappings(tmp_path, wide):
    scene, wlan, lte = two_paths(wide=wide)
    scene.data(wlan, 0.2, 1000, 0)
    scene.data(lte, 0.3, 1000, 2000)  # waits for what is still under way
    scene.data(wlan, 0.4, 1000, 1000)
    scene.data(lte, 0.5, 1000, 3000)
    stream = trace(scene, tmp_path)
    assert stream.transport == "mptcp"
    assert stream.notes == ()
    assert list(zip(seconds(stream), stream.delivered_bytes.tolist(), strict=True)) == [
        (0.2, 1000), (0.4, 3000), (0.5, 4000),
    ]  # fmt: skip
    assert stream.packets.groupby("device")["payload_bytes"].sum().to_dict() == {"mn-wlan": 2000, "mn-lte": 2000}


def test_reinjection_counts_once_and_is_reported(tmp_path):
    scene, wlan, lte = two_paths()
    scene.data(wlan, 0.2, 1000, 0)
    scene.data(wlan, 0.3, 1000, 1000, arrives=False)
    scene.data(lte, 0.4, 1000, 1000)  # the same data on the other path
    scene.data(wlan, 0.5, 1000, 1000, subflow_position=1000)  # and late on the first
    stream = trace(scene, tmp_path)
    assert stream.delivered_bytes.tolist() == [1000, 2000]
    assert seconds(stream) == [0.2, 0.4]
    assert (stream.payload_bytes, stream.repeated_bytes, stream.reinjected_bytes) == (3000, 1000, 1000)
    sent = trace(scene, tmp_path, "cn", towards=False)
    assert (sent.payload_bytes, sent.repeated_bytes, sent.reinjected_bytes) == (4000, 2000, 1000)


def test_subflow_delivers_in_its_own_order(tmp_path):
    """A subflow's later bytes wait for its hole even when their data sequence numbers would fit."""
    scene, wlan, lte = two_paths()
    scene.data(wlan, 0.2, 1000, 0, arrives=False)
    scene.data(wlan, 0.3, 1000, 1000)
    scene.data(lte, 0.4, 1000, 0)  # reinjected; bytes 1000..2000 still sit behind the hole of the first subflow
    scene.data(wlan, 0.5, 1000, 0, subflow_position=0)
    stream = trace(scene, tmp_path)
    assert list(zip(seconds(stream), stream.delivered_bytes.tolist(), strict=True)) == [(0.4, 1000), (0.5, 2000)]


def test_one_mapping_for_many_segments(tmp_path):
    scene, wlan, _ = two_paths()
    scene.data(wlan, 0.2, 1000, 0, mapping=(0, 0, 4000))
    scene.data(wlan, 0.3, 1000, 1000, bare=True)
    scene.data(wlan, 0.4, 1000, 2000, mapping=(0, 0, 4000))
    scene.data(wlan, 0.5, 1000, 3000, bare=True)
    stream = trace(scene, tmp_path)
    assert stream.transport == "mptcp"
    assert stream.delivered_bytes.tolist() == [1000, 2000, 3000, 4000]


def test_segment_across_two_mappings_is_split(tmp_path):
    scene, wlan, lte = two_paths()
    scene.data(wlan, 0.2, 1000, 0, mapping=(0, 0, 1500))
    scene.data(lte, 0.25, 500, 1500)
    scene.data(wlan, 0.3, 1000, 2000, mapping=(2000, 1500, 500))  # half of it belongs to the mapping before
    stream = trace(scene, tmp_path)
    assert list(zip(seconds(stream), stream.delivered_bytes.tolist(), strict=True)) == [(0.2, 1000), (0.3, 2500)]


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("low", [2**32 - 1500, 2**64 - 1500, 2**63 - 700])
def test_data_sequence_numbers_wrap(tmp_path, wide, low, monkeypatch):
    monkeypatch.setattr("analysis.streams.first_dsn_of", lambda key: low)
    scene, wlan, lte = two_paths(wide=wide, first_dsn=low)
    for index in range(6):
        scene.data((wlan, lte)[index % 2], 0.2 + index / 10, 1000, 1000 * index)
    stream = trace(scene, tmp_path)
    assert stream.delivered_bytes.tolist() == [1000 * (index + 1) for index in range(6)]


def test_first_data_in_mp_capable_is_an_implied_mapping(tmp_path):
    """An upload: the client speaks first, its first segment carries MP_CAPABLE with a length (RFC 8684 figure 4)."""
    scene = Scene()
    flow = scene.open(Subflow("mn-wlan", 40000), 0.1)
    options = [syn.capable(syn.CLIENT_KEY, syn.SERVER_KEY, length=800), syn.dss(syn.idsn(syn.CLIENT_KEY) + 801, 801, 500)]
    for index, (size, option) in enumerate(zip((800, 500), options, strict=True)):
        frame = syn.tcp("10.1.0.100", 40000, syn.CN, 5001, 1001 + 800 * index, 2001, syn.ACK, size, option)
        scene.up(flow, 0.2 + index / 10, frame)
    scene.down(flow, 0.6, syn.tcp(syn.CN, 5001, "10.1.0.100", 40000, 2001, 1001 + 1300))
    stream = trace(scene, tmp_path, "cn")
    assert stream.transport == "mptcp"
    assert stream.delivered_bytes.tolist() == [800, 1300]


def test_data_fin_is_no_byte(tmp_path):
    scene, wlan, lte = two_paths()
    scene.data(wlan, 0.2, 1000, 0)
    last = syn.dss(scene.first_dsn + 1000, 1001, 501, fin=True, dack=1)  # 500 bytes and the end
    scene.down(wlan, 0.3, syn.tcp(syn.CN, 5001, "10.1.0.100", 40000, 3001, 1, syn.ACK, 500, last))
    scene.ack(wlan, 0.301, 1500)
    alone = syn.dss(scene.first_dsn + 1500, 0, 1, fin=True, dack=1)
    scene.down(lte, 0.31, syn.tcp(syn.CN, 5001, "10.2.0.100", 40001, 2**32 - 499, 1, syn.ACK, 0, alone))
    stream = trace(scene, tmp_path)
    assert stream.transport == "mptcp"
    assert stream.delivered_bytes.tolist() == [1000, 1500]


def test_unrelated_join_is_left_alone(tmp_path):
    scene, wlan, _ = two_paths()
    scene.data(wlan, 0.2, 1000, 0)
    scene.server_key = 42
    stranger = scene.open(Subflow("mn-lte", 40007, initial=False), 0.2)
    scene.data(stranger, 0.3, 1000, 0)
    assert len(trace(scene, tmp_path).subflows) == 2


def test_join_opened_by_the_server(tmp_path):
    scene, wlan, _ = two_paths()
    scene.data(wlan, 0.2, 1000, 0)
    back = Subflow("mn-lte", 40002, client_isn=300, server_isn=700)
    at, me = 0.25, "10.2.0.100"
    scene.down(back, at, syn.tcp(syn.CN, 6001, me, 40002, 700, 0, syn.SYN, 0, syn.join_syn(syn.token(syn.CLIENT_KEY))))
    scene.up(back, at, syn.tcp(me, 40002, syn.CN, 6001, 300, 701, syn.SYN | syn.ACK, 0, syn.join_syn_ack()))
    option = syn.dss(scene.first_dsn + 1000, 1, 500)
    scene.down(back, 0.4, syn.tcp(syn.CN, 6001, me, 40002, 701, 301, syn.ACK, 500, option))
    scene.up(back, 0.41, syn.tcp(me, 40002, syn.CN, 6001, 301, 1201))
    assert trace(scene, tmp_path).delivered_bytes.tolist() == [1000, 1500]


def test_segments_that_the_host_discarded_have_not_arrived(tmp_path):
    """After its address is gone a host sees packets for it on the wire but neither takes nor acknowledges them."""
    scene, wlan, lte = two_paths()
    scene.data(wlan, 0.2, 1000, 0)
    late = syn.tcp(syn.CN, 5001, "10.1.0.100", 40000, 3001, 1, syn.ACK, 1000, syn.dss(scene.first_dsn + 1000, 1001, 1000))
    scene.down(wlan, 0.3, late)
    scene.data(lte, 0.7, 1000, 1000)
    stream = trace(scene, tmp_path)
    assert list(zip(seconds(stream), stream.delivered_bytes.tolist(), strict=True)) == [(0.2, 1000), (0.7, 2000)]


def test_data_acknowledged_though_its_subflow_fell_silent(tmp_path):
    """The host took a segment, lost the address before it acknowledged it, and says so by DATA_ACK on the other path."""
    scene, wlan, lte = two_paths()
    scene.data(wlan, 0.2, 1000, 0)
    taken = syn.tcp(syn.CN, 5001, "10.1.0.100", 40000, 3001, 1, syn.ACK, 1000, syn.dss(scene.first_dsn + 1000, 1001, 1000))
    scene.down(wlan, 0.3, taken)
    scene.data(lte, 0.7, 1000, 2000)
    option = syn.dss(dack=scene.first_dsn + 3000)
    scene.up(lte, 0.71, syn.tcp("10.2.0.100", 40001, syn.CN, 5001, 6, 2**32 - 499 + 1000, syn.ACK, 0, option))
    assert trace(scene, tmp_path).delivered_bytes.tolist() == [1000, 2000, 3000]


# --- fallback ---


def test_unanswered_mp_capable_is_tcp(tmp_path):
    scene = Scene()
    flow = scene.open(Subflow("mn-wlan", 40000), 0.1, answer=False)
    scene.data(flow, 0.2, 1000, 0, bare=True)
    stream = trace(scene, tmp_path)
    assert stream.transport == "tcp"
    assert "accepted" in stream.notes[0]
    assert stream.total_bytes == 1000


def test_options_stripped_in_mid_stream_is_a_fallback(tmp_path):
    scene = Scene()
    flow = scene.open(Subflow("mn-wlan", 40000), 0.1)
    scene.data(flow, 0.2, 1000, 0)
    scene.data(flow, 0.3, 1000, 1000, bare=True)
    scene.data(flow, 0.4, 1000, 2000, bare=True)
    stream = trace(scene, tmp_path)
    assert stream.transport == "tcp"
    assert "without a data sequence mapping" in stream.notes[0]
    assert stream.delivered_bytes.tolist() == [1000, 2000, 3000]


def test_infinite_mapping_is_a_fallback(tmp_path):
    scene = Scene()
    flow = scene.open(Subflow("mn-wlan", 40000), 0.1)
    scene.data(flow, 0.2, 1000, 0)
    scene.data(flow, 0.3, 1000, 1000, mapping=(1000, 1000, 0))
    stream = trace(scene, tmp_path)
    assert stream.transport == "tcp"
    assert stream.total_bytes == 2000


def test_bytes_without_mapping_beside_another_subflow_are_not_delivered(tmp_path):
    scene, wlan, lte = two_paths()
    scene.data(wlan, 0.2, 1000, 0)
    scene.data(lte, 0.3, 1000, 1000, bare=True)
    stream = trace(scene, tmp_path)
    assert stream.total_bytes == 1000
    assert "1000 bytes came without" in stream.notes[0]


# --- datagrams ---


def test_busiest_datagram_flow_towards_the_node(tmp_path):
    writer = syn.Pcapng()
    for index in range(5):
        writer.add(index, syn.udp(syn.CN, 9, "10.1.0.100", 7000, 160))
    writer.add(9, syn.udp(syn.CN, 53, "10.1.0.100", 7001, 100))
    writer.add(10, syn.udp("10.1.0.100", 7000, syn.CN, 9, 1400))
    path = tmp_path / "u.pcapng"
    path.write_bytes(writer.bytes())
    packets = read_capture(path).frame.assign(device="mn-wlan")
    arrivals = datagram_arrivals(packets, MN)
    assert arrivals["time_ns"].tolist() == [0, 1, 2, 3, 4]
