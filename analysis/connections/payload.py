"""Segments with payload: their place in the data stream, and what of it is new, repeated or reinjected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.connections.coverage import cover
from analysis.connections.datanumbers import INVALID, DataNumbers
from analysis.connections.mapping import Runs, Segments, find_runs, own_places, place
from analysis.connections.membership import Membership
from analysis.connections.model import (
    FIRST,
    LIMIT,
    REINJECTION,
    RETRANSMISSION,
    UNMAPPED,
    Array,
    Bools,
    Int32s,
    Int64s,
)
from analysis.connections.offers import CAPABLE, Offers
from analysis.connections.positions import Positions
from analysis.packets.schema import RST
from analysis.packets.table import PacketTable


@dataclass
class Payload:
    """One entry per segment with payload, in order of time; a segment that spans several mappings is split.

    `row`: row of the packet table; `direction`: flow direction; `stream`: data stream. `begin`, `end`: positions in the data
    stream, both -1 for bytes without a mapping and for bytes before the first one seen. `flow_begin`, `flow_end`: positions
    in the subflow's stream, `flow_reached`: how far this is then complete. `new_bytes`: bytes nobody carried before,
    `reached`: how far the data stream is then complete. `late`: the segment filled a hole in its subflow. `reinjected`:
    new bytes of the subflow with data that was sent before.
    """

    row: Int32s
    direction: Int32s
    stream: Int32s
    begin: Int64s
    end: Int64s
    flow_begin: Int64s
    flow_end: Int64s
    flow_new: Int64s
    flow_reached: Int64s
    new_bytes: Int64s
    reached: Int64s
    reinjected: Int64s
    kind: Array
    late: Bools


@dataclass(frozen=True)
class Fallen:
    """Data streams that went on without mappings, per stream: `bytes` sent without one, 0 where nothing fell back."""

    bytes: Int64s


def find_payload(
    table: PacketTable, positions: Positions, offers: Offers, member: Membership, mptcp: Bools, numbers: DataNumbers
) -> tuple[Payload, Fallen]:
    """Place all payload. `mptcp`: connections whose data has mappings.

    Payload of a RST is a text for people and not counted. After a fallback, that is when the only subflow with payload goes
    on without mappings, its last mapping goes on for ever (RFC 8684 section 3.7).
    """
    usable = (positions.direction >= 0) & (table["payload_bytes"] > 0) & (table["flags"] & RST == 0)
    row = np.flatnonzero(usable).astype(np.int32)
    begin = positions.begin[row]
    segments = Segments(row, positions.direction[row], begin, begin + table["payload_bytes"][row])
    streams = member.streams
    stream = streams[segments.direction]
    fallen = np.zeros(streams.size, np.int64)
    data = begin
    mapped = np.flatnonzero(mptcp[stream >> 1])
    if mapped.size:
        chosen = segments if mapped.size == row.size else segments.take(mapped)
        data = begin.copy()
        data[mapped] = own = own_places(table, chosen, positions, numbers)
        left = mapped[own == INVALID]
        if left.size:
            runs, fallen = _runs_of(table, positions, offers, numbers, segments, left, streams)
            pieces = place(segments.take(left), table["time_ns"][row[left]], runs, streams.size)
            source, parts = _spread(row.size, left, pieces.segment)
            segments = segments.take(source)
            segments.begin[parts], segments.end[parts] = pieces.begin, pieces.end
            data = data[source]
            data[parts] = pieces.data
            stream = stream[source]
            del pieces, source, parts
        del chosen, own, left
    # Where a segment was split its parts are covered one by one.
    coverage = cover(segments.direction, segments.begin, segments.end, streams.size)
    out = Payload(
        row=segments.row,
        direction=segments.direction,
        stream=stream,
        begin=np.maximum(data, 0),
        end=data + (segments.end - segments.begin),
        flow_begin=segments.begin,
        flow_end=segments.end,
        flow_new=coverage.new_bytes,
        flow_reached=coverage.reached,
        new_bytes=coverage.new_bytes,
        reached=coverage.reached,
        reinjected=np.zeros(0, np.int64),
        kind=np.where(coverage.new_bytes > 0, np.uint8(FIRST), np.uint8(RETRANSMISSION)),
        late=coverage.late,
    )
    _judge(out, data, streams, mptcp)
    return out, Fallen(fallen)


def _spread(count: int, left: Int64s, segment: Int64s) -> tuple[Int64s, Int64s]:
    """Make room for the pieces of the segments `left`: the source of each new entry, and where the pieces go."""
    copies = np.ones(count, np.int64)
    copies[left] = np.bincount(segment, minlength=left.size)
    source = np.repeat(np.arange(count), copies)
    is_left = np.zeros(count, np.bool_)
    is_left[left] = True
    return source, np.flatnonzero(is_left[source])


def _runs_of(
    table: PacketTable,
    positions: Positions,
    offers: Offers,
    numbers: DataNumbers,
    segments: Segments,
    left: Int64s,
    streams: Array,
) -> tuple[Runs, Int64s]:
    """Mappings of the subflows of the segments `left`; open-ended where the stream fell back to TCP."""
    wanted = np.zeros(streams.size, np.bool_)
    wanted[segments.direction[left]] = True
    runs = find_runs(table, positions, numbers, wanted, (offers.data_rows, offers.data_bytes))
    final = np.full(streams.size, -1, np.int64)
    final[runs.direction] = np.arange(runs.start.size)
    top = np.zeros(streams.size, np.int64)
    np.maximum.at(top, runs.direction, runs.stop)
    direction = segments.direction[left]
    beyond = np.maximum(segments.end[left] - np.maximum(segments.begin[left], top[direction]), 0)
    unmapped = np.bincount(direction, beyond, streams.size).astype(np.int64)
    used = np.zeros(streams.size, np.bool_)
    used[segments.direction] = True
    alone = np.bincount(streams[used], minlength=streams.size) == 1
    able = np.repeat(offers.state == CAPABLE, 2)
    fell = np.flatnonzero((unmapped > 0) & alone[streams] & able)
    _bridge(runs, alone[streams] & able)
    ended = final[fell]
    runs.stop[ended[ended >= 0]] = LIMIT
    fallen = np.zeros(streams.size, np.int64)
    fallen[streams[fell]] = unmapped[fell]
    return _with_identity(runs, fell[ended < 0]), fallen


def _bridge(runs: Runs, alone: Bools) -> None:
    """On an only subflow bytes between two mappings of the same shift have this shift, too: a mapping was not captured, or
    the sender had fallen back some time before it said so by an infinite mapping."""
    same = (runs.direction[1:] == runs.direction[:-1]) & (runs.shift[1:] == runs.shift[:-1]) & alone[runs.direction[1:]]
    before = np.flatnonzero(same)
    runs.stop[before] = np.maximum(runs.stop[before], runs.start[before + 1])


def _with_identity(runs: Runs, directions: Int64s) -> Runs:
    """Add a mapping of the whole subflow on the whole data stream for flow directions without any."""
    if not directions.size:
        return runs
    zero = np.zeros(directions.size, np.int64)
    direction = np.concatenate((runs.direction, directions))
    order = np.argsort(direction, kind="stable")
    more = (zero, zero + LIMIT, zero, zero, zero)
    old = runs.start, runs.stop, runs.shift, runs.first, runs.last
    return Runs(direction[order], *(np.concatenate(pair)[order] for pair in zip(old, more, strict=True)))


def _judge(out: Payload, data: Int64s, streams: Array, mptcp: Bools) -> None:
    """Kinds of all entries, and for MPTCP what of the data is new."""
    lost = (data == INVALID) | (out.end > LIMIT) | (out.flow_end > LIMIT)
    early = (out.end <= 0) & ~lost
    mapped = mptcp[out.stream >> 1]
    if mapped.any():
        number = np.where(mapped & ~lost, out.stream, np.int32(-1))
        at_data = cover(number, out.begin, out.end, streams.size)
        # New bytes of the subflow that are not new to the data stream. (The other way round only a middlebox does it.)
        out.reinjected = np.where(number >= 0, np.maximum(out.flow_new - at_data.new_bytes, 0), 0)
        out.new_bytes = np.where(mapped, at_data.new_bytes, out.new_bytes)
        out.reached = np.where(mapped, at_data.reached, out.reached)
        out.kind = np.where(out.new_bytes > 0, np.uint8(FIRST), np.uint8(RETRANSMISSION))
        out.kind[(out.new_bytes == 0) & (out.reinjected > 0)] = REINJECTION
    out.kind[lost] = UNMAPPED
    nowhere = lost | early
    out.begin[nowhere], out.end[nowhere] = -1, -1


def totals(index: Any, size: int, weights: Any = None) -> Int64s:
    """Sums per number, exact up to 2^53."""
    return np.bincount(index, weights, size).astype(np.int64)
