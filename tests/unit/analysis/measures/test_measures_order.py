"""Orders of arrival with known answers -> reordering (RFC 4737)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.connections.coverage import cover
from analysis.measures.reordering import (
    Reordering,
    datagram_reordering,
    is_reordered,
    late_segments,
    overtakers,
    together,
)

MS = 1_000_000
ORDERS = st.permutations(list(range(12)))


def times(count):
    return np.arange(count) * 10 * MS


@pytest.mark.parametrize(
    ("order", "reordered", "extent"),
    [
        # One packet that is four places late, as in the example of RFC 4737 section 7; two places; one that is early.
        ([1, 2, 3, 5, 6, 7, 8, 4, 9, 10], [4], 4),
        ([1, 2, 3, 5, 6, 4, 7, 8, 9, 10], [4], 2),
        ([1, 2, 3, 4, 5, 10, 6, 7, 8, 9], [6, 7, 8, 9], 4),
        ([1, 2, 3], [], 0),
        ([3, 2, 1], [2, 1], 2),
        ([5], [], 0),
        ([], [], 0),
    ],
)
def test_reordered_packets_and_their_extent(order, reordered, extent):
    number = np.array(order, np.int64)
    assert number[is_reordered(number)].tolist() == reordered
    found = datagram_reordering(number, times(number.size))
    assert found == Reordering(len(order), len(reordered), extent, extent * 10.0)
    assert found.ratio == (len(reordered) / len(order) if order else None)


@given(ORDERS)
def test_the_definition_of_the_rfc_word_by_word(order):
    expected, next_expected = [], 0
    for number in order:
        expected.append(number < next_expected)
        next_expected = max(next_expected, number + 1)
    number = np.array(order, np.int64)
    assert is_reordered(number).tolist() == expected
    first = [next((j for j in range(i) if order[j] > order[i]), i) for i in range(len(order))]
    assert overtakers(number).tolist() == first


def test_several_flows_are_one_sample():
    assert together([Reordering(10, 1, 3, 5.0), Reordering(30, 3, 2, 7.0)]) == (40, 4, 3, 7.0)
    assert together([]).ratio is None


# --- segments --------------------------------------------------------------------------------------------------------


def late(segments, rtt=30, stamps=None):
    """`segments`: (ms, begin, end). Returns the begins of reordered segments and of those that were sent again."""
    at, begin, end = (np.array(column, np.int64) for column in zip(*segments, strict=True))
    coverage = cover(np.zeros(at.size, np.int32), begin, end, 1)
    stamped = np.full(at.size, stamps is not None)
    stamp = np.array(stamps if stamps is not None else np.zeros(at.size), np.uint32)
    found = late_segments(begin, at * MS, coverage, stamp, stamped, None if rtt is None else rtt * MS)
    return begin[found.chosen[found.reordered]].tolist(), begin[found.chosen[found.filled]].tolist()


SWAPPED = [(0, 0, 100), (1, 200, 300), (2, 100, 200), (3, 300, 400)]
LOST = [(0, 0, 100), (1, 200, 300), (2, 300, 400), (41, 100, 200)]


def test_within_a_round_trip_it_is_reordering():
    assert late(SWAPPED) == ([100], [])
    assert late(LOST) == ([], [100])


def test_a_repetition_is_neither():
    assert late([*SWAPPED, (4, 0, 100)]) == ([100], [])


def test_timestamps_decide_where_they_differ():
    assert late(SWAPPED, rtt=None, stamps=[7, 9, 8, 9]) == ([100], [])
    assert late(SWAPPED, rtt=None, stamps=[7, 8, 9, 9]) == ([], [100])
    assert late(LOST, stamps=[7, 9, 9, 8]) == ([100], [])  # 40 ms late and yet sent before what overtook it
    assert late(SWAPPED, stamps=[2**32 - 2, 1, 2**32 - 1, 1]) == ([100], [])  # the clock wraps


def test_equal_timestamps_leave_it_to_the_time():
    assert late(SWAPPED, stamps=[7, 7, 7, 7]) == ([100], [])
    assert late(LOST, stamps=[7, 7, 7, 7]) == ([], [100])
    assert late(LOST, rtt=None, stamps=[7, 7, 7, 7]) == ([100], [])


def test_without_evidence_it_was_sent_again():
    assert late(SWAPPED, rtt=None) == ([], [100])


def test_a_segment_that_repeats_and_goes_on_is_not_late():
    assert late([(0, 0, 100), (1, 100, 200), (50, 100, 300)]) == ([], [])
