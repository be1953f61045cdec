"""Bytes that a receiver acknowledged though no packet in the capture carries them.

A capturing program that drops packets, or that began when data was already under way, leaves holes that are never filled.
They would hold up everything behind them for ever, so they count as arrived when they were acknowledged. Only holes between
captured bytes are taken: what lies beyond the last one may never have been sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from analysis.compiled import compiled
from analysis.connections.model import LIMIT, Array, Bools, Int64s


class Spans(NamedTuple):
    """Byte ranges of streams with the moment they were seen: segments, or holes."""

    time_ns: Int64s
    stream: Array
    begin: Int64s
    end: Int64s


class Answers(NamedTuple):
    """Acknowledgments in order of time: the stream whose data is acknowledged, and how far."""

    time_ns: Int64s
    stream: Array
    acked: Int64s


def find_missed(seen: Spans, new_bytes: Int64s, answered: Int64s, answers: Callable[[Bools], Answers]) -> Spans:
    """Holes between the bytes in `seen` that were acknowledged, with the moment of that, in order of time.

    `stream` is -1 for what is to be left out. `new_bytes`: those of each entry of `seen`; `answered`: how far each stream was
    acknowledged at all; `answers`: gives the acknowledgments of some streams.
    """
    used = (seen.stream >= 0) & (seen.end > 0) & (seen.end <= LIMIT)
    top = np.zeros(answered.size, np.int64)
    np.maximum.at(top, seen.stream[used], seen.end[used])
    have = np.bincount(seen.stream[used], new_bytes[used], answered.size).astype(np.int64)
    holed = (have < top) & (answered > 0)
    if not holed.any():
        none = np.zeros(0, np.int64)
        return Spans(none, none, none, none)
    rows = np.flatnonzero(used)
    rows = rows[holed[seen.stream[rows]]]
    stream, begin, end = _holes(seen.stream[rows], seen.begin[rows], seen.end[rows])
    end = np.minimum(end, answered[stream])
    real = begin < end
    stream, begin, end = stream[real], begin[real], end[real]
    given = answers(holed)
    order, first = by_stream(given.stream, answered.size)
    highest = np.empty(given.acked.size, np.int64)
    climb(given.stream, given.acked, np.full(answered.size, -1, np.int64), highest)
    index = np.empty(stream.size, np.int64)
    reach(stream, end, order, first, highest, index)
    when = given.time_ns[index]
    order = np.argsort(when, kind="stable")
    return Spans(when[order], stream[order], begin[order], end[order])


def _holes(stream: Array, begin: Int64s, end: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """What lies between position 0 and the last byte of each stream and is in none of the ranges."""
    order = np.lexsort((begin, stream))
    number, low, high = stream[order].astype(np.int64), np.maximum(begin[order], 0), end[order]
    before = np.empty(low.size, np.int64)
    mark_reach(number, high, before)
    gap = np.flatnonzero(before < low)
    return number[gap], before[gap], low[gap]


def by_stream(stream: Array, streams: int) -> tuple[Int64s, Int64s]:
    """Entries ordered by stream, then as they came, and where each stream begins among them."""
    order = np.argsort(stream, kind="stable")
    return order, np.concatenate(([0], np.cumsum(np.bincount(stream, minlength=streams))))


@compiled
def mark_reach(stream: Any, end: Any, before: Any) -> None:
    """For ranges sorted by stream and begin: how far those before it in its stream reach."""
    reached = np.int64(0)
    for i in range(stream.size):
        if i > 0 and stream[i] != stream[i - 1]:
            reached = np.int64(0)
        before[i] = reached
        reached = max(reached, end[i])


@compiled
def climb(stream: Any, value: Any, top: Any, highest: Any) -> None:
    """Running maximum per stream."""
    for i in range(stream.size):
        g = stream[i]
        top[g] = max(top[g], value[i])
        highest[i] = top[g]


@compiled
def reach(stream: Any, target: Any, order: Any, first: Any, value: Any, index: Any) -> None:
    """First entry of a stream at which `value`, which ascends in every stream, is at least `target`; -1 for none.

    Stream g has the entries order[first[g]:first[g + 1]].
    """
    for k in range(stream.size):
        low, stop = first[stream[k]], first[stream[k] + 1]
        high = stop
        while low < high:
            middle = (low + high) // 2
            if value[order[middle]] < target[k]:
                low = middle + 1
            else:
                high = middle
        index[k] = order[low] if low < stop else -1
