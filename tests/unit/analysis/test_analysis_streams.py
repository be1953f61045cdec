"""Data-level delivery from captures: answers are known because the captures are made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic as syn
from synthetic import Scene, Subflow

from analysis.connections import reconstruct
from analysis.packets import AddressBook, merge, read_capture
from analysis.streams import datagram_arrivals, trace_stream

MN = {"10.1.0.100", "10.2.0.100"}


def trace(scene: Scene, tmp_path, node="mn", towards=True, local=None, peer=None):
    captures, devices, book = [], [], AddressBook()
    for interface, records in scene.records.items():
        if interface.startswith(node) and records:
            path = tmp_path / f"{interface}.pcapng"
            path.write_bytes(syn.capture_bytes(records, interface))
            captures.append(read_capture(path, book))
            devices.append(interface)
    rec = reconstruct(merge(captures), [0] * len(devices))
    return trace_stream(rec, devices, local, peer, MN if node == "mn" else {syn.CN}, towards)


def seconds(stream) -> list[float]:
    return ((stream.time_ns - syn.WALL0) / 1e9).round(6).tolist()


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


def test_data_repeated_on_the_same_subflow_is_no_retransmission_of_tcp(tmp_path):
    scene, wlan, _ = two_paths()
    scene.data(wlan, 0.2, 1000, 0)
    scene.data(wlan, 0.3, 1000, 0)  # in new bytes of the subflow
    stream = trace(scene, tmp_path)
    assert (stream.payload_bytes, stream.repeated_bytes, stream.reinjected_bytes) == (2000, 1000, 1000)
    assert [flow["repeated_bytes"] for flow in stream.subflows] == [0, 0]


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
    assert "SYN/ACK carried no MP_CAPABLE" in stream.notes[0]
    assert stream.total_bytes == 1000


def test_options_stripped_in_mid_stream_is_a_fallback(tmp_path):
    scene = Scene()
    flow = scene.open(Subflow("mn-wlan", 40000), 0.1)
    scene.data(flow, 0.2, 1000, 0)
    scene.data(flow, 0.3, 1000, 1000, bare=True)
    scene.data(flow, 0.4, 1000, 2000, bare=True)
    stream = trace(scene, tmp_path)
    assert stream.transport == "tcp"
    assert "without a mapping" in stream.notes[0]
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
    arrivals = datagram_arrivals(read_capture(path).table, ["mn-wlan"], MN)
    assert arrivals["time_ns"].tolist() == [0, 1, 2, 3, 4]
