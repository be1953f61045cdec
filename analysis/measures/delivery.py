"""When the data stream of an observation grew at its receiver, and what each segment added to its subflow.

The definition of in-order delivery is that of `analysis.connections.delivery`: what the receiver acknowledged, each subflow in
its own order, the data stream as far as it is complete (RFC 8684 section 3.3.1). Plain TCP is the case of one subflow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from analysis.connections import delivery
from analysis.connections.coverage import Coverage, cover
from analysis.measures.observation import Int64s, Observation


@dataclass(frozen=True)
class Delivery:
    """In-order growth of the data stream, and what each segment contributed to its subflow.

    `time_ns`, `total_bytes`: moments at which new in-order data became available, and how many bytes there were then.
    `in_subflow`: coverage of the subflows' streams by the segments in order of time.
    """

    time_ns: Int64s
    total_bytes: Int64s
    in_subflow: Coverage

    @property
    def delivered_bytes(self) -> int:
        """Bytes of the data stream that arrived without a hole before them."""
        return int(self.total_bytes[-1]) if self.total_bytes.size else 0


def deliver(seen: Observation, by_acknowledgments: bool = False, at_receiver: bool = False) -> Delivery:
    """Follow the data of an observation. Cost: linear, and sorting where segments are late.

    `by_acknowledgments`: the stream grew when its sender learned of it. That is the way at the sender, where a segment says
    nothing about its arrival; what is learned there is late by the way back. Without any acknowledgment in the capture (one
    direction was captured) all that was on the wire counts as arrived. `at_receiver`: see `analysis.connections.delivery`.
    """
    segments = seen.segments
    in_subflow = cover(segments.flow, segments.flow_begin, segments.flow_end, seen.flows.size)
    if by_acknowledgments:
        return Delivery(*_acknowledged(seen), in_subflow)
    own = replace(
        seen.rec, segments=seen.rec.segments.iloc[seen.segment_rows], acks=seen.rec.acks.iloc[seen.ack_rows]
    )  # a search through all connections for each of them would not be linear
    grown = delivery(own, seen.connection, seen.up, "acknowledged" if len(seen.ack_rows) else "arrival", at_receiver)
    return Delivery(*grown, in_subflow)


def _acknowledged(seen: Observation) -> tuple[Int64s, Int64s]:
    """Growth of the acknowledged data; of what came at one moment the final state counts.

    A FIN or DATA_FIN counts one byte there, but is no data.
    """
    times, reached = seen.acks.time_ns, np.clip(seen.acks.data_ack, 0, seen.segments.end.max(initial=0))
    if not times.size:
        return times, reached
    reached = np.maximum.accumulate(reached)
    last = np.append(times[1:] > times[:-1], True)
    times, reached = times[last], reached[last]
    grew = np.diff(reached, prepend=0) > 0
    return times[grew], reached[grew]
