"""Stalls: intervals without new data that are longer than a working transport ever leaves.

Zhou et al., "Demystifying and Mitigating TCP Stalls at the Server Side" (CoNEXT 2015), call a silence a stall beyond
min(2 SRTT, RTO), at the sender and per packet. Here it is in-order data at the receiver, so a stall has to outlast ordinary
loss recovery, too: see `stall_threshold_ms`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analysis.measures.gap import Floats

LEAST_STALL_MS = 200.0
"""Least retransmission timeout of Linux (TCP_RTO_MIN). A shorter silence is over before any timer could have ended it."""
STALL_RTTS = 4.0
"""Round trips. In slow start a window's tail is one away from the next window; a hole costs one round trip for the duplicate
acknowledgments to arrive and the retransmission to come, a lost retransmission another, queues may double them."""


class Stalls(NamedTuple):
    """Number of stalls, their lengths together, and the longest (0 without any)."""

    number: int
    total_ms: float
    longest_ms: float


def stall_threshold_ms(rtt_ms: float | None) -> float:
    """From which silence on it is a stall: max(200 ms, 4 RTT); `rtt_ms` of the connection's first subflow.

    The first subflow takes the same path whatever the mechanism, so that all mechanisms of a scenario get one threshold.
    """
    return max(LEAST_STALL_MS, STALL_RTTS * (rtt_ms or 0.0))


def find_stalls(arrivals_s: Floats, threshold_ms: float, complete: bool, ended_s: float) -> Stalls:
    """Stalls between moments of new in-order data, each with its whole length.

    `complete`: the end of the stream was seen; otherwise the silence after the last data, until `ended_s`, counts as well.
    """
    edges = arrivals_s if complete or not arrivals_s.size else np.append(arrivals_s, max(ended_s, float(arrivals_s[-1])))
    silences_ms = np.diff(edges) * 1e3
    stalls_ms = silences_ms[silences_ms > threshold_ms]
    return Stalls(stalls_ms.size, float(stalls_ms.sum()), float(stalls_ms.max(initial=0.0)))
