"""The handover gap and rates around events, from moments at which new application data arrived.

All times are seconds since the scenario's time 0, all results in ms or Mbit/s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LEAD_S = 1.0
"""The window in which the gap is sought begins this long before the first event, to catch an interval it cuts."""
GAP_TOLERANCE_MS = 20.0
GAP_TOLERANCE_SHARE = 0.05
"""Application and capture may differ by the larger of the two. A reading application sees data later than the wire by
its wake-up time, and a burst after a break in several reads: on a busy machine that is up to two scheduling slices
of some ms. Long gaps additionally end inside a burst that may take a few per cent of their length to drain."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gap:
    """Longest interval without new data. Exactly one of `gap_ms` and `at_least_ms` is set, neither without any data.

    `at_least_ms`: the connection did not recover while it was watched; that long it was watched in vain.
    """

    gap_ms: float | None
    at_least_ms: float | None
    start_s: float | None


def longest_gap(arrivals_s: Floats, events_s: list[float], complete: bool, ended_s: float, recovery_s: float) -> Gap:
    """Longest interval between consecutive arrivals around the events.

    With events the window is [first event - LEAD_S, last event + recovery_s], cut at the end of the transfer;
    without events the whole transfer after its first second. `complete`: the end of the stream was seen, so the silence
    after the last arrival is no gap. `ended_s`: until when the run was watched. `recovery_s`: a connection that delivers
    nothing for this long after the last event did not recover.
    """
    if not arrivals_s.size:
        return Gap(None, None, None)
    first_s, last_s = float(arrivals_s[0]), float(arrivals_s[-1])
    if events_s:
        start_s, limit_s = events_s[0] - LEAD_S, events_s[-1] + recovery_s
        recovered = bool(((arrivals_s > events_s[-1]) & (arrivals_s <= limit_s)).any())
    else:
        start_s, limit_s, recovered = first_s + 1.0, float("inf"), True
    times = np.clip(arrivals_s, start_s, limit_s)
    steps = np.diff(times)
    longest = int(np.argmax(steps)) if steps.size else -1
    longest_s = float(steps[longest]) if longest >= 0 else 0.0
    watched = arrivals_s[arrivals_s <= limit_s]
    silent_since_s = max(float(watched[-1]) if watched.size else first_s, start_s)
    silence_s = min(ended_s, max(silent_since_s, events_s[-1] if events_s else silent_since_s) + recovery_s)
    silence_s -= silent_since_s
    stalled = not complete and last_s <= limit_s and silence_s > longest_s
    if not recovered or stalled:
        return Gap(None, max(silence_s, 0.0) * 1e3, silent_since_s)
    return Gap(longest_s * 1e3, None, float(times[longest]) if longest >= 0 else start_s)


def gaps_agree(first: Gap, second: Gap) -> bool:
    """True when two records of the same run tell the same gap; not recovering agrees with not recovering."""
    if first.gap_ms is None or second.gap_ms is None:
        return first.gap_ms is None and second.gap_ms is None
    return abs(first.gap_ms - second.gap_ms) <= tolerance_ms(first, second)


def tolerance_ms(first: Gap, second: Gap) -> float:
    """By how much the two may differ."""
    return max(GAP_TOLERANCE_MS, GAP_TOLERANCE_SHARE * max(first.gap_ms or 0.0, second.gap_ms or 0.0))


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
    events_s: list[float],
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
        end_s = max(end_s, min(ended_s, events_s[-1] + recovery_s) if events_s else ended_s)
    edges = [(start_s, end_s), (start_s, end_s), (end_s, end_s), (end_s, end_s)]
    if events_s:
        edges[1:] = [(start_s, events_s[0]), (events_s[0], events_s[-1]), (events_s[-1], end_s)]
    return {n: rate_mbit(arrivals_s, total_bytes, a, b) for n, (a, b) in zip(names, edges, strict=True)}


def jitter_ms(sent_s: Floats, received_s: Floats) -> tuple[float, float]:
    """Interarrival jitter of RFC 3550 section 6.4.1 in ms: final estimate and the largest on the way."""
    transit = received_s - sent_s
    estimate = highest = 0.0
    for step in np.abs(np.diff(transit)).tolist():
        estimate += (step - estimate) / 16
        highest = max(highest, estimate)
    return estimate * 1e3, highest * 1e3
