"""Rates and amounts over time: goodput per subflow, and bytes on their way."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.charts import axes as parts
from analysis.charts.thinning import envelope
from analysis.charts.view import View, make_view
from analysis.connections.model import Reconstruction
from analysis.style import new_figure

WIDTH_IN = 9.0
BINS = 120
BIN_MIN_S = 1e-3

Floats = npt.NDArray[np.float64]


def bin_width_s(span_s: float) -> float:
    """A round width (1, 2 or 5 times a power of ten) that gives about `BINS` bins, at least 1 ms."""
    wanted = max(span_s / BINS, BIN_MIN_S)
    power = 10.0 ** math.floor(math.log10(wanted))
    return power * next(step for step in (1, 2, 5, 10) if power * step >= wanted * 0.999)


def goodput_bins(view: View) -> tuple[Floats, Floats]:
    """Edges (s, bins + 1) and goodput in Mbit/s (groups, bins): bytes nobody carried before, by who carried them."""
    low_s, high_s = view.limits_s
    width_s = bin_width_s(high_s - low_s)
    count = max(1, math.ceil((high_s - low_s) / width_s - 1e-9))
    at_s, fresh = view.seconds(view.segments), view.segments["new_bytes"].to_numpy(np.float64)
    groups = view.group_of(view.segments)
    seen = (at_s >= low_s) & (at_s <= high_s) & (groups >= 0)
    index = np.clip(((at_s[seen] - low_s) / width_s).astype(np.int64), 0, count - 1)
    total = np.bincount(groups[seen] * count + index, fresh[seen], count * len(view.groups)).reshape(len(view.groups), count)
    edges = low_s + width_s * np.arange(count + 1)
    return edges.astype(np.float64), np.asarray(total * 8e-6 / width_s, np.float64)


def subflow_goodput_figure(rec: Reconstruction, connection: int, up: bool) -> Figure:
    """Goodput of each subflow over time, stacked: a byte counts once, for the subflow that carried it first.

    Raises KeyError for an unknown connection.
    """
    view = make_view(rec, connection, up)
    with parts.plain_style():
        figure = new_figure(WIDTH_IN, 3.3)
        axes = figure.add_subplot()
        edges, rates = goodput_bins(view)
        below = np.zeros(edges.size - 1)
        for group, rate in zip(view.groups, rates, strict=True):
            axes.stairs(below + rate, edges, baseline=below, fill=True, color=group.colour, alpha=0.85, linewidth=0)
            below = below + rate
        width_ms = (edges[1] - edges[0]) * 1e3
        axes.set_ylabel(f"goodput per {width_ms:g} ms (Mbit/s)")
        axes.set_ylim(0, max(float(below.max(initial=0.0)), 1e-3) * 1.12)
        _finish(axes, figure, view)
        return figure


def outstanding_figure(rec: Reconstruction, connection: int, up: bool) -> Figure:
    """Bytes on their way at data level: highest byte sent minus highest data ACK, as the capture point sees both.

    Raises KeyError for an unknown connection.
    """
    view = make_view(rec, connection, up)
    with parts.plain_style():
        figure = new_figure(WIDTH_IN, 2.8)
        axes = figure.add_subplot()
        times_s, sizes = outstanding(view)
        unit = parts.byte_unit(float(sizes.max(initial=0)))
        kept = envelope(times_s, sizes, 1600)
        axes.plot(times_s[kept], sizes[kept] / unit.size, drawstyle="steps-post", color="#333333", linewidth=0.8)
        axes.set_ylabel(f"sent, not acknowledged ({unit.name})")
        axes.set_ylim(0, max(float(sizes.max(initial=0)) / unit.size, 1e-3) * 1.12)
        _finish(axes, figure, view, legend=False)
        return figure


def outstanding(view: View) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Moments (s) of segments and ACKs and the bytes then on their way, never below 0."""
    times = np.concatenate([table["time_ns"].to_numpy(np.int64) for table in (view.segments, view.acks)])
    rows = np.concatenate([table["row"].to_numpy(np.int64) for table in (view.segments, view.acks)])
    ends, acked = view.segments["end"].to_numpy(np.int64), view.acks["data_ack"].to_numpy(np.int64)
    order = np.lexsort((rows, times))
    sent = np.maximum.accumulate(np.concatenate((ends, np.zeros_like(acked)))[order])
    heard = np.maximum.accumulate(np.concatenate((np.zeros_like(ends), acked))[order])
    return (times[order] - view.origin_ns) / 1e9, np.maximum(sent - heard, 0)


def _finish(axes: Axes, figure: Figure, view: View, legend: bool = True) -> None:
    """Marks, gap, limits and title of a figure over time."""
    span, width_in = view.limits_s, WIDTH_IN - 0.8
    parts.draw_gap(axes, view.gap_s, span, width_in)
    lines, unnamed = parts.draw_marks(axes, view.marks(span), span, width_in)
    axes.set_xlim(*span)
    axes.set_xlabel("time since the connection's first packet (s)")
    parts.titled(axes, view.title, lines)
    parts.note(
        axes,
        [
            f"{parts.count_text(view.unmapped, 'segment')} without a mapping not counted" if view.unmapped else "",
            f"{parts.count_text(unnamed, 'mark')} without a name" if unnamed else "",
        ],
    )
    if legend:
        parts.legend_below(figure, parts.group_handles(view), WIDTH_IN)
