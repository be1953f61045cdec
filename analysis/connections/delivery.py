"""When a data stream grew: what arrived of it in order, by what the receiver acknowledged or by what was on the wire.

Each subflow delivers in its own order, mappings place the bytes in the data stream, and the data stream is delivered as far
as it is complete. A capture also shows segments that the host then discards, for example after it lost the address they are
sent to, so by default only what it acknowledged counts: on the subflow, or at data level when no acknowledged segment
carried it (taken by the host just before the subflow went away).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from analysis.compiled import compiled
from analysis.connections.coverage import cover
from analysis.connections.model import Array, Bools, Int64s, Reconstruction


class Growth(NamedTuple):
    """Moments at which data streams were complete further than before, in order of time."""

    time_ns: Int64s
    stream: Array
    reached: Int64s


def delivery(
    reconstruction: Reconstruction, connection: int, up: bool, by: Literal["acknowledged", "arrival"] = "acknowledged"
) -> tuple[Int64s, Int64s]:
    """Moments (capture clock, ns) at which the in-order data stream grew, and how many bytes were delivered then.

    `up`: the data that the connection's client sends. `by`: "acknowledged" counts what the receiver acknowledged at any
    time, "arrival" all that was on the wire. Of what arrived at one moment the final state counts.
    """
    every, answers = reconstruction.segments, reconstruction.acks
    rows = np.flatnonzero((every["connection"].to_numpy() == connection) & (every["up"].to_numpy() == up))
    names = ("time_ns", "flow", "flow_begin", "flow_end", "begin", "end")
    time_ns, flow, flow_begin, flow_end, begin, end = (every[name].to_numpy()[rows] for name in names)
    flows = len(reconstruction.flows)
    stream = np.zeros(rows.size, np.int32)
    taken = begin >= 0
    if by == "acknowledged":
        chosen = np.flatnonzero((answers["connection"].to_numpy() == connection) & (answers["up"].to_numpy() == up))
        top = np.full(flows, -1, np.int64)
        np.maximum.at(top, answers["flow"].to_numpy()[chosen], answers["flow_ack"].to_numpy()[chosen])
        acked = np.array([answers["data_ack"].to_numpy()[chosen].max(initial=0)])
        taken = acknowledged(stream, begin, end, flow_begin < top[flow], acked)
    flow_reached = cover(flow, flow_begin, flow_end, flows).reached
    growth = grow(time_ns, flow, flow_end, flow_reached, stream, begin, end, taken, 1)
    last = np.diff(growth.time_ns, append=np.iinfo(np.int64).max) > 0
    return growth.time_ns[last], growth.reached[last]


def acknowledged(stream: Array, begin: Int64s, end: Int64s, on_subflow: Bools, acked: Int64s) -> Bools:
    """Which segments count as taken by the receiver. `on_subflow`: acknowledged there; `acked`: per stream how far it ever
    acknowledged the data."""
    mapped = begin >= 0
    taken = on_subflow & mapped
    candidates = mapped & ~taken & (end <= acked[stream])
    if not candidates.any():
        return taken
    # Those whose bytes no acknowledged segment carried: new when they are painted over all of these.
    concerned = np.zeros(acked.size, np.bool_)
    concerned[stream[candidates]] = True
    known = np.flatnonzero(taken & concerned[stream])
    asked = np.flatnonzero(candidates)
    rows = np.concatenate((known, asked))
    fresh = cover(stream[rows], begin[rows], end[rows], acked.size).new_bytes[known.size :] > 0
    taken[asked[fresh]] = True
    return taken


def grow(
    time_ns: Int64s, direction: Array, flow_end: Int64s, flow_reached: Int64s, stream: Array, begin: Int64s, end: Int64s,
    taken: Bools, streams: int,
) -> Growth:  # fmt: skip
    """When data streams grew. All arrays are one entry per segment in order of time.

    `direction`: flow direction (any number that tells subflows apart), `flow_end` and `flow_reached`: where the segment ends
    in the subflow, and how far that was complete then. `taken`: segments that count.
    """
    ready = _ready_times(time_ns, direction, flow_end, flow_reached)
    rows = np.flatnonzero(taken & (ready >= 0))
    moments = ready[rows]
    if (moments[1:] < moments[:-1]).any():
        order = np.argsort(moments, kind="stable")
        rows, moments = rows[order], moments[order]
    number = stream[rows]
    reached = cover(number, begin[rows], end[rows], streams).reached
    grew = np.zeros(rows.size, np.bool_)
    mark_growth(number, reached, np.zeros(streams, np.int64), grew)
    return Growth(moments[grew], number[grew], reached[grew])


def longest_gaps(growth: Growth, streams: int) -> tuple[Int64s, Int64s]:
    """Per stream how far it was delivered, and the longest time between two moments of growth, -1 without two."""
    reached, gap_ns = np.zeros(streams, np.int64), np.full(streams, -1, np.int64)
    measure_gaps(growth.time_ns, growth.stream, growth.reached, reached, gap_ns)
    return reached, gap_ns


def _ready_times(time_ns: Int64s, direction: Array, flow_end: Int64s, flow_reached: Int64s) -> Int64s:
    """When each segment could be delivered by its subflow: once this is complete up to its end; -1 for never."""
    waiting = np.flatnonzero(flow_reached < flow_end)
    if not waiting.size:
        return time_ns
    ready = time_ns.copy()
    concerned = np.zeros(int(direction.max()) + 1, np.bool_)
    concerned[direction[waiting]] = True
    rows = np.flatnonzero(concerned[direction])
    rows = rows[np.argsort(direction[rows], kind="stable")]
    sizes = np.bincount(direction[rows], minlength=concerned.size)
    first = np.concatenate(([0], np.cumsum(sizes)))
    wait(waiting, rows, first, direction, time_ns, flow_end, flow_reached, ready)
    return ready


@compiled
def wait(
    waiting: Any, rows: Any, first: Any, direction: Any, time_ns: Any, flow_end: Any, flow_reached: Any, ready: Any
) -> None:
    """Set `ready` of the waiting segments. `rows` are those of the directions concerned, by direction, then in order of
    time; direction g has rows[first[g]:first[g + 1]]. `flow_reached` ascends along them."""
    for k in range(waiting.size):
        i = waiting[k]
        g = direction[i]
        low, high = first[g], first[g + 1]
        stop = high
        while low < high:
            middle = (low + high) // 2
            if flow_reached[rows[middle]] < flow_end[i]:
                low = middle + 1
            else:
                high = middle
        ready[i] = max(time_ns[rows[low]], time_ns[i]) if low < stop else -1


@compiled
def mark_growth(stream: Any, reached: Any, before: Any, grew: Any) -> None:
    """Mark the entries at which a stream is complete further than before."""
    for i in range(stream.size):
        g = stream[i]
        grew[i] = reached[i] > before[g]
        before[g] = reached[i]


@compiled
def measure_gaps(time_ns: Any, stream: Any, reached: Any, top: Any, gap_ns: Any) -> None:
    """See `longest_gaps`."""
    last_ns = np.zeros(top.size, np.int64)
    for i in range(stream.size):
        g = stream[i]
        if top[g] > 0:
            gap_ns[g] = max(gap_ns[g], time_ns[i] - last_ns[g])
        last_ns[g] = time_ns[i]
        top[g] = reached[i]


@compiled
def measure_depths(stream: Any, new_bytes: Any, reached: Any, depth: Any) -> None:
    """Per stream the most bytes that lay beyond its first hole at one moment."""
    total = np.zeros(depth.size, np.int64)
    for i in range(stream.size):
        if new_bytes[i] > 0:
            g = stream[i]
            total[g] += new_bytes[i]
            depth[g] = max(depth[g], total[g] - reached[i])


def out_of_order_depths(stream: Array, new_bytes: Int64s, reached: Int64s, streams: int) -> Int64s:
    """Per data stream its largest out-of-order depth: bytes that had arrived beyond its first hole, at the worst moment."""
    depth = np.zeros(streams, np.int64)
    measure_depths(stream, new_bytes, reached, depth)
    return depth
