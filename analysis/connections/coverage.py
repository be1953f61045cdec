"""Coverage of byte streams by segments: which bytes of each segment are new, and how far each stream is complete.

Many streams are done at once and in order of time. Bytes above the highest one so far are new without a search; only what
comes late has to be compared with the holes that were left. For these the streams are laid end to end on one axis, the axis
is cut at every edge of a hole or a late segment, and a union-find over the pieces leads from each byte to the next one that
is still missing. The cost is that of sorting the edges of late segments, also for input made to hurt.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from analysis.compiled import compiled
from analysis.connections.model import LIMIT, Array, Bools, Int64s

_AXIS = 1 << 61
"""Length of the axis. Streams that do not fit take further rounds."""


class Coverage(NamedTuple):
    """Per segment: bytes that no segment of the stream carried before; how far the stream is then complete from position 0;
    whether it filled (a part of) a hole that was left below bytes seen earlier."""

    new_bytes: Int64s
    reached: Int64s
    late: Bools


def cover(stream: Array, begin: Array, end: Array, streams: int) -> Coverage:
    """Coverage of `streams` byte streams by segments [begin, end) in order of time.

    `stream`: number of the stream of each segment, -1 for segments to leave out. Positions are int64 offsets from the first
    byte of the stream; bytes before it, and segments that end beyond LIMIT, cover nothing.
    """
    number = np.ascontiguousarray(stream, np.int32)
    begin, end = np.ascontiguousarray(begin, np.int64), np.ascontiguousarray(end, np.int64)
    out = Coverage(np.zeros(number.size, np.int64), np.zeros(number.size, np.int64), np.zeros(number.size, np.bool_))
    top = np.zeros(streams, np.int64)
    edges = np.zeros(streams, np.int64)
    holed = np.zeros(streams, np.bool_)
    _survey(number, begin, end, top, edges, holed, out.new_bytes, out.reached)
    pending = np.flatnonzero(holed)
    while pending.size:
        lengths = top[pending] + 1
        # Float: the sum of all may be beyond 64 bits.
        count = int(np.searchsorted(np.cumsum(lengths, dtype=np.float64), float(_AXIS), side="right"))
        chosen, pending = pending[:count], pending[count:]
        base = np.full(streams, -1, np.int64)
        base[chosen] = np.cumsum(lengths[:count]) - lengths[:count]
        _fill(number, begin, end, base, int(edges[chosen].sum()), out)
    return out


def _fill(number: Array, begin: Int64s, end: Int64s, base: Int64s, edges: int, out: Coverage) -> None:
    """Coverage of the streams that have a place (`base`) on the axis."""
    cuts, low, high = np.empty(2 * edges, np.int64), np.empty(edges, np.int64), np.empty(edges, np.int64)
    top = np.zeros(base.size, np.int64)
    used, holes = _cut(number, begin, end, base, top, cuts, low, high)
    cuts = np.sort(cuts[:used])
    low, high = np.sort(low[:holes]), np.sort(high[:holes])
    piece, stop = np.empty(used, np.int64), np.empty(used, np.int64)
    pieces = _pieces(cuts, low, high, piece, stop)
    piece, stop = piece[:pieces].copy(), stop[:pieces].copy()
    placed = np.flatnonzero(base >= 0)
    first = np.full(base.size, pieces, np.int64)
    first[placed] = np.searchsorted(piece, base[placed])
    limit = np.full(base.size, pieces, np.int64)
    limit[placed] = np.searchsorted(piece, base[placed] + top[placed])
    following = np.arange(pieces + 1)
    top[:] = 0
    _paint(number, begin, end, base, top, piece, stop, first, limit, following, *out)


@compiled
def _survey(number: Any, begin: Any, end: Any, top: Any, edges: Any, holed: Any, new: Any, reached: Any) -> None:
    """First pass. Complete for streams without holes; `edges` counts holes and late segments of the others from above."""
    for i in range(number.size):
        g = number[i]
        low, high = max(begin[i], 0), end[i]
        if g < 0:
            continue
        if high <= low or high > LIMIT:
            reached[i] = top[g]
            continue
        if low > top[g]:
            holed[g] = True
        if low != top[g]:
            edges[g] += 1
        if high > top[g]:
            new[i] = high - max(low, top[g])
            top[g] = high
        reached[i] = top[g]


@compiled
def _cut(number: Any, begin: Any, end: Any, base: Any, top: Any, cuts: Any, hole_low: Any, hole_high: Any) -> Any:
    """All edges on the axis, and the holes. Returns how many of each there are."""
    used = 0
    holes = 0
    for i in range(number.size):
        g = number[i]
        if g < 0 or base[g] < 0:
            continue
        low, high = max(begin[i], 0), end[i]
        if high <= low or high > LIMIT:
            continue
        if low != top[g] and used + 2 <= cuts.size:
            if low > top[g]:
                hole_low[holes], hole_high[holes] = base[g] + top[g], base[g] + low
                holes += 1
            cuts[used] = base[g] + min(low, top[g])
            cuts[used + 1] = base[g] + (low if low > top[g] else min(high, top[g]))
            used += 2
        top[g] = max(top[g], high)
    return used, holes


@compiled
def _pieces(cuts: Any, low: Any, high: Any, piece: Any, stop: Any) -> Any:
    """The parts of holes between neighbouring cuts, in ascending order; returns their number."""
    count = 0
    hole = 0
    for i in range(cuts.size - 1):
        if cuts[i] == cuts[i + 1]:
            continue
        while hole < low.size and high[hole] <= cuts[i]:
            hole += 1
        if hole == low.size:
            break
        if low[hole] <= cuts[i]:
            piece[count], stop[count] = cuts[i], cuts[i + 1]
            count += 1
    return count


@compiled
def _find(following: Any, at: Any) -> Any:
    """First piece from `at` on that is still missing."""
    while following[at] != at:
        following[at] = following[following[at]]
        at = following[at]
    return at


@compiled
def _search(piece: Any, low: Any, high: Any, hint: Any, position: Any) -> Any:
    """First piece in [low, high) that begins at `position` or behind it; `hint` is a guess."""
    at = min(max(hint, low), high)
    step = 1
    if at < high and piece[at] < position:
        low = at + 1
        while low + step < high and piece[low + step] < position:
            low += step + 1
            step *= 2
        high = min(high, low + step)
    else:
        high = at
        while high - step >= low and piece[high - step] >= position:
            high -= step
            step *= 2
        low = max(low, high - step)
    while low < high:
        middle = (low + high) // 2
        if piece[middle] < position:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _paint(
    number: Any, begin: Any, end: Any, base: Any, top: Any, piece: Any, stop: Any, first: Any, limit: Any, following: Any,
    new: Any, reached: Any, late: Any,
) -> None:  # fmt: skip
    """Second pass over the streams with holes. Pieces of one stream are [first, limit)."""
    cursor = first.copy()
    missing = first.copy()
    for i in range(number.size):
        g = number[i]
        if g < 0 or base[g] < 0:
            continue
        low, high = max(begin[i], 0), end[i]
        if low < high <= LIMIT:
            count = max(high - max(low, top[g]), 0)
            filled = 0
            if low < top[g]:
                behind = base[g] + min(high, top[g])
                at = _search(piece, first[g], limit[g], cursor[g], base[g] + low)
                cursor[g] = at
                at = _find(following, at)
                while at < limit[g] and piece[at] < behind:
                    filled += stop[at] - piece[at]
                    following[at] = at + 1
                    at = _find(following, at)
            new[i] = count + filled
            late[i] = filled > 0
            top[g] = max(top[g], high)
        missing[g] = _find(following, missing[g])
        reached[i] = top[g]
        if missing[g] < limit[g] and piece[missing[g]] - base[g] < top[g]:
            reached[i] = piece[missing[g]] - base[g]
