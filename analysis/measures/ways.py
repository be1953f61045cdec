"""Which paths the packets of one flow took, in each direction, between the events of a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from analysis.measures.observation import Array, Bools
from analysis.measures.stream import Json


def phases_of(
    times_s: Array,
    towards: Bools,
    path: Array,
    names: Sequence[str],
    tunnelled: Bools,
    events_s: Sequence[float],
    ended_s: float,
) -> list[Json]:
    """A row for each time between two events (before the first one from 0 on, behind the last one until `ended_s`).

    Arguments have one entry for each packet at the mobile node: seconds, whether it came from the correspondent, number of its
    path in `names`, whether it was in a tunnel. A row has packets and shares by path, "down" and "up" (0 to 1, None without
    packets), the shares again for its second half only (`settled`), when the flow may be expected to have moved, and the
    share of its packets that were in a tunnel.
    """
    edges = [0.0, *sorted(events_s), max([ended_s, *events_s])]
    rows = []
    for begins_s, ends_s in pairwise(edges):
        inside = (times_s >= begins_s) & (times_s < ends_s)
        late = inside & (times_s >= (begins_s + ends_s) / 2)
        counts = _both(inside, towards, path, len(names))
        rows.append(
            {
                "begins_s": round(begins_s, 3),
                "ends_s": round(ends_s, 3),
                "packets_down": dict(zip(names, counts["down"].tolist(), strict=True)),
                "packets_up": dict(zip(names, counts["up"].tolist(), strict=True)),
                **{way: _shares(count, names) for way, count in counts.items()},
                "settled": {way: _shares(count, names) for way, count in _both(late, towards, path, len(names)).items()},
                "tunnelled_share": round(float(tunnelled[inside].mean()), 6) if inside.any() else None,
            }
        )
    return rows


def _both(chosen: Bools, towards: Bools, path: Array, count: int) -> dict[str, Any]:
    return {
        way: np.bincount(path[chosen & (towards == down)], minlength=count)[:count]
        for way, down in (("down", True), ("up", False))
    }


def _shares(counts: Array, names: Sequence[str]) -> dict[str, float | None]:
    total = int(counts.sum())
    return {name: round(int(n) / total, 6) if total else None for name, n in zip(names, counts.tolist(), strict=True)}
