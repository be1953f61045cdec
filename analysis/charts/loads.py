"""How the load met the capacity: what each mechanism put on each network after senders had adapted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.style import EVENT_COLOUR, new_figure, path_colours, styled

_PANEL_IN, _ROW_IN = 5.0, 0.32


class Loads(NamedTuple):
    """One mechanism's run: its label, and `load.phases` of its metrics."""

    label: str
    phases: Sequence[dict[str, Any]]


def load_figure(rows: Sequence[Loads]) -> Figure:
    """A panel for each time between changes of capacity, a bar for each mechanism: rates on the wire in the second half.

    The line is the sum of the capacities. All rows must have the same number of phases, and there is at least one.
    """
    count = len(rows[0].phases)
    names = list(rows[0].phases[0]["capacity"])
    colours = path_colours(names)
    with styled():
        figure = new_figure(2.2 + _PANEL_IN * count, 1.3 + _ROW_IN * len(rows))
        grid = figure.subplots(1, count, sharex=True, sharey=True, squeeze=False)
        for index, axes in enumerate(grid.flat):
            _panel(axes, [(row.label, row.phases[index]) for row in rows], colours)
        grid.flat[0].invert_yaxis()
        grid.flat[0].set_xlim(left=0)
        handles = [Patch(color=colour, alpha=0.85, label=name) for name, colour in colours.items()]
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
        return figure


def _panel(axes: Axes, rows: Sequence[tuple[str, dict[str, Any]]], colours: dict[str, str]) -> None:
    labels = [label for label, _ in rows]
    lefts = [0.0] * len(rows)
    for name, colour in colours.items():
        widths = [float(phase["settled"]["rate"].get(name) or 0.0) for _, phase in rows]
        axes.barh(labels, widths, left=lefts, color=colour, alpha=0.85, height=0.7)
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    first = rows[0][1]
    if first["capacity_mbit"] is not None:
        axes.axvline(first["capacity_mbit"], color=EVENT_COLOUR, linewidth=1, linestyle=(0, (3, 2)))
    known = [f"{name} {rate:g}" for name, rate in first["capacity"].items() if rate is not None]
    axes.set_title(f"{first['begins_s']:.0f} to {first['ends_s']:.0f} s: {' + '.join(known)} Mbit/s", loc="left")
    axes.set_xlabel("on the wire in the second half (Mbit/s)")
    axes.grid(axis="y", visible=False)
