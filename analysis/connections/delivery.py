"""When a data stream grew: what arrived of it in order, by what the receiver acknowledged or by what was on the wire.

Each subflow delivers in its own order, mappings place the bytes in the data stream, and the data stream is delivered as far
as it is complete. A capture also shows segments that the host then discards, for example after it lost the address they are
sent to, so by default only what it acknowledged counts: on the subflow, or at data level when no acknowledged segment
carried it (taken by the host just before the subflow went away). The other way round, a capture may lack segments that
the host has: see `analysis.connections.missed`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from analysis.compiled import compiled
from analysis.connections.coverage import cover
from analysis.connections.missed import Answers, Spans, by_stream, find_missed, reach
from analysis.connections.model import Array, Bools, Int64s, Reconstruction

_NEVER_NS = np.iinfo(np.int64).max
_DELAYED_ACK_NS = 200_000_000
"""Linux delays no acknowledgment longer (TCP_DELACK_MAX); RFC 5681 section 4.2 allows 500 ms."""


class Growth(NamedTuple):
    """Moments at which data streams were complete further than before, in order of time."""

    time_ns: Int64s
    stream: Array
    reached: Int64s


@dataclass
class Transfer:
    """Segments and acknowledgments of some data streams, each in order of time.

    `direction`: number that tells subflows and directions apart; `flow_begin`, `flow_end`: positions in it; `begin`, `end`:
    positions in the data stream, -1 for none; `flow_new`, `new_bytes`: bytes nobody carried before on the two levels;
    `flow_reached`: how far the subflow is complete. Of acknowledgments: `ack_direction` and `ack_stream` of the data
    acknowledged, `flow_ack` and `data_ack` how far, -1 for not at all.
    """

    time_ns: Int64s
    direction: Array
    stream: Array
    flow_begin: Int64s
    flow_end: Int64s
    begin: Int64s
    end: Int64s
    flow_new: Int64s
    new_bytes: Int64s
    flow_reached: Int64s
    ack_time_ns: Int64s
    ack_direction: Array
    ack_stream: Array
    flow_ack: Int64s
    data_ack: Int64s
    directions: int
    streams: int


class Delivered(NamedTuple):
    """When data streams grew, and the bytes that were acknowledged though they are not in the capture."""

    growth: Growth
    missed: Spans


def delivery(
    reconstruction: Reconstruction,
    connection: int,
    up: bool,
    by: Literal["acknowledged", "arrival"] = "acknowledged",
    at_receiver: bool = False,
) -> tuple[Int64s, Int64s]:
    """Moments (capture clock, ns) at which the in-order data stream grew, and how many bytes were delivered then.

    `up`: the data that the connection's client sends. `by`: "acknowledged" counts what the receiver acknowledged at any
    time, "arrival" all that was on the wire. Of what arrived at one moment the final state counts. Bytes that were
    acknowledged and are not in the capture count from their acknowledgment on, where captured ones follow. `at_receiver`: the
    capture was made there, so that the acknowledgment of data tells which of several copies its host took.
    """
    transfer = _transfer(reconstruction, connection, up)
    growth = deliver(transfer, np.array([by == "arrival"]), at_receiver).growth
    last = np.diff(growth.time_ns, append=np.iinfo(np.int64).max) > 0
    return growth.time_ns[last], growth.reached[last]


def _transfer(reconstruction: Reconstruction, connection: int, up: bool) -> Transfer:
    """One direction of one connection; its subflows are the directions."""
    every, answers = reconstruction.segments, reconstruction.acks
    rows = np.flatnonzero((every["connection"].to_numpy() == connection) & (every["up"].to_numpy() == up))
    names = ("time_ns", "subflow", "flow_begin", "flow_end", "begin", "end", "new_bytes")
    time_ns, direction, flow_begin, flow_end, begin, end, new_bytes = (every[name].to_numpy()[rows] for name in names)
    answer = np.flatnonzero((answers["connection"].to_numpy() == connection) & (answers["up"].to_numpy() == up))
    ack_direction = answers["subflow"].to_numpy()[answer]
    directions = int(max(direction.max(initial=-1), ack_direction.max(initial=-1))) + 1
    coverage = cover(direction, flow_begin, flow_end, directions)
    return Transfer(
        time_ns=time_ns,
        direction=direction,
        stream=np.zeros(rows.size, np.int32),
        flow_begin=flow_begin,
        flow_end=flow_end,
        begin=begin,
        end=end,
        flow_new=coverage.new_bytes,
        new_bytes=new_bytes,
        flow_reached=coverage.reached,
        ack_time_ns=answers["time_ns"].to_numpy()[answer],
        ack_direction=ack_direction,
        ack_stream=np.zeros(answer.size, np.int32),
        flow_ack=answers["flow_ack"].to_numpy()[answer],
        data_ack=answers["data_ack"].to_numpy()[answer],
        directions=directions,
        streams=1,
    )


def deliver(transfer: Transfer, everything: Bools, at_receiver: bool = False) -> Delivered:
    """When the data streams grew. `everything`: streams of which all counts that was on the wire; `at_receiver`: see above."""
    t = transfer
    on_flow, on_data = np.full(t.directions, -1, np.int64), np.zeros(t.streams, np.int64)
    np.maximum.at(on_flow, t.ack_direction, t.flow_ack)
    np.maximum.at(on_data, t.ack_stream, t.data_ack)
    data_ack_ns = _data_ack_times(t)
    on_subflow = t.flow_begin < on_flow[t.direction]
    taken = acknowledged(t.stream, t.begin, t.end, on_subflow, on_data)
    if at_receiver:
        taken = _last_before(t, data_ack_ns, taken)
    taken |= everything[t.stream] & (t.begin >= 0)
    lost = find_missed(Spans(t.time_ns, t.direction, t.flow_begin, t.flow_end), t.flow_new, on_flow, _flow_answers(t))
    mapped = np.where(t.begin >= 0, t.stream, np.int32(-1))
    gone = find_missed(Spans(t.time_ns, mapped, t.begin, t.end), t.new_bytes, on_data, _data_answers(t))
    if lost.time_ns.size:
        t, taken, data_ack_ns = _with_lost(t, taken, data_ack_ns, lost)
    growth = grow(
        t.time_ns, t.direction, t.flow_end, t.flow_reached, t.stream, t.begin, t.end, taken, t.streams, missed=gone,
        data_ack_ns=data_ack_ns,
    )  # fmt: skip
    return Delivered(growth, gone)


def _flow_answers(t: Transfer) -> Any:
    def answers(wanted: Bools) -> Answers:
        rows = np.flatnonzero(wanted[t.ack_direction] & (t.flow_ack >= 0))
        return Answers(t.ack_time_ns[rows], t.ack_direction[rows], t.flow_ack[rows])

    return answers


def _data_answers(t: Transfer) -> Any:
    def answers(wanted: Bools) -> Answers:
        rows = np.flatnonzero(wanted[t.ack_stream] & (t.data_ack >= 0))
        return Answers(t.ack_time_ns[rows], t.ack_stream[rows], t.data_ack[rows])

    return answers


def _together(first: Spans, second: Spans) -> Spans:
    """Both, the first ones before."""
    return Spans(*(np.concatenate(pair) for pair in zip(first, second, strict=True))) if second.time_ns.size else first


def _in_order(spans: Spans) -> Spans:
    """The same in order of time."""
    if (spans.time_ns[1:] < spans.time_ns[:-1]).any():
        order = np.argsort(spans.time_ns, kind="stable")
        return Spans(*(column[order] for column in spans))
    return spans


def _with_lost(t: Transfer, taken: Bools, data_ack_ns: Int64s, lost: Spans) -> tuple[Transfer, Bools, Int64s]:
    """The segments, which of them count and when they were acknowledged, with the bytes that subflows lost added.

    The lost bytes have no place in the data stream and do not count; they only help what comes behind them.
    """
    order = np.argsort(np.concatenate((lost.time_ns, t.time_ns)), kind="stable")

    def merged(of_lost: Any, column: Any) -> Any:
        return np.concatenate((np.broadcast_to(of_lost, lost.time_ns.shape), column))[order]

    direction, end = merged(lost.stream, t.direction), merged(lost.end, t.flow_end)
    more = replace(
        t,
        time_ns=merged(lost.time_ns, t.time_ns),
        direction=direction,
        flow_end=end,
        flow_reached=cover(direction, merged(lost.begin, t.flow_begin), end, t.directions).reached,
        stream=merged(0, t.stream),
        begin=merged(-1, t.begin),
        end=merged(-1, t.end),
    )
    return more, merged(False, taken), merged(_NEVER_NS, data_ack_ns)


def _data_ack_times(t: Transfer) -> Int64s:
    """When the data of each segment was acknowledged at data level for the first time; the end of time for never."""
    rows = np.flatnonzero(t.data_ack >= 0)
    rows = rows[np.argsort(t.ack_stream[rows], kind="stable")]
    # One ascending list for all streams: a stream's acknowledgments lie between its base and the next one's.
    width = int(max(t.data_ack.max(initial=0), t.end.max(initial=0))) + 2
    reached = np.maximum.accumulate(t.ack_stream[rows].astype(np.int64) * width + t.data_ack[rows])
    wanted = t.stream.astype(np.int64) * width + t.end
    at = np.searchsorted(reached, wanted)
    times = np.full(t.time_ns.shape, _NEVER_NS)
    found = np.flatnonzero((t.begin >= 0) & (at < rows.size))
    found = found[t.ack_stream[rows[at[found]]] == t.stream[found]]
    times[found] = t.ack_time_ns[rows[at[found]]]
    return times


def _last_before(t: Transfer, data_ack_ns: Int64s, otherwise: Bools) -> Bools:
    """Of the copies that came before their data was acknowledged, the last of every byte; `otherwise` where there are none.

    What fills a hole is acknowledged at once, and all else soon (RFC 5681 section 4.2): had an earlier copy been taken, the
    acknowledgment would have come before the later one. A copy that came after the acknowledgment was not needed. That needs
    a host whose acknowledgments get out: of copies that nobody acknowledged for longer than an acknowledgment may be delayed,
    as of a host that has just lost its address, the first one counts.
    """
    early = (t.begin >= 0) & (t.time_ns <= data_ack_ns) & (data_ack_ns < _NEVER_NS)
    if (t.new_bytes[early] == t.end[early] - t.begin[early]).all() and not (otherwise & ~early).any():
        return early
    soon = early & (data_ack_ns - t.time_ns <= _DELAYED_ACK_NS)
    rows = np.concatenate((np.flatnonzero(soon)[::-1], np.flatnonzero(early & ~soon), np.flatnonzero(otherwise & ~early)))
    counts = cover(t.stream[rows], t.begin[rows], t.end[rows], t.streams).new_bytes > 0
    taken = np.zeros(early.size, np.bool_)
    taken[rows[counts]] = True
    return taken


def acknowledged(stream: Array, begin: Int64s, end: Int64s, on_subflow: Bools, on_data: Int64s) -> Bools:
    """Which segments count as taken by the receiver. `on_subflow`: acknowledged there; `on_data`: per stream how far it ever
    acknowledged the data. Positions in the data stream are -1 for segments without a place in it."""
    mapped = begin >= 0
    taken = on_subflow & mapped
    candidates = mapped & ~taken & (end <= on_data[stream])
    if not candidates.any():
        return taken
    # Those whose bytes no acknowledged segment carried: new when they are painted over all of these.
    concerned = np.zeros(on_data.size, np.bool_)
    concerned[stream[candidates]] = True
    known = np.flatnonzero(taken & concerned[stream])
    asked = np.flatnonzero(candidates)
    rows = np.concatenate((known, asked))
    fresh = cover(stream[rows], begin[rows], end[rows], on_data.size).new_bytes[known.size :] > 0
    taken[asked[fresh]] = True
    return taken


def grow(
    time_ns: Int64s, direction: Array, flow_end: Int64s, flow_reached: Int64s, stream: Array, begin: Int64s, end: Int64s,
    taken: Bools, streams: int, missed: Spans | None = None, data_ack_ns: Int64s | None = None,
) -> Growth:  # fmt: skip
    """When data streams grew. All arrays have one entry per segment in order of time.

    `direction`: flow direction (any number that tells subflows apart), `flow_end` and `flow_reached`: where the segment ends
    in the subflow, and how far that was complete then. `taken`: segments that count; `missed`: what counts beside them;
    `data_ack_ns`: when the data level acknowledged each of them.
    """
    moments = _ready_times(time_ns, direction, flow_end, flow_reached)
    if data_ack_ns is not None:
        moments = _without_order(stream, begin, end, taken, streams, time_ns, moments, data_ack_ns)
    rows = np.flatnonzero(taken & (moments >= 0))
    arrived = Spans(moments[rows], stream[rows], begin[rows], end[rows])
    if missed is not None:
        arrived = _together(arrived, missed)
    arrived = _in_order(arrived)
    reached = cover(arrived.stream, arrived.begin, arrived.end, streams).reached
    grew = np.zeros(reached.size, np.bool_)
    mark_growth(arrived.stream, reached, np.zeros(streams, np.int64), grew)
    return Growth(arrived.time_ns[grew], arrived.stream[grew], reached[grew])


def _without_order(
    stream: Array, begin: Int64s, end: Int64s, taken: Bools, streams: int, time_ns: Int64s, moments: Int64s, data_ack_ns: Int64s
) -> Int64s:
    """Moments of segments that the data level acknowledged before their subflow was complete, where no other copy explains it:
    their receiver needs no order there, as a proxy does not. Such a segment counts when it came."""
    late = taken & (data_ack_ns < np.where(moments < 0, np.iinfo(np.int64).max, moments))
    if not late.any():
        return moments
    known, asked = np.flatnonzero(taken & ~late), np.flatnonzero(late)
    rows = np.concatenate((known, asked))
    fresh = cover(stream[rows], begin[rows], end[rows], streams).new_bytes[known.size :] > 0
    moments = moments.copy()
    moments[asked[fresh]] = time_ns[asked[fresh]]
    return moments


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
    concerned = np.zeros(int(direction.max()) + 1, np.bool_)
    concerned[direction[waiting]] = True
    rows = np.flatnonzero(concerned[direction])
    order, first = by_stream(direction[rows], concerned.size)
    index = np.empty(waiting.size, np.int64)
    reach(direction[waiting], flow_end[waiting], order, first, flow_reached[rows], index)
    ready = time_ns.copy()
    ready[waiting] = np.where(index >= 0, np.maximum(time_ns[rows[index]], time_ns[waiting]), -1)
    return ready


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
    """See `out_of_order_depths`."""
    total = np.zeros(depth.size, np.int64)
    for i in range(stream.size):
        if new_bytes[i] > 0:
            g = stream[i]
            total[g] += new_bytes[i]
            depth[g] = max(depth[g], total[g] - reached[i])


def out_of_order_depths(transfer: Transfer, reached: Int64s, missed: Spans) -> Int64s:
    """Per data stream its largest out-of-order depth: bytes beyond its first hole, at the worst moment.

    `reached`: how far the data stream is complete at each segment. Missed bytes count from their acknowledgment on.
    """
    t = transfer
    depth = np.zeros(t.streams, np.int64)
    measure_depths(t.stream, t.new_bytes, reached, depth)
    if missed.time_ns.size:
        concerned = np.zeros(t.streams, np.bool_)
        concerned[missed.stream] = True
        rows = np.flatnonzero(concerned[t.stream] & (t.begin >= 0))
        every = _in_order(_together(Spans(t.time_ns[rows], t.stream[rows], t.begin[rows], t.end[rows]), missed))
        coverage = cover(every.stream, every.begin, every.end, t.streams)
        depth[concerned] = 0
        measure_depths(every.stream, coverage.new_bytes, coverage.reached, depth)
    return depth
