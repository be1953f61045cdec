"""Which way the payload took over time: over the home agent or direct, one panel per mechanism."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.measures.homeroute import STEP_S
from analysis.style import EVENT_COLOUR, PALETTE, new_figure, styled

_OVER, _DIRECT = ("over the home agent", PALETTE[5]), ("direct", PALETTE[2])
_PANEL_IN, _ACROSS = 4.0, 3


class Ways(NamedTuple):
    """One mechanism's run: its label, and `home_agent` of its metrics."""

    label: str
    use: dict[str, Any]


def home_route_figure(rows: Sequence[Ways]) -> Figure:
    """Payload rates by way, stacked, with the same axes; a line where the first direct way was there. Rows: at least one."""
    across = min(_ACROSS, len(rows))
    down = -(-len(rows) // across)
    with styled():
        figure = new_figure(max(_PANEL_IN * across, 6.0), 2.4 * down + 0.4)
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(rows) :]:
            axes.set_axis_off()
        highest = 0.1
        for axes, (label, use) in zip(grid.flat, rows, strict=False):
            below = np.zeros(len(use["over_time_mbit"]))
            edges = STEP_S * np.arange(below.size + 1)
            for name, (_, colour) in (("over_time_mbit", _OVER), ("direct_over_time_mbit", _DIRECT)):
                above = below + np.asarray(use[name])
                axes.stairs(above, edges, baseline=below, fill=True, color=colour, alpha=0.85, linewidth=0)
                below = above
            highest = max(highest, float(below.max(initial=0.0)))
            if use["direct_since_s"] is not None:
                axes.axvline(use["direct_since_s"], color=EVENT_COLOUR, linewidth=1, linestyle=(0, (3, 2)))
            axes.set_title(_title(label, use["settled_round_trip_ms"]), loc="left")
            axes.set_xlabel("time (s)")
        grid.flat[0].set_ylim(0, highest * 1.12)
        grid.flat[0].set_xlim(left=0)
        figure.supylabel("payload (Mbit/s)", fontsize=9)
        handles = [Patch(color=colour, alpha=0.85, label=name) for name, colour in (_OVER, _DIRECT)]
        figure.legend(handles=handles, loc="outside upper right", ncols=2)
        return figure


def _title(label: str, round_trip_ms: float | None) -> str:
    return label if round_trip_ms is None else f"{label}: round trip {round_trip_ms:.0f} ms"
