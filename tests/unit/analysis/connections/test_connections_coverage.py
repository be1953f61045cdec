"""Coverage of byte streams against sets of bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.connections.coverage import cover
from analysis.connections.model import LIMIT


def by_sets(segments, streams):
    """(new bytes, reached, filled a hole) of each segment, the slow way."""
    seen = [set() for _ in range(streams)]
    for stream, low, high in segments:
        if stream < 0:
            yield 0, 0, False
            continue
        have = seen[stream]
        fresh = set(range(max(low, 0), high)) - have
        late = bool(have) and any(byte < max(have) for byte in fresh)
        have |= fresh
        yield len(fresh), next(n for n in range(len(have) + 1) if n not in have), late


def covered(segments, streams):
    stream, begin, end = (np.array(column, np.int64) for column in zip(*segments, strict=True))
    return cover(stream, begin, end, streams)


segment = st.tuples(st.integers(-1, 2), st.integers(-5, 80), st.integers(0, 25)).map(lambda s: (s[0], s[1], s[1] + s[2]))


@settings(max_examples=400, deadline=None)
@given(st.lists(segment, min_size=1, max_size=40))
def test_coverage_is_that_of_sets(segments):
    coverage = covered(segments, 3)
    expected = list(by_sets(segments, 3))
    assert coverage.new_bytes.tolist() == [new for new, _, _ in expected]
    assert coverage.reached.tolist() == [reached for _, reached, _ in expected]
    assert coverage.late.tolist() == [late for _, _, late in expected]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 120), st.integers(1, 30), st.randoms(use_true_random=False))
def test_any_order_of_the_same_segments_ends_the_same(count, size, random):
    """Every byte is new once, and at the end the stream is complete."""
    order = list(range(count))
    random.shuffle(order)
    coverage = covered([(0, n * size, n * size + size + 3) for n in order], 1)
    assert coverage.new_bytes.sum() == count * size + 3
    assert coverage.reached[-1] == count * size + 3
    assert (np.diff(coverage.reached) >= 0).all()


def test_nothing():
    assert [column.size for column in cover(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), 0)] == [
        0,
        0,
        0,
    ]


def test_positions_that_nobody_believes_cover_nothing():
    coverage = covered([(0, LIMIT - 5, LIMIT + 5), (0, -(2**62), -(2**62) + 9), (0, 10, 5), (0, 0, 7)], 1)
    assert coverage.new_bytes.tolist() == [0, 0, 0, 7]
    assert coverage.reached.tolist() == [0, 0, 0, 7]


def test_more_streams_than_fit_on_the_axis():
    """2^19 streams of 2^44 bytes each: their sum is beyond 64 bits."""
    streams = (1 << 19) + 10
    stream = np.tile(np.arange(streams), 2)
    begin = np.concatenate((np.full(streams, LIMIT - 10), np.zeros(streams, np.int64)))
    coverage = cover(stream, begin, begin + 10, streams)
    assert coverage.new_bytes.sum() == 20 * streams
    assert set(coverage.reached[streams:].tolist()) == {10}
    assert coverage.late[streams:].all()


@pytest.mark.parametrize("shape", ["reversed", "every second", "nested", "one byte at a time into one hole"])
def test_cost_does_not_grow_with_the_square(shape):
    """100,000 segments; with a cost of n^2 the test would not end."""
    n = np.arange(100_000)
    begin, end = {
        "reversed": (n[::-1] * 10, n[::-1] * 10 + 10),
        "every second": (n % 50_000 * 20 + n // 50_000 * 10, n % 50_000 * 20 + n // 50_000 * 10 + 10),
        "nested": (100_000 - n, 100_000 + n + 1),
        "one byte at a time into one hole": (
            np.concatenate(([10**9], (n[1:] * 7919) % 99_991 * 2)),
            np.concatenate(([10**9 + 1], (n[1:] * 7919) % 99_991 * 2 + 1)),
        ),
    }[shape]
    coverage = cover(np.zeros(n.size, np.int64), begin, end, 1)
    distinct = np.zeros(2_000_001, np.bool_)
    for low, high in zip(begin.tolist()[:2000], end.tolist()[:2000], strict=True):
        distinct[min(low, 2_000_000) : min(high, 2_000_001)] = True
    assert coverage.new_bytes[:2000].sum() == distinct.sum()
