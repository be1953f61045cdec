"""Placing the bytes of subflows in data streams by their DSS mappings (RFC 8684 section 3.3.1).

Most segments lie inside the mapping they carry. The others need the mappings of the whole subflow: these are joined to runs
of constant distance between subflow and data stream and searched by position. Where runs contradict each other, the one that
was sent nearest in time counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.compiled import compiled
from analysis.connections.datanumbers import INVALID, DataNumbers
from analysis.connections.model import LIMIT, Array, Int64s
from analysis.connections.positions import Positions
from analysis.packets.schema import DSS_DATA_FIN, DSS_MAP
from analysis.packets.table import PacketTable

_MOST_PIECES = 64  # of one segment: input made to hurt could ask for as many as it has bytes
_MOST_CANDIDATES = 16  # contradicting runs looked at for one byte


@dataclass(frozen=True)
class Segments:
    """Segments with payload in order of time: row of the packet table, flow direction, positions in the subflow's stream."""

    row: Array
    direction: Array
    begin: Int64s
    end: Int64s

    def take(self, index: Any) -> Segments:
        """Some of them."""
        return Segments(self.row[index], self.direction[index], self.begin[index], self.end[index])


@dataclass(frozen=True)
class Pieces:
    """Parts of segments, in the order of the segments: `segment` index, positions in the subflow, and `data`, the position
    in the data stream, INVALID for bytes without a mapping."""

    segment: Int64s
    begin: Int64s
    end: Int64s
    data: Int64s


@dataclass
class Runs:
    """Mappings of flow directions, joined: subflow positions [start, stop) lie at data positions start + shift. Ascending
    by direction and start; `first`, `last`: when the run was sent first and last."""

    direction: Array
    start: Int64s
    stop: Int64s
    shift: Int64s
    first: Int64s
    last: Int64s


def own_places(table: PacketTable, segments: Segments, positions: Positions, numbers: DataNumbers) -> Int64s:
    """Data position of each segment that lies inside the mapping it carries; INVALID for the others."""
    given = segments.row, segments.direction, segments.begin, segments.end
    options = table["dss_flags"], table["ssn"], table["map_bytes"]
    places: Int64s = inside_own(*given, *options, positions.begin, positions.origin, numbers.data)
    return places


def find_runs(
    table: PacketTable, positions: Positions, numbers: DataNumbers, wanted: Array, implied: tuple[Int64s, Int64s]
) -> Runs:
    """Runs of the flow directions for which `wanted` is set.

    `implied`: rows and lengths of MP_CAPABLE options with data, which map the beginning of both streams. An infinite mapping
    (length 0, RFC 8684 section 3.7) goes on for ever.
    """
    flags = table["dss_flags"]
    rows = np.flatnonzero((flags & DSS_MAP > 0) & (numbers.data != INVALID))
    rows = rows[wanted[positions.direction[rows]]]
    fin = (flags[rows] & DSS_DATA_FIN > 0).astype(np.int64)
    size = table["map_bytes"][rows].astype(np.int64)
    size = np.where((size == 0) & (fin == 0), LIMIT, size - fin)
    rows, size = rows[size > 0], size[size > 0]
    start = ssn_positions(table, positions, rows)
    data = numbers.data[rows]
    extra = wanted[positions.direction[implied[0]]]
    more = implied[0][extra]
    rows = np.concatenate((rows, more))
    start, data = (np.concatenate((a, np.zeros(more.size, np.int64))) for a in (start, data))
    size = np.concatenate((size, implied[1][extra]))
    order = np.argsort(rows, kind="stable")
    rows, start, size, data = (a[order] for a in (rows, start, size, data))
    return _joined(positions.direction[rows], start, np.minimum(start + size, LIMIT), data - start, table["time_ns"][rows])


def ssn_positions(table: PacketTable, positions: Positions, rows: Array) -> Int64s:
    """Positions at which the mappings in `rows` begin: the nearest to the segment that carries them."""
    number = table["ssn"][rows].astype(np.int64) - 1 - positions.origin[positions.direction[rows]]
    begin = positions.begin[rows]
    return begin + (((number - begin + (1 << 31)) & 0xFFFFFFFF) - (1 << 31))


def _joined(direction: Array, start: Int64s, stop: Int64s, shift: Int64s, time_ns: Int64s) -> Runs:
    """Join mappings in order of time to runs."""
    kept = np.empty(start.size, np.int64)
    last = np.empty(start.size, np.int64)
    stop = stop.copy()
    top = int(direction.max(initial=-1)) + 1
    count = join_neighbours(direction, start, stop, shift, time_ns, np.full(top, -1, np.int64), kept, last)
    kept, last = kept[:count], last[:count]
    order = np.lexsort((start[kept], direction[kept]))
    kept, last = kept[order], last[order]
    columns = [a[kept] for a in (direction, start, stop, shift, time_ns)] + [last]
    count = join_sorted(*columns)
    return Runs(*(column[:count].copy() for column in columns))


