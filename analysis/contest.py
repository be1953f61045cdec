"""Who got how much of a bottleneck: one flow of the mechanism beside plain TCP connections.

Only the time counts in which all flows were sending, from so long after the last one began that slow start and its losses
are over. What an application got in it is new data in order, as for goodput.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analysis.rundir import Json
from analysis.series import Series

CONTEST = "contest"
"""Kind of the workload."""
FIRST = "first"
"""The flow of the mechanism."""
SETTLE_S = 5.0
"""Left out at the beginning: flows that begin one after the other have losses of slow start at different times."""


def contest_facts(flows: Mapping[str, Series]) -> Json:
    """`contest`: the window in s, each flow's goodput in Mbit/s, the first one's share, and its rate over their mean.

    Null figures where a flow has no data in common with the others.
    """
    begin_s = max((series.times_s[0] if series.times_s else np.inf for series in flows.values()), default=np.inf) + SETTLE_S
    end_s = min((series.times_s[-1] if series.times_s else -np.inf for series in flows.values()), default=-np.inf)
    if FIRST not in flows or len(flows) < 2 or not begin_s < end_s:
        return {CONTEST: {"begin_s": None, "end_s": None, "goodput_mbit": {}, "share": None, "times_plain": None}}
    rates = {name: _rate_mbit(series, begin_s, end_s) for name, series in flows.items()}
    others = [rate for name, rate in rates.items() if name != FIRST]
    plain = float(np.mean(others))
    return {
        CONTEST: {
            "begin_s": round(begin_s, 3),
            "end_s": round(end_s, 3),
            "goodput_mbit": {name: round(rate, 3) for name, rate in rates.items()},
            "share": round(rates[FIRST] / sum(rates.values()), 4) if sum(rates.values()) else None,
            "times_plain": round(rates[FIRST] / plain, 4) if plain else None,
        }
    }


def _rate_mbit(series: Series, begin_s: float, end_s: float) -> float:
    """New data of a flow between two moments."""
    at_begin, at_end = np.interp((begin_s, end_s), series.times_s, series.totals)
    return float((at_end - at_begin) * 8 / 1e6 / (end_s - begin_s))
