"""Sequence arithmetic modulo 2^32, and intervals of a byte stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


def signed32(difference: npt.NDArray[Any]) -> Int64s:
    """Differences modulo 2^32 as the nearest signed numbers (RFC 9293 section 3.4)."""
    return np.asarray(difference).astype(np.uint32).astype(np.int32).astype(np.int64)


def merge_intervals(start: Int64s, end: Int64s) -> tuple[Int64s, Int64s]:
    """The same bytes as disjoint intervals in ascending order."""
    order = np.argsort(start, kind="stable")
    begin, reach = start[order], np.maximum.accumulate(end[order])
    fresh = np.concatenate(([True], begin[1:] > reach[:-1])) if begin.size else np.zeros(0, np.bool_)
    firsts = np.flatnonzero(fresh)
    lasts = np.concatenate((firsts[1:] - 1, [begin.size - 1])) if firsts.size else firsts
    return begin[firsts], reach[lasts]
