"""Subflow sequence numbers beside data sequence numbers, while several subflows carry data at once.

The figure is that of G. Hampel, A. Rana and T. Klein, Seamless TCP mobility using lightweight MPTCP proxy (2013), figure 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.charts import axes as parts
from analysis.charts.closeup import DENSE
from analysis.charts.thinning import one_per_cell
from analysis.charts.view import Timeline, View, make_view
from analysis.connections.model import Reconstruction
from analysis.style import new_figure

WIDTH_IN, HEIGHT_IN = 10.0, 4.8
SPAN_S, STEP_S = 0.3, 0.1
LEAST_SHARE = 0.1
"""A subflow that carries less than this share of the data hardly carries data."""
SETTLED_S = 1.0
"""So long after the first data and around events nothing is steady."""
SEGMENT_MARK: dict[str, Any] = {"marker": ".", "markersize": 4, "markeredgewidth": 0, "zorder": 3}
ACK_MARK: dict[str, Any] = {"marker": "+", "markersize": 5, "markeredgewidth": 0.7, "zorder": 2}
THICKEST, THINNER, THINNEST = 6.5, 2.5, 2.5
"""Size of the first subflow's dots, by how much smaller the next one's are, and the least: equal subflows cover each other."""
ACK_CELLS = 70
"""Acknowledgments are thinned to one in each of so many steps of either axis: a mark covers several."""
STEADY = 0.9
"""A division of the data that comes so near to the most even one is as good."""

Int64s = npt.NDArray[np.int64]


def shared_span(
    segments: pd.DataFrame, origin_ns: int, events_s: Sequence[float] = (), span_s: float = SPAN_S
) -> tuple[float, float] | None:
    """The `span_s` nearest to the middle of those in which the data was divided most evenly among subflows; seconds since
    `origin_ns`.

    None when at no time two subflows carried LEAST_SHARE of the data each. `segments`: of one direction of one connection.
    What is within SETTLED_S of the first data, of the last data or of an event is left out.
    """
    if segments.empty:
        return None
    at_s = (segments["time_ns"].to_numpy(np.int64) - origin_ns) / 1e9
    size = (segments["flow_end"] - segments["flow_begin"]).to_numpy(np.int64)
    first_s, steps = float(at_s.min()), round(span_s / STEP_S)
    count = int((at_s.max() - first_s) / STEP_S) + 1
    step = np.minimum(((at_s - first_s) / STEP_S).astype(np.int64), count - 1)
    subflows, number = np.unique(segments["subflow"].to_numpy(np.int64), return_inverse=True)
    if subflows.size < 2 or count < steps:
        return None
    carried = np.bincount(number * count + step, size, subflows.size * count).reshape(subflows.size, count)
    shares = np.sort(carried, axis=0)[-2] / np.maximum(carried.sum(axis=0), 1)  # of the second subflow in each step
    second = np.lib.stride_tricks.sliding_window_view(shares, steps).min(axis=1)
    begins = first_s + STEP_S * np.arange(second.size)
    quiet = (begins >= first_s + SETTLED_S) & (begins + span_s <= at_s.max() - SETTLED_S)
    for event_s in events_s:
        quiet &= (begins >= event_s + SETTLED_S) | (begins + span_s <= event_s)
    second = np.where(quiet, second, 0.0)
    if second.max() < LEAST_SHARE:
        return None
    good = begins[second >= STEADY * second.max()]
    middle_s = (first_s + float(at_s.max()) - span_s) / 2
    begin_s = float(good[np.abs(good - middle_s).argmin()])
    return begin_s, begin_s + span_s


def numbers_figure(
    rec: Reconstruction, connection: int, up: bool, span_s: tuple[float, float], timeline: Timeline | None = None
) -> Figure:
    """DSN and data ACK over time, SSN and SAN over time, and one against the other, between two moments.

    Every number counts from the first one shown. `span_s`: seconds since the connection's first packet, or since the zero of
    the `timeline`. Raises KeyError for an unknown connection.
    """
    view = make_view(rec, connection, up, *span_s, timeline)
    segments, acks = (_within(view, table) for table in (view.segments, view.acks))
    acks = acks.loc[acks["flow_ack"] >= 0]
    with parts.plain_style():
        figure = new_figure(WIDTH_IN, HEIGHT_IN)
        figure.set_dpi(200)
        grid = figure.add_gridspec(2, 2, width_ratios=[1.15, 1.0])
        data, own, both = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[:, 1])
        zero = int(segments["begin"].min()) if len(segments) else 0
        firsts = segments.groupby("subflow")["flow_begin"].min().to_dict()
        sent = (segments["begin"].to_numpy(np.int64) - zero, _relative(segments, "flow_begin", firsts))
        acked = (acks["data_ack"].to_numpy(np.int64) - zero, _relative(acks, "flow_ack", firsts))
        units = [parts.byte_unit(float(max(part[i].max(initial=1) for part in (sent, acked)))) for i in (0, 1)]
        times = [(view.seconds(table) - span_s[0]) * 1e3 for table in (segments, acks)]
        for index, group in enumerate(view.groups):
            dot = SEGMENT_MARK | {"markersize": max(THICKEST - index * THINNER, THINNEST)}
            for (place, ssn), at_ms, table, style in (
                (acked, times[1], acks, ACK_MARK), (sent, times[0], segments, dot),
            ):  # fmt: skip
                chosen = view.group_of(table) == index
                name = "ack" if table is acks else "segment"
                x, dsn, own_ssn = at_ms[chosen], place[chosen] / units[0].size, ssn[chosen] / units[1].size
                for axes, across, along in ((data, x, dsn), (own, x, own_ssn), (both, dsn, own_ssn)):
                    kept = one_per_cell(across, along, ACK_CELLS, ACK_CELLS) if table is acks else slice(None)
                    axes.plot(
                        across[kept], along[kept], linestyle="", color=group.colour, gid=f"{name}:{index}",
                        rasterized=int(chosen.sum()) > DENSE, **style,
                    )  # fmt: skip
        _label(data, own, both, units, span_s, timeline is not None)
        for axes in (data, own):
            axes.set_xlim(0, (span_s[1] - span_s[0]) * 1e3)
        data.tick_params(labelbottom=False)
        figure.suptitle(parts.fitted(view.title, WIDTH_IN - 0.3, 10, True), x=0.01, ha="left", fontsize=10, fontweight="bold")
        handles = [
            *parts.group_handles(view),
            Line2D([], [], linestyle="", color="#333333", label="segment (SSN, DSN)", **(SEGMENT_MARK | {"markersize": 7})),
            Line2D([], [], linestyle="", color="#333333", label="acknowledgment (SAN, DAN)", **ACK_MARK),
        ]
        parts.legend_below(figure, handles, WIDTH_IN)
        return figure


def _label(
    data: Axes, own: Axes, both: Axes, units: Sequence[parts.ByteUnit], span_s: tuple[float, float], scenario: bool
) -> None:  # fmt: skip
    data.set_ylabel(f"data stream:\nDSN, data ACK ({units[0].name})")
    own.set_ylabel(f"subflow:\nSSN, SAN ({units[1].name})")
    since = f"{span_s[0]:.2f} s" if scenario else f"{span_s[0]:.2f} s of the connection"
    own.set_xlabel(f"time since {since} (ms)")
    both.set_xlabel(f"data stream: DSN, data ACK ({units[0].name})")
    both.set_ylabel(f"subflow: SSN, SAN ({units[1].name})")


def _within(view: View, table: pd.DataFrame) -> pd.DataFrame:
    at_s = view.seconds(table)
    return table.loc[(at_s >= view.limits_s[0]) & (at_s <= view.limits_s[1])]


def _relative(table: pd.DataFrame, column: str, firsts: Mapping[Any, int]) -> Int64s:
    """Places in the subflows, counted from the first one shown of each."""
    zero = np.array([firsts.get(subflow, 0) for subflow in table["subflow"].tolist()], np.int64)
    return np.asarray(table[column].to_numpy(np.int64) - zero, np.int64)
