"""Reordering after RFC 4737, for numbered packets and for segments of byte streams.

A packet is reordered when a packet that was sent after it arrived before it (RFC 4737 section 3: its number is below the
next expected one). Only the first copy of a packet counts. A TCP segment can also be late because its first copy was lost
before it reached the capture point; `overtaken` tells these apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.connections.coverage import Coverage
from analysis.measures.observation import Array, Bools, Int64s
from analysis.sequence import signed32


class Reordering(NamedTuple):
    """Packets of the sample (first copies) and how many of them are reordered; RFC 4737 section 4.

    `extent`: largest number of packets by which one came too late, counted from the earliest that overtook it; `late_ms`:
    largest time since that one. `ratio` is None without packets.
    """

    packets: int
    reordered: int
    extent: int
    late_ms: float

    @property
    def ratio(self) -> float | None:
        """Reordered packets / packets."""
        return self.reordered / self.packets if self.packets else None


def overtakers(number: Int64s) -> Int64s:
    """For each arrival the index of the earliest one before it with a greater number, its own index when there is none."""
    highest = np.maximum.accumulate(number) if number.size else number
    return np.minimum(np.searchsorted(highest, number, side="right"), np.arange(number.size))


def is_reordered(number: Int64s) -> Bools:
    """RFC 4737 section 3 for packets in order of arrival, without second copies."""
    return overtakers(number) < np.arange(number.size)


def summarise(overtaker: Int64s, time_ns: Int64s, reordered: Bools) -> Reordering:
    """Figures of one sample of packets in order of arrival; `overtaker` as `overtakers` gives it."""
    extent = (np.arange(overtaker.size) - overtaker)[reordered]
    late_ns = (time_ns - time_ns[overtaker])[reordered]
    return Reordering(overtaker.size, int(reordered.sum()), int(extent.max(initial=0)), int(late_ns.max(initial=0)) / 1e6)


def together(samples: Sequence[Reordering]) -> Reordering:
    """Samples of several flows as one."""
    packets, reordered, extent, late_ms = zip(*samples, strict=True) if samples else ((0,), (0,), (0,), (0.0,))
    return Reordering(sum(packets), sum(reordered), max(extent), max(late_ms))


def datagram_reordering(number: Int64s, time_ns: Int64s) -> Reordering:
    """Reordering of numbered datagrams in order of arrival, second copies left out."""
    before = overtakers(number)
    return summarise(before, time_ns, before < np.arange(number.size))


class Late(NamedTuple):
    """First copies of one flow's segments in order of arrival: `chosen`, indices of the segments given, and for each the
    place of its overtaker in `chosen`; `reordered`: overtaken on the way; `filled`: late because it was sent again."""

    chosen: Int64s
    overtaker: Int64s
    reordered: Bools
    filled: Bools


def late_segments(begin: Int64s, time_ns: Int64s, coverage: Coverage, stamp: Array, stamped: Bools, rtt_ns: int | None) -> Late:
    """Tell reordering from retransmission in one flow (one direction), whose segments are in order of arrival.

    A segment is late when it fills a hole below bytes seen earlier. It was overtaken on its way when its timestamp (`stamp`,
    where `stamped`: RFC 7323) is older than that of the segment that overtook it. With equal stamps, or without, it was when
    it came within a round trip of it: a retransmission answers acknowledgments that the hole caused, so it cannot come sooner
    (Jaiswal et al., "Measurement and Classification of Out-of-Sequence Packets in a Tier-1 IP Backbone", 2003). Late segments
    about which neither says anything count as sent again.
    """
    chosen = np.flatnonzero(coverage.new_bytes > 0)
    overtaker = overtakers(begin[chosen])
    late = coverage.late[chosen] & (overtaker < np.arange(chosen.size))
    other = chosen[overtaker]
    both = stamped[chosen] & stamped[other]
    age = np.where(both, signed32(stamp[chosen].astype(np.int64) - stamp[other].astype(np.int64)), 0)
    lag_ns = time_ns[chosen] - time_ns[other]
    soon = lag_ns < rtt_ns if rtt_ns is not None else both
    reordered = late & ((age < 0) | ((age == 0) & soon))
    return Late(chosen, overtaker, reordered, late & ~reordered)
