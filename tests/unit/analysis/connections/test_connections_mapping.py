"""Placing subflow bytes in data streams: mappings, data sequence numbers, fallback."""

from __future__ import annotations

import numpy as np
import pytest
from connection_table import (
    CLIENT_KEY,
    SERVER_KEY,
    Line,
    Packets,
    both,
    capable,
    data_ack,
    dsn,
    initial,
    join,
    joined,
    mapping,
)

from analysis.connections import FIRST, REINJECTION, RETRANSMISSION, UNMAPPED, Reconstruction, reconstruct_core


def down(
    line: Line, ms: float, at: int, size: int, offset: int, length: int | None = None, start: int | None = None, **more
) -> None:
    """A segment of the server: `offset` in the data; its mapping begins at `start` of the subflow (default: with it)."""
    begin = at if start is None else start
    line.send(ms, False, at, size, **mapping(dsn(False, offset), begin + 1, length or size), **more)


def places(core: Reconstruction, up: bool = False) -> list[tuple[int, int, int]]:
    """(begin, end, kind) of all segments of one direction."""
    rows = core.segments[core.segments["up"] == up]
    return list(zip(rows["begin"].tolist(), rows["end"].tolist(), rows["kind"].tolist(), strict=True))


def rebuilt(packets: Packets) -> Reconstruction:
    return reconstruct_core(packets.table())


def only(core: Reconstruction) -> dict:
    assert len(core.connections) == 1
    return core.connections.loc[0].to_dict()


# --- mappings ---


def test_each_segment_with_its_own_mapping():
    packets = Packets()
    line = initial(packets)
    down(line, 50, 0, 1000, 0)
    down(line, 51, 1000, 500, 1000)
    assert places(rebuilt(packets)) == [(0, 1000, FIRST), (1000, 1500, FIRST)]


def test_one_mapping_for_many_segments():
    packets = Packets()
    line = initial(packets)
    down(line, 50, 0, 1000, 0, 4000)
    line.send(51, False, 1000, 1000)
    down(line, 52, 2000, 1000, 0, 4000, start=0)
    line.send(53, False, 3000, 1000)
    assert places(rebuilt(packets)) == [(n * 1000, n * 1000 + 1000, FIRST) for n in range(4)]


def test_the_mapping_may_come_after_its_bytes():
    packets = Packets()
    line = initial(packets)
    line.send(50, False, 1000, 1000)
    down(line, 51, 0, 1000, 0, 2000)
    assert places(rebuilt(packets)) == [(1000, 2000, FIRST), (0, 1000, FIRST)]


def test_segment_across_two_mappings_is_split():
    packets = Packets()
    line, other = initial(packets), joined(packets, 40)
    down(line, 100, 0, 1000, 0, 1500)
    down(other, 101, 0, 500, 1500)
    down(line, 102, 1000, 1000, 2000, 500, start=1500)
    core = rebuilt(packets)
    assert places(core) == [(0, 1000, FIRST), (1500, 2000, FIRST), (1000, 1500, FIRST), (2000, 2500, FIRST)]
    assert core.segments["row"].tolist()[2:] == [8, 8]
    assert core.segments["flow_begin"].tolist()[2:] == [1000, 1500]
    assert only(core)["bytes_down"] == 2500


def test_mapping_that_begins_inside_a_segment():
    packets = Packets()
    line, _ = initial(packets), joined(packets, 40)
    down(line, 100, 0, 1000, 7000, 500, start=500)
    assert places(rebuilt(packets)) == [(-1, -1, UNMAPPED), (7000, 7500, FIRST)]


def test_reinjection_and_retransmission():
    packets = Packets()
    line, other = initial(packets), joined(packets, 40)
    down(line, 100, 0, 1000, 0)
    down(line, 101, 0, 1000, 0)  # the same bytes again
    down(other, 102, 0, 1000, 0)  # the same data on the other subflow
    down(other, 103, 0, 1000, 0)  # and there again
    down(other, 104, 1000, 1000, 0)  # once more on it, as other bytes of the subflow
    down(other, 105, 2000, 1500, 500)  # half of it was sent before
    core = rebuilt(packets)
    assert [kind for _, _, kind in places(core)] == [FIRST, RETRANSMISSION, REINJECTION, RETRANSMISSION, REINJECTION, FIRST]
    assert core.segments["new_bytes"].tolist() == [1000, 0, 0, 0, 0, 1000]
    flows = core.flows
    assert flows["payload_down"].tolist() == [2000, 4500]
    assert flows["unique_down"].tolist() == [1000, 3500]
    assert flows["repeated_down"].tolist() == [1000, 1000]
    assert flows["reinjected_down"].tolist() == [0, 2500]
    assert flows["data_down"].tolist() == [1000, 1000]
    one = only(core)
    assert (one["bytes_down"], one["payload_down"], one["duplicate_down"], one["reinjected_down"]) == (2000, 6500, 4500, 2500)