def place(segments: Segments, time_ns: Int64s, runs: Runs, directions: int) -> Pieces:
    """Place segments, sent at `time_ns`, in the data stream; what spans several runs is split.

    `directions`: how many flow directions there are.
    """
    first = np.searchsorted(runs.direction, np.arange(directions + 1))
    given = segments.direction, segments.begin, segments.end, time_ns
    table = runs.start, runs.stop, runs.shift, runs.first, runs.last, first
    room = np.int64(4 * segments.begin.size + 1024)
    none = np.empty(0, np.int64)
    count = place_all(*given, *table, room, False, none, none, none, none)
    out = Pieces(*(np.empty(count, np.int64) for _ in range(4)))
    place_all(*given, *table, room, True, out.segment, out.begin, out.end, out.data)
    return out


@compiled
def inside_own(
    row: Any, direction: Any, begin: Any, end: Any, flags: Any, ssn: Any, map_bytes: Any, at: Any, origin: Any, data: Any
) -> Any:
    """See `own_places`."""
    out = np.full(row.size, INVALID, np.int64)
    for k in range(row.size):
        i = row[k]
        if flags[i] & DSS_MAP == 0 or data[i] == INVALID:
            continue
        size = np.int64(map_bytes[i]) - (1 if flags[i] & DSS_DATA_FIN else 0)
        number = np.int64(ssn[i]) - 1 - origin[direction[k]]
        start = at[i] + ((number - at[i] + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        if start <= begin[k] and end[k] <= start + size:
            out[k] = data[i] + begin[k] - start
    return out


@compiled
def join_neighbours(direction: Any, start: Any, stop: Any, shift: Any, time_ns: Any, newest: Any, kept: Any, last: Any) -> Any:
    """Join each mapping to the run before it in its direction when it repeats or continues it. `kept`: index of the first
    mapping of each run, whose `stop` is moved; returns the number of runs."""
    count = 0
    for i in range(start.size):
        g = direction[i]
        r = newest[g]
        if r >= 0:
            j = kept[r]
            if shift[i] == shift[j] and start[j] <= start[i] <= stop[j]:
                stop[j] = max(stop[j], stop[i])
                last[r] = time_ns[i]
                continue
        kept[count] = i
        last[count] = time_ns[i]
        newest[g] = count
        count += 1
    return count


@compiled
def join_sorted(direction: Any, start: Any, stop: Any, shift: Any, first: Any, last: Any) -> Any:
    """Join neighbouring runs with the same shift in place; returns the number of runs left."""
    count = 0
    for i in range(start.size):
        j = count - 1
        if j >= 0 and direction[j] == direction[i] and shift[j] == shift[i] and start[i] <= stop[j]:
            stop[j] = max(stop[j], stop[i])
            first[j], last[j] = min(first[j], first[i]), max(last[j], last[i])
            continue
        direction[count], start[count], stop[count], shift[count] = direction[i], start[i], stop[i], shift[i]
        first[count], last[count] = first[i], last[i]
        count += 1
    return count


@compiled
def _lookup(start: Any, stop: Any, first: Any, last: Any, low: Any, high: Any, position: Any, time_ns: Any) -> Any:
    """Run in [low, high) that covers a position, the nearest in time of those that do; -1 without one. Second: the first
    run that begins behind the position."""
    a, b = low, high
    while a < b:
        middle = (a + b) // 2
        if start[middle] <= position:
            a = middle + 1
        else:
            b = middle
    best = -1
    nearest = np.int64(0)
    for r in range(a - 1, max(low, a - _MOST_CANDIDATES) - 1, -1):
        if stop[r] > position:
            distance = max(first[r] - time_ns, time_ns - last[r], 0)
            if best < 0 or distance < nearest:
                best, nearest = r, distance
    return best, a


@compiled
def place_all(
    direction: Any, begin: Any, end: Any, time_ns: Any, start: Any, stop: Any, shift: Any, first: Any, last: Any,
    runs_of: Any, room: Any, fill: Any, out_segment: Any, out_begin: Any, out_end: Any, out_data: Any,
) -> Any:  # fmt: skip
    """Count the pieces of all segments, and write them when `fill` is set. Returns their number.

    Beyond `room` pieces a segment is not split any more.
    """
    count = 0
    for k in range(begin.size):
        g = direction[k]
        low, high = runs_of[g], runs_of[g + 1]
        at, pieces = begin[k], 0
        before = np.int64(0)
        while at < end[k]:
            until, here = end[k], np.int64(INVALID)
            if pieces < _MOST_PIECES and count < room:
                r, behind = _lookup(start, stop, first, last, low, high, at, time_ns[k])
                if behind < high:
                    until = min(until, start[behind])
                if r >= 0:
                    until = min(until, stop[r])
                    here = shift[r]
            if pieces == 0 or here != before:
                if fill:
                    out_segment[count], out_begin[count] = k, at
                    out_data[count] = at + here if here != INVALID else INVALID
                count += 1
            if fill:
                out_end[count - 1] = until
            before = here
            pieces += 1
            at = until
    return count
