"""Sequence arithmetic modulo 2^32 and 2^64, and coverage of a byte stream by segments.

Stream positions are int64 offsets from the first byte of the stream.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


def signed32(difference: npt.NDArray[Any]) -> Int64s:
    """Differences modulo 2^32 as the nearest signed numbers (RFC 9293 section 3.4)."""
    return np.asarray(difference).astype(np.uint32).astype(np.int32).astype(np.int64)


def signed64(difference: npt.NDArray[np.uint64]) -> Int64s:
    """Differences modulo 2^64 as the nearest signed numbers."""
    return difference.astype(np.uint64).view(np.int64)


def unwrap32(numbers: npt.NDArray[Any], origin: int) -> Int64s:
    """Offsets of 32-bit sequence numbers from `origin`, in order of arrival; they may wrap any number of times.

    Right as long as neighbours in time are less than 2^31 apart.
    """
    if not numbers.size:
        return np.zeros(0, np.int64)
    wide = numbers.astype(np.int64)
    steps = signed32(np.diff(wide, prepend=origin) & 0xFFFFFFFF)
    return np.cumsum(steps)


def merge_intervals(start: Int64s, end: Int64s) -> tuple[Int64s, Int64s]:
    """The same bytes as disjoint intervals in ascending order."""
    order = np.argsort(start, kind="stable")
    begin, reach = start[order], np.maximum.accumulate(end[order])
    fresh = np.concatenate(([True], begin[1:] > reach[:-1])) if begin.size else np.zeros(0, np.bool_)
    firsts = np.flatnonzero(fresh)
    lasts = np.concatenate((firsts[1:] - 1, [begin.size - 1])) if firsts.size else firsts
    return begin[firsts], reach[lasts]


def covered(start: Int64s, end: Int64s, by_start: Int64s, by_end: Int64s) -> npt.NDArray[np.bool_]:
    """For each interval whether it lies wholly in one of the disjoint, ascending intervals."""
    if not by_start.size:
        return np.zeros(start.size, np.bool_)
    index = np.searchsorted(by_start, start, side="right") - 1
    return (index >= 0) & (end <= by_end[index])


def union_bytes(start: Int64s, end: Int64s) -> int:
    """Number of distinct bytes in the intervals [start, end)."""
    begin, stop = merge_intervals(start, end)
    return int((stop - begin).sum())


def frontier(start: Int64s, end: Int64s) -> Int64s:
    """After each segment [start, end), in order of arrival: how far the stream is complete from position 0."""
    reached = 0
    waiting: list[tuple[int, int]] = []
    out: list[int] = []
    for low, high in zip(start.tolist(), end.tolist(), strict=True):
        if low > reached:
            heapq.heappush(waiting, (low, high))
        elif high > reached:
            reached = high
            while waiting and waiting[0][0] <= reached:
                reached = max(reached, heapq.heappop(waiting)[1])
        out.append(reached)
    return np.array(out, np.int64)
