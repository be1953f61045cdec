"""How deep and how long the rate of a stream fell when its hosts moved, against what it had before and settled to after.

All times are seconds since the scenario's time 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.measures.gap import Floats
from analysis.measures.goodput import rate_mbit


@dataclass(frozen=True)
class Movement:
    """What movements did to the workload's connection; docs/metrics.md says what each is."""

    steady_mbit: float | None
    dip_ms: float | None
    bindings_updated: int
    subflows_joined: int
    subflows_left: int
    data_fins: int


def steady_mbit(times_s: Floats, total_bytes: npt.NDArray[Any], first_s: float, last_s: float) -> float | None:
    """The lower of two rates: in the second half of the time before the first event, and of the time after the last one.

    None where there is no data before or after.
    """
    if not times_s.size or times_s[-1] <= last_s:
        return None
    end_s = float(times_s[-1])
    rates = [
        rate_mbit(times_s, total_bytes, begin_s, until_s)
        for begin_s, until_s in ((first_s / 2, first_s), ((last_s + end_s) / 2, end_s))
    ]
    known = [rate for rate in rates if rate]
    return min(known) if len(known) == len(rates) else None


def dip_ms(times_s: Floats, total_bytes: npt.NDArray[Any], steady: float, first_s: float) -> float:
    """How far the stream fell behind one of `steady` Mbit/s, at worst, from `first_s` to its last arrival, in ms of that rate.

    The largest fall of total_bytes(t) - steady x t from a moment to any later one: a standstill of 1 s is 1000, half the rate
    for 2 s as well, and what was gained earlier does not make up for it.
    """
    chosen = times_s > first_s
    arrivals_s, after = times_s[chosen], total_bytes[chosen].astype(np.float64)
    if not arrivals_s.size:
        return 0.0
    started = float(total_bytes[~chosen][-1]) if (~chosen).any() else 0.0
    before = np.concatenate(([started], after[:-1]))
    due = steady * 1e6 / 8 * (arrivals_s - first_s)
    # Behind at most just before an arrival, ahead at most just after one.
    ahead = np.maximum.accumulate(np.concatenate(([started], (after - due)[:-1])))
    return float((ahead - (before - due)).max() / (steady * 1e6 / 8) * 1e3)
