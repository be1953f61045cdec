"""The handover gap: the longest interval without new application data around the events of a run.

All times are seconds since the scenario's time 0, all results in ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def longest_gap(arrivals_s: Floats, events_s: Sequence[float], complete: bool, ended_s: float, recovery_s: float) -> Gap:
    """Longest interval between consecutive arrivals around the events.

    With events the window is [first event - LEAD_S, last event + recovery_s], cut at the end of the transfer;
    without events the whole transfer after its first second. `complete`: the end of the stream was seen, so the silence
    after the last arrival is no gap. `ended_s`: until when the run was watched. `recovery_s`: a connection that delivers
    nothing for this long after the last event did not recover.
    """
    if not arrivals_s.size:
        return Gap(None, None, None)
    first_s, last_s = float(arrivals_s[0]), float(arrivals_s[-1])
    if len(events_s):
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
    silence_s = min(ended_s, max(silent_since_s, events_s[-1] if len(events_s) else silent_since_s) + recovery_s)
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
