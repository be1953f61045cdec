"""Segments, packets and datagrams at two points -> what was lost."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.measures.loss import byte_loss, datagram_loss, packet_loss, segment_identity


def places(*segments):
    """(flow, begin, end) -> arrays."""
    return tuple(np.array([s[i] for s in segments], np.int64) for i in range(3))


def test_a_lost_segment_and_its_retransmission():
    sent = places((0, 0, 100), (0, 100, 200), (0, 200, 300), (0, 100, 200))
    received = places((0, 0, 100), (0, 200, 300), (0, 100, 200))
    assert byte_loss(sent, received) == (400, 300, 100, 0)


def test_segments_cut_and_joined_on_the_way():
    sent = places((0, 0, 300), (0, 300, 400), (0, 400, 500))
    received = places((0, 0, 100), (0, 100, 300), (0, 300, 450), (0, 450, 500))
    assert byte_loss(sent, received) == (500, 500, 0, 0)


def test_each_subflow_for_itself():
    assert byte_loss(places((0, 0, 100), (1, 0, 100)), places((1, 0, 100), (1, 0, 100))) == (200, 200, 100, 100)


def test_nothing_sent_or_nothing_received():
    nothing = places()
    assert byte_loss(nothing, nothing) == (0, 0, 0, 0)
    assert byte_loss(places((3, 5, 25)), nothing) == (20, 0, 20, 0)
    assert byte_loss(nothing, places((3, 5, 25))) == (0, 20, 0, 20)


SEGMENTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1, 9)).map(lambda s: (s[0], s[1], s[1] + s[2]))
)


@given(SEGMENTS, SEGMENTS)
def test_loss_of_bytes_balances_and_is_what_counting_gives(sent, received):
    loss = byte_loss(places(*sent), places(*received))
    assert loss.sent + loss.multiplied == loss.received + loss.lost
    copies = [Counter((flow, at) for flow, begin, end in side for at in range(begin, end)) for side in (sent, received)]
    assert loss.lost == sum((copies[0] - copies[1]).values())
    assert loss.multiplied == sum((copies[1] - copies[0]).values())


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_loss_of_packets_balances_and_is_what_counting_gives(sent, received):
    loss = packet_loss(np.array(sent, np.int64), np.array(received, np.int64))
    assert loss.sent + loss.multiplied == loss.received + loss.lost
    assert loss.lost == sum((Counter(sent) - Counter(received)).values())


def test_segments_are_known_by_flow_place_and_size():
    flow, begin, size = (a.reshape(-1) for a in np.meshgrid(np.arange(8), np.arange(0, 2**32, 2**28 + 1), [1, 1420, 65_000]))
    assert np.unique(segment_identity(flow, begin, size)).size == flow.size


# --- datagrams -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("received", "sent", "expected"),
    [
        ([1, 2, 5, 6], None, (6, 4, 2, 0, 2)),
        ([1, 2, 5, 6, 2, 2], None, (6, 4, 2, 2, 2)),
        ([3, 1, 2], None, (3, 3, 0, 0, 0)),
        ([], None, (0, 0, 0, 0, 0)),
        ([2, 3], [0, 1, 2, 3, 4, 5, 6], (7, 2, 5, 0, 3)),
        ([], [0, 1, 2], (3, 0, 3, 0, 3)),
        ([2, 9], [2, 3], (3, 2, 1, 0, 1)),  # 9 arrived, so it was sent
        ([0, 4], [0, 2, 4], (3, 2, 1, 0, 1)),  # the sender skipped odd numbers
    ],
)
def test_datagrams_by_number(received, sent, expected):
    numbers = None if sent is None else np.array(sent, np.int64)
    assert datagram_loss(np.array(received, np.int64), numbers) == expected


@given(st.lists(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_datagrams_balance(received, sent):
    loss = datagram_loss(np.array(received, np.int64), np.array(sorted(sent), np.int64))
    assert loss.sent == loss.received + loss.lost
    assert loss.received + loss.duplicates == len(received)
    assert loss.longest_run <= loss.lost
