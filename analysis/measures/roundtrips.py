"""Round-trip times at any capture point: from handshakes, and from the timestamps option (RFC 7323 section 4).

The time from a packet with a new TSval to the first packet that echoes it is the round trip from the capture point to the
host that echoes. Both hosts' together are that of the path.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analysis.measures.observation import Array, Bools, Int64s
from analysis.packets.schema import ACK, HAS_TIMESTAMPS
from analysis.packets.table import PacketTable


class RoundTrip(NamedTuple):
    """Least and median of a path in ms; None when neither host echoed."""

    least_ms: float | None
    median_ms: float | None


def echo_times(time_ns: Int64s, stamp: Array, echo_time_ns: Int64s, echo: Array) -> Int64s:
    """Times from the first packet with a stamp to the first one that echoes it, both in order of time; in ns.

    Stamps that were never echoed, and echoes of stamps never seen, give nothing.
    """
    value, first = np.unique(stamp, return_index=True)
    echoed, first_echo = np.unique(echo, return_index=True)
    at = np.searchsorted(value, echoed)
    found = at < value.size
    found[found] = value[at[found]] == echoed[found]
    taken: Int64s = echo_time_ns[first_echo[found]] - time_ns[first[at[found]]]
    return taken[taken >= 0]


def flow_round_trip(table: PacketTable, rows: Int64s, from_client: Bools) -> RoundTrip:
    """Round trip of one flow's path by timestamps. `rows` of the packet table, in order of time; `from_client` of each."""
    stamped = (table["options"][rows] & HAS_TIMESTAMPS) > 0
    echoing = stamped & ((table["flags"][rows] & ACK) > 0)
    samples = []
    for side in (True, False):
        asks = _changes(rows[stamped & (from_client == side)], table["tsval"])
        answers = _changes(rows[echoing & (from_client != side)], table["tsecr"])
        times = table["time_ns"]
        samples.append(echo_times(times[asks], table["tsval"][asks], times[answers], table["tsecr"][answers]))
    if not all(part.size for part in samples):
        return RoundTrip(None, None)
    least, median = (sum(float(pick(part)) for part in samples) / 1e6 for pick in (np.min, np.median))
    return RoundTrip(least, median)


def _changes(rows: Int64s, stamp: Array) -> Int64s:
    """Rows whose stamp differs from that of the row before: less to sort."""
    values = stamp[rows]
    return rows[np.append(True, values[1:] != values[:-1])] if rows.size else rows
