"""Goodput: the rate at which new application data becomes available, in all and in the phases that events make.

All times are seconds since the scenario's time 0, all results in Mbit/s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.measures.gap import Floats


def rate_mbit(arrivals_s: Floats, total_bytes: npt.NDArray[Any], start_s: float, end_s: float) -> float | None:
    """Mean rate between two moments of a cumulative byte count; None for an empty interval."""
    if end_s <= start_s or not arrivals_s.size:
        return None
    at = np.searchsorted(arrivals_s, [start_s, end_s], side="right")
    low, high = (float(total_bytes[i - 1]) if i else 0.0 for i in at)
    return (high - low) * 8 / 1e6 / (end_s - start_s)


def phase_rates(
    arrivals_s: Floats,
    total_bytes: npt.NDArray[Any],
    events_s: Sequence[float],
    complete: bool,
    ended_s: float,
    recovery_s: float,
) -> dict[str, float | None]:
    """Goodput of all, before the first event, between first and last, and after the last until the transfer ended.

    An unfinished transfer counts until it was given up (`recovery_s` after the last event), so that silence lowers
    the rate. Without events everything is "before"; a single event leaves "during" empty.
    """
    names = ("goodput_mbit", "goodput_before_mbit", "goodput_during_mbit", "goodput_after_mbit")
    if not arrivals_s.size:
        return dict.fromkeys(names, None)
    start_s, end_s = float(arrivals_s[0]), float(arrivals_s[-1])
    if not complete:
        end_s = max(end_s, min(ended_s, events_s[-1] + recovery_s) if len(events_s) else ended_s)
    edges = [(start_s, end_s), (start_s, end_s), (end_s, end_s), (end_s, end_s)]
    if len(events_s):
        edges[1:] = [(start_s, events_s[0]), (events_s[0], events_s[-1]), (events_s[-1], end_s)]
    return {n: rate_mbit(arrivals_s, total_bytes, a, b) for n, (a, b) in zip(names, edges, strict=True)}