def test_of_contradicting_mappings_the_nearest_in_time_counts():
    """The segments carry none; a middlebox made two of one."""
    packets = Packets()
    line, other = initial(packets), joined(packets, 40)
    line.send(100, False, **mapping(dsn(False, 0), 1, 1000))
    line.send(110, False, 0, 1000)
    line.send(500, False, **mapping(dsn(False, 7000), 1, 1000))
    line.send(510, False, 0, 1000)
    other.send(600, False)
    assert [place[:2] for place in places(rebuilt(packets))] == [(0, 1000), (7000, 8000)]


def test_first_data_in_mp_capable():
    """The client speaks first: its first segment carries MP_CAPABLE with a length (RFC 8684 figure 4)."""
    packets = Packets()
    line = initial(packets)
    line.send(50, True, 0, 800, options=[capable(CLIENT_KEY, SERVER_KEY, data=800)])
    line.send(51, True, 800, 500, **mapping(dsn(True, 800), 801, 500))
    core = rebuilt(packets)
    assert places(core, up=True) == [(0, 800, FIRST), (800, 1300, FIRST)]
    assert only(core)["transport"] == "mptcp"


def test_data_fin_is_no_byte():
    packets = Packets()
    line = initial(packets)
    down(line, 50, 0, 1000, 0)
    line.send(51, False, 1000, 500, **mapping(dsn(False, 1000), 1001, 500, fin=True))
    line.send(52, False, 1500, **mapping(dsn(False, 1500), 0, 0, fin=True))
    line.send(60, True, acked=1500, **data_ack(dsn(False, 1501)))
    core = rebuilt(packets)
    assert places(core) == [(0, 1000, FIRST), (1000, 1500, FIRST)]
    assert only(core)["data_fin_down"]
    assert not only(core)["data_fin_up"]
    assert core.acks["data_ack"].tolist()[-1] == 1500


def test_bytes_without_mapping_beside_another_subflow():
    packets = Packets()
    line, other = initial(packets), joined(packets, 40)
    down(line, 100, 0, 1000, 0)
    other.send(101, False, 0, 700)
    core = rebuilt(packets)
    assert places(core) == [(0, 1000, FIRST), (-1, -1, UNMAPPED)]
    one = only(core)
    assert (one["transport"], one["unmapped_down"], one["duplicate_down"]) == ("mptcp", 700, 0)
    assert one["reinjected_down"] == 0


def test_payload_of_a_reset_is_no_data():
    packets = Packets()
    line = initial(packets)
    line.send(50, False, 0, 20, flags="R")
    assert len(rebuilt(packets).segments) == 0


# --- data sequence numbers ---


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("first", [2**32 - 1500, 2**64 - 1500, 2**63 - 700, 5])
def test_data_sequence_numbers_wrap(wide, first, monkeypatch):
    def keys_of(keys, versions):
        return np.where(keys > 0, 1, -1).astype(np.int64), np.full(keys.size, first, np.uint64)

    monkeypatch.setattr("analysis.connections.membership.tokens_and_dsns", keys_of)
    packets = Packets()
    line = initial(packets)
    for n in range(6):
        line.send(50 + n, False, n * 1000, 1000, **mapping(first + n * 1000, n * 1000 + 1, 1000, wide))
        line.send(50.5 + n, True, acked=n * 1000 + 1000, **data_ack(first + n * 1000 + 1000, wide))
    core = rebuilt(packets)
    assert places(core) == [(n * 1000, n * 1000 + 1000, FIRST) for n in range(6)]
    assert core.acks[~core.acks["up"]]["data_ack"].tolist()[1:] == [n * 1000 + 1000 for n in range(6)]


def test_short_numbers_over_four_gigabytes():
    """Numbers of 32 bits wrap; each is the nearest to the one before."""
    packets = Packets()
    line = initial(packets)
    step = 400_000_000
    for n in range(30):
        line.send(50 + n, False, n * step, 1000, **mapping(dsn(False, n * step), n * step + 1, 1000, wide=False))
        line.send(50.5 + n, True, **data_ack(dsn(False, n * step + 1000), wide=False))
    core = rebuilt(packets)
    assert [begin for begin, _, _ in places(core)] == [n * step for n in range(30)]
    assert core.acks[~core.acks["up"]]["data_ack"].tolist()[1:] == [n * step + 1000 for n in range(30)]


def test_absurd_numbers_place_nothing():
    packets = Packets()
    line, _ = initial(packets), joined(packets, 40)
    down(line, 100, 0, 1000, 0)
    down(line, 101, 1000, 1000, 2**63)
    down(line, 102, 2000, 1000, 1000)
    line.send(103, True, **data_ack(dsn(False, 2**62)))
    core = rebuilt(packets)
    assert places(core) == [(0, 1000, FIRST), (-1, -1, UNMAPPED), (1000, 2000, FIRST)]
    assert core.acks["data_ack"].tolist()[-1] == -1


def test_both_in_one_option():
    packets = Packets()
    line = initial(packets)
    line.send(50, False, 0, 100, **both(mapping(dsn(False, 0), 1, 100), data_ack(dsn(True, 0))))
    core = rebuilt(packets)
    assert places(core) == [(0, 100, FIRST)]
    assert core.acks["data_ack"].tolist()[-1] == 0
    assert only(core)["keys"] == "verified"


