"""Data sequence numbers over time, and against the numbers of the subflows.

The figures are those of G. Hampel, A. Rana and T. Klein, Seamless TCP mobility using lightweight MPTCP proxy (2013):
figures 8 and 9 (DSN and data ACK over time), figure 10 (SSN and SAN against DSN and DAN).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.charts import axes as parts
from analysis.charts.thinning import envelope, one_per_cell
from analysis.charts.view import KIND_NAMES, Timeline, View, make_view
from analysis.connections.model import FIRST, REINJECTION, RETRANSMISSION, Reconstruction
from analysis.style import new_figure

WIDTH_IN, HEIGHT_IN = 9.0, 4.6
COLUMNS, ROWS = 1600, 760
"""Cells of the grid in which one point per kind and subflow is drawn: the pixels of the axes at 200 dpi."""
BARS_MAX = 600
"""Up to so many segments are drawn from their first byte to their last, more as dots at their first byte."""
MARKS: dict[int, dict[str, Any]] = {
    FIRST: {"marker": ".", "markersize": 2.6, "markeredgewidth": 0, "zorder": 3},
    REINJECTION: {"marker": "^", "markersize": 5, "markeredgecolor": "#222222", "markeredgewidth": 0.5, "zorder": 4},
    RETRANSMISSION: {"marker": "x", "markersize": 5, "markeredgewidth": 1.1, "zorder": 5},
}
MARK_CELLS = {FIRST: 1, REINJECTION: 8, RETRANSMISSION: 4}
"""Side of the cells in which one mark of a kind is drawn, in cells of the grid: less than half of the mark."""
ACK_MARK: dict[str, Any] = {"marker": "_", "markersize": 4, "markeredgewidth": 0.9, "alpha": 0.6, "zorder": 2}
ACK_LINE = "#6B6B6B"
MAPPING_MARKS: dict[str, dict[str, Any]] = {
    "segment": {"marker": ".", "markersize": 3, "markeredgewidth": 0, "zorder": 3},
    "ack": {"marker": "+", "markersize": 6.5, "markeredgewidth": 0.8, "zorder": 2},
}

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Limits = tuple[float, float, float, float]


def dsn_figure(
    rec: Reconstruction, connection: int, up: bool, start_s: float | None = None, end_s: float | None = None,
    timeline: Timeline | None = None,
) -> Figure:  # fmt: skip
    """Data and data ACKs of one direction over time, by subflow, with signals and the longest gap.

    `up`: data from client to server. `start_s`, `end_s`: seconds since the connection's first packet, or since the zero of
    the `timeline`, the events and the gap of which are then drawn. Raises KeyError for an unknown connection. Where several
    points fall on one pixel, one is drawn.
    """
    view = make_view(rec, connection, up, start_s, end_s, timeline)
    with parts.plain_style():
        figure = new_figure(WIDTH_IN, HEIGHT_IN)
        figure.set_dpi(200)  # of what an SVG embeds as a picture
        axes = figure.add_subplot()
        span, width_in = view.limits_s, WIDTH_IN - 0.8
        unit, counts = _draw_data(axes, view)
        parts.draw_gap(axes, view.gap_s, span, width_in, timeline.gap_length if timeline else "")
        marks = sorted((*view.events(span), *view.marks(span)), key=lambda mark: mark.at_s)
        lines, unnamed = parts.draw_marks(axes, marks, span, width_in)
        axes.set_xlim(*span)
        axes.set_xlabel("time (s)" if timeline else "time since the connection's first packet (s)")
        axes.set_ylabel(f"place in the data stream ({unit.name})")
        parts.titled(axes, view.title, lines)
        parts.note(
            axes,
            [
                f"{parts.count_text(view.unmapped, 'segment')} without a mapping not shown" if view.unmapped else "",
                f"{parts.count_text(unnamed, 'mark')} without a name" if unnamed else "",
            ],
        )
        parts.legend_below(figure, [*parts.group_handles(view), *kind_handles(counts)], WIDTH_IN)
        return figure


def _draw_data(axes: Axes, view: View) -> tuple[parts.ByteUnit, dict[int, int]]:
    """Segments and ACKs between the view's limits; returns the unit of the y axis and the segments of each kind."""
    low_s, high_s = view.limits_s
    at_s, ack_s = view.seconds(view.segments), view.seconds(view.acks)
    seen, heard = (at_s >= low_s) & (at_s <= high_s), (ack_s >= low_s) & (ack_s <= high_s)
    begin, end = (view.segments[name].to_numpy(np.int64)[seen] for name in ("begin", "end"))
    acked = view.acks["data_ack"].to_numpy(np.int64)[heard]
    x, ack_x = at_s[seen], ack_s[heard]
    bottom = float(min((int(values.min()) for values in (begin, acked) if values.size), default=0))
    top = float(max(end.max(initial=0), acked.max(initial=0), bottom + 1))
    unit = parts.byte_unit(top)
    limits = (low_s, high_s, bottom, top)
    draw_acks(axes, ack_x, acked, view.group_of(view.acks)[heard], view, limits, unit)
    kinds, groups = view.segments["kind"].to_numpy(np.int64)[seen], view.group_of(view.segments)[seen]
    colours = np.array([group.colour for group in view.groups] or ["#000000"])
    if x.size <= BARS_MAX:
        axes.vlines(x, begin / unit.size, end / unit.size, colors=list(colours[groups]), linewidth=1.4, zorder=3, gid="bars")
    else:  # in one collection, in order of time: so that no subflow hides the others
        first = np.flatnonzero(kinds == FIRST)
        kept = first[one_per_cell(x[first], begin[first], COLUMNS, ROWS, limits)]
        axes.scatter(
            x[kept], begin[kept] / unit.size, s=2.6, c=list(colours[groups[kept]]), linewidths=0, zorder=3,
            rasterized=kept.size > parts.DENSE, gid=KIND_NAMES[FIRST],
        )  # fmt: skip
    for kind in (REINJECTION, RETRANSMISSION):
        for index, group in enumerate(view.groups):
            chosen, side = np.flatnonzero((kinds == kind) & (groups == index)), MARK_CELLS[kind]
            kept = chosen[one_per_cell(x[chosen], begin[chosen], COLUMNS // side, ROWS // side, limits)]
            axes.plot(
                x[kept], begin[kept] / unit.size, linestyle="", color=group.colour, rasterized=kept.size > parts.DENSE,
                gid=f"{KIND_NAMES[kind]}:{index}", **MARKS[kind],
            )  # fmt: skip
    margin = (top - bottom) * 0.04
    axes.set_ylim((bottom - margin) / unit.size, (top + margin) / unit.size)
    return unit, {kind: int((kinds == kind).sum()) for kind in MARKS}


def draw_acks(
    axes: Axes, x: Floats, acked: Int64s, groups: Int64s, view: View, limits: Limits, unit: parts.ByteUnit
) -> None:  # fmt: skip
    """Data ACKs as dashes in the colour of the subflow that carried them, and a line of the highest one so far."""
    if not x.size:
        return
    highest = np.maximum.accumulate(acked)
    kept = envelope(x, highest, COLUMNS)
    axes.plot(
        x[kept], highest[kept] / unit.size, drawstyle="steps-post", color=ACK_LINE, linewidth=0.7, zorder=1.8, gid="acked"
    )
    for index, group in enumerate(view.groups):
        chosen = np.flatnonzero(groups == index)
        kept = chosen[one_per_cell(x[chosen], acked[chosen], COLUMNS // 2, ROWS // 2, limits)]
        if kept.size:
            axes.plot(
                x[kept], acked[kept] / unit.size, linestyle="", color=group.colour, rasterized=kept.size > parts.DENSE,
                gid=f"ack:{index}", **ACK_MARK,
            )  # fmt: skip


def kind_handles(counts: dict[int, int]) -> list[Line2D]:
    """Legend entries of the marks, with how many there are."""
    grey = "#333333"
    handles = []
    for kind, style in MARKS.items():
        if counts[kind] or kind == FIRST:
            label = f"{KIND_NAMES[kind]} ({counts[kind]:,})".replace(",", "\u202f")
            size = {"markersize": 7} if kind == FIRST else {}
            handles.append(Line2D([], [], linestyle="", color=grey, label=label, **(style | size)))
    handles.append(Line2D([], [], color=ACK_LINE, label="data ACK", **(ACK_MARK | {"markersize": 6})))
    return handles


def mapping_figure(rec: Reconstruction, connection: int, up: bool) -> Figure:
    """Places in the subflows' streams against places in the data stream: SSN over DSN, SAN over DAN.

    A subflow that carries alone rises with slope 1, one that pauses jumps to the right, data sent a second time goes back.
    """
    view = make_view(rec, connection, up)
    with parts.plain_style():
        figure = new_figure(7.4, 4.6)
        figure.set_dpi(200)
        axes = figure.add_subplot()
        data, own = view.segments["begin"].to_numpy(np.int64), view.segments["flow_begin"].to_numpy(np.int64)
        data_ack, own_ack = (view.acks[name].to_numpy(np.int64) for name in ("data_ack", "flow_ack"))
        across, along = (max([1, *(int(v.max(initial=0)) for v in pair)]) for pair in ((data, data_ack), (own, own_ack)))
        unit_x, unit_y = parts.byte_unit(across), parts.byte_unit(along)
        limits = (0.0, float(across), 0.0, float(along))
        groups, ack_groups = view.group_of(view.segments), view.group_of(view.acks)
        for index, group in enumerate(view.groups):
            for x, y, chosen, name, side in (
                (data_ack, own_ack, np.flatnonzero((ack_groups == index) & (own_ack >= 0)), "ack", 18),
                (data, own, np.flatnonzero((groups == index) & (own >= 0)), "segment", 1),
            ):
                kept = chosen[one_per_cell(x[chosen], y[chosen], COLUMNS // side, ROWS // side, limits)]
                axes.plot(
                    x[kept] / unit_x.size, y[kept] / unit_y.size, linestyle="", color=group.colour,
                    rasterized=kept.size > parts.DENSE, gid=f"{name}:{index}", **MAPPING_MARKS[name],
                )  # fmt: skip
        axes.set_xlabel(f"place in the data stream: DSN, data ACK ({unit_x.name})")
        axes.set_ylabel(f"place in the subflow: SSN, ACK ({unit_y.name})")
        parts.titled(axes, view.title)
        grey = "#333333"
        handles = [
            *parts.group_handles(view),
            Line2D([], [], linestyle="", marker=".", markersize=7, color=grey, label="segment (SSN, DSN)"),
            Line2D([], [], linestyle="", marker="+", markersize=6, color=grey, label="acknowledgment (SAN, DAN)"),
        ]
        parts.legend_below(figure, handles, 7.4)
        return figure
