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


def union_bytes(start: Int64s, end: Int64s) -> int:
    """Number of distinct bytes in the intervals [start, end)."""
    if not start.size:
        return 0
    order = np.argsort(start, kind="stable")
    begin, reach = start[order], np.maximum.accumulate(end[order])
    covered = np.concatenate(([begin[0]], reach[:-1]))
    return int(np.maximum(reach - np.maximum(begin, covered), 0).sum())


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