# --- fallback ---


def test_infinite_mapping():
    """RFC 8684 section 3.7: length 0; the sender had left out mappings some time before."""
    packets = Packets()
    line = initial(packets)
    down(line, 1000, 0, 1000, 0)
    line.send(1001, False, 1000, 1000)
    line.send(1002, False, 2000, 1000, **mapping(dsn(False, 2000), 2001, 0))
    line.send(1003, False, 3000, 1000)
    core = rebuilt(packets)
    assert places(core) == [(n * 1000, n * 1000 + 1000, FIRST) for n in range(4)]
    assert (only(core)["transport"], only(core)["fallback"]) == ("tcp", "infinite mapping 1.002 s after the first packet")


@pytest.mark.parametrize("mapped", [0, 1, 3])
def test_options_stripped_in_mid_stream(mapped):
    packets = Packets()
    line = initial(packets)
    for n in range(5):
        if n < mapped:
            down(line, 50 + n, n * 1000, 1000, n * 1000)
        else:
            line.send(50 + n, False, n * 1000, 1000)
    core = rebuilt(packets)
    assert places(core) == [(n * 1000, n * 1000 + 1000, FIRST) for n in range(5)]
    assert only(core)["transport"] == "tcp"
    assert only(core)["fallback"] == f"{(5 - mapped) * 1000} bytes without a mapping"


def test_a_mapping_that_was_not_captured_is_no_fallback():
    packets = Packets()
    line = initial(packets)
    down(line, 50, 0, 1000, 0)
    line.send(51, False, 1000, 1000)
    down(line, 52, 2000, 1000, 2000)
    core = rebuilt(packets)
    assert places(core) == [(n * 1000, n * 1000 + 1000, FIRST) for n in range(3)]
    assert only(core)["transport"] == "mptcp"


HANDSHAKES = {
    "": (None, None, None),
    "the SYN/ACK carried no MP_CAPABLE": (capable(length=4), None, None),
    "the third ACK carried no MP_CAPABLE": (capable(length=4), capable(SERVER_KEY), None),
}


@pytest.mark.parametrize("reason", HANDSHAKES)
def test_handshakes_that_give_plain_tcp(reason):
    packets = Packets()
    line = Line(packets)
    line.handshake(0, *HANDSHAKES[reason])
    line.send(50, False, 0, 1000)
    core = rebuilt(packets)
    one = only(core)
    assert (one["transport"], one["fallback"]) == ("tcp", reason)
    assert one["bytes_down"] == 1000
    assert places(core) == [(0, 1000, FIRST)]


def test_syn_without_answer_and_syn_given_up():
    packets = Packets()
    line = Line(packets)
    line.send(0, True, flags="S", options=[capable(length=4)])
    assert only(rebuilt(packets))["fallback"] == "the SYN was not answered"
    line.send(3000, True, flags="S")
    line.send(3010, False, flags="SA")
    line.send(3020, True)
    assert only(rebuilt(packets))["fallback"] == "the repeated SYN carried no MP_CAPABLE"


def test_server_that_sends_dss_has_seen_the_confirmation():
    """The third ACK is not in the capture."""
    packets = Packets()
    line = Line(packets)
    line.handshake(0, capable(length=4), capable(SERVER_KEY))
    packets.rows.pop()
    line.send(30, True)
    down(line, 50, 0, 1000, 0)
    one = only(rebuilt(packets))
    assert (one["transport"], one["keys"]) == ("mptcp", "verified")


def test_join_has_no_fallback():
    packets = Packets()
    line = Line(packets)
    line.handshake(0, join(12, 99), join(16), join(24))
    line.send(50, False, 0, 1000)
    one = only(rebuilt(packets))
    assert (one["transport"], one["unmapped_down"]) == ("mptcp", 1000)


# --- hostile input ---


def test_a_segment_is_cut_into_a_limited_number_of_pieces():
    packets = Packets()
    line, _ = initial(packets), joined(packets, 40)
    for n in range(200):
        line.send(100 + n, False, **mapping(dsn(False, n * 100), n * 10 + 1, 10))
    line.send(500, False, 0, 2000)
    core = rebuilt(packets)
    assert 60 < len(core.segments) < 70
    assert only(core)["unmapped_down"] == 2000 - 640


def test_many_tiny_mappings_under_large_segments():
    """Each segment could be cut into 60,000 pieces."""
    packets = Packets()
    line, _ = initial(packets), joined(packets, 40)
    rng = np.random.default_rng(3)
    for n in range(1500):
        line.send(100 + n, False, **mapping(dsn(False, int(rng.integers(0, 2**30))), int(rng.integers(1, 60_000)), 3))
    for n in range(300):
        line.send(2000 + n, False, n, 60_000)
    core = rebuilt(packets)
    assert len(core.segments) <= 4 * 300 + 1024 + 300
    assert (core.segments["flow_end"] - core.segments["flow_begin"]).sum() == 300 * 60_000
