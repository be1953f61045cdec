"""Data sequence numbers and data ACKs around one event: every packet, who asked for what, and the cause of each stray.

The figures are those of G. Hampel, A. Rana and T. Klein, Seamless TCP mobility using lightweight MPTCP proxy (2013): figure 8
(200 ms around a handover) and figure 9 (the time after a break).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.charts import axes as parts
from analysis.charts.dsn import MARKS, draw_acks, kind_handles
from analysis.charts.view import KIND_NAMES, MARKED, Mark, Timeline, View, make_view
from analysis.connections.model import FIRST, REINJECTION, Reconstruction
from analysis.measures.strays import CAUSES
from analysis.style import new_figure

WIDTH_IN, MAIN_IN, ROW_IN = 9.0, 4.3, 0.17
BEFORE_S, AFTER_S = 0.05, 0.15
"""What is shown around an event in which nothing took longer."""
LONGEST_S = 12.0
MARGIN = 0.25
"""So much more than the gap is shown on both sides, as a share of it."""
DENSE = 300
"""More marks of a kind than this are embedded as a picture in an SVG."""
STEP_S = 0.01
"""Figures begin and end at multiples of this."""
SAME_MOMENT_SHARE = 0.004
"""Signals closer together than this share of the figure have one line, with all their names."""
PACKET_MARKS: dict[int, dict[str, Any]] = MARKS | {
    FIRST: {"marker": ".", "markersize": 4.2, "markeredgewidth": 0, "zorder": 3},
    REINJECTION: {"marker": "^", "markersize": 4.2, "markeredgewidth": 0, "zorder": 4},  # edges would hide the colour
}
LOST_MARK: dict[str, Any] = {"marker": "o", "markersize": 3.4, "markerfacecolor": "none", "markeredgewidth": 0.6, "zorder": 2.5}

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Origin:
    """What the capture at the data's sender adds to that at its receiver.

    `lost`: segments that did not arrive, columns time_ns (when they left), subflow, begin. `strays`: columns time_ns (arrival,
    or when it left if it was lost), subflow, cause. `heard`: moments (ns) and words of signals that reached the sender.
    """

    lost: pd.DataFrame
    strays: pd.DataFrame
    heard: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Moment:
    """An event and what is shown around it. Seconds on the clock of the timeline.

    `gap_s`: longest time without new data. `elsewhere`: what else there was, but is not shown.
    """

    at_s: float
    name: str
    span_s: tuple[float, float]
    gap_s: tuple[float, float] | None = None
    elsewhere: str = ""


def span_around(at_s: float, until_s: float, end_s: float) -> tuple[float, float]:
    """What to show around an event that had its effects until `until_s`; nothing behind `end_s`, and at most LONGEST_S.

    From 50 ms before to 150 ms after it; longer, on both sides, when the effects lasted longer.
    """
    lasted_s = max(min(until_s, end_s) - at_s, 0.0)
    begin_s = at_s - max(BEFORE_S, MARGIN * lasted_s)
    stop_s = min(max(at_s + AFTER_S, at_s + lasted_s * (1 + MARGIN)), begin_s + LONGEST_S)
    return float(np.floor(begin_s / STEP_S + 1e-6) * STEP_S), float(np.ceil(stop_s / STEP_S - 1e-6) * STEP_S)


def closeup_figure(
    rec: Reconstruction, connection: int, up: bool, timeline: Timeline, moment: Moment, origin: Origin | None = None
) -> Figure:
    """Packets and data ACKs of one direction around an event, in ms since the event. Raises KeyError for an unknown connection.

    Every segment is a mark at its first byte. With what the sender's capture says, lost segments and the causes of strays are
    shown, too.
    """
    view = make_view(rec, connection, up, *moment.span_s, timeline)
    strays = _within(view, moment, origin.strays) if origin else pd.DataFrame()
    causes = sorted(set(strays["cause"])) if len(strays) else []
    with parts.plain_style():
        strip_in = ROW_IN * len(causes) + 0.5 if causes else 0.0
        figure = new_figure(WIDTH_IN, MAIN_IN + strip_in)
        figure.set_dpi(200)
        axes, strip = _panels(figure, strip_in)
        handles = _draw_packets(axes, view, moment, origin)
        span_ms, width_in = _milliseconds(moment, np.array(moment.span_s)), WIDTH_IN - 0.8
        span = float(span_ms[0]), float(span_ms[1])
        if moment.gap_s is not None:
            gap = _milliseconds(moment, np.array(moment.gap_s))
            length = parts.duration_text(moment.gap_s[1] - moment.gap_s[0])
            parts.draw_gap(axes, (float(gap[0]), float(gap[1])), span, width_in, length)
        lines, unnamed = parts.draw_marks(axes, _marks(view, moment, origin), span, width_in)
        axes.set_xlim(*span)
        axes.set_ylabel(parts.fitted(axes.get_ylabel(), MAIN_IN - 1.2, 9))
        parts.titled(axes, parts.fitted(timeline.title, width_in, 10, True), lines)
        if strip is not None:
            _draw_causes(strip, view, moment, strays, causes)
        bottom = strip or axes
        bottom.set_xlabel("time since the event (ms)")
        parts.note(bottom, [moment.elsewhere, f"{parts.count_text(unnamed, 'mark')} without a name" if unnamed else ""])
        parts.legend_below(figure, [*parts.group_handles(view), *handles], WIDTH_IN)
        return figure


def _panels(figure: Figure, strip_in: float) -> tuple[Axes, Axes | None]:
    """The axes of the packets, and below them those of the causes if they have any height."""
    if not strip_in:
        return figure.add_subplot(), None
    grid = figure.add_gridspec(2, 1, height_ratios=[MAIN_IN - 1.1, strip_in - 0.3])
    axes = figure.add_subplot(grid[0])
    axes.tick_params(labelbottom=False)
    return axes, figure.add_subplot(grid[1], sharex=axes)


def _milliseconds(moment: Moment, at_s: Floats) -> Floats:
    return (at_s - moment.at_s) * 1e3


def _within(view: View, moment: Moment, table: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table whose time is shown."""
    at_s = view.seconds(table)
    return table.loc[(at_s >= moment.span_s[0]) & (at_s <= moment.span_s[1])]


def _draw_packets(axes: Axes, view: View, moment: Moment, origin: Origin | None) -> list[Line2D]:
    """Segments, lost ones and data ACKs; returns the legend entries of the marks."""
    segments, acks = _within(view, moment, view.segments), _within(view, moment, view.acks)
    lost = _within(view, moment, origin.lost) if origin else segments.iloc[:0]
    kinds, groups = segments["kind"].to_numpy(np.int64), view.group_of(segments)
    begin, acked = segments["begin"].to_numpy(np.int64), acks["data_ack"].to_numpy(np.int64)
    places = [*(v for v in (begin, acked, lost["begin"].to_numpy(np.int64)) if v.size), np.zeros(0, np.int64)]
    bottom = min((int(v.min()) for v in places if v.size), default=0)
    top = max((int(v.max()) for v in places if v.size), default=1)
    unit = parts.byte_unit(top)
    x, ack_x, lost_x = (_milliseconds(moment, view.seconds(table)) for table in (segments, acks, lost))
    span = _milliseconds(moment, np.array(moment.span_s))
    limits = (float(span[0]), float(span[1]), float(bottom), float(max(top, bottom + 1)))
    draw_acks(axes, ack_x, acked, view.group_of(acks), view, limits, unit)
    lost_groups = view.group_of(lost)
    for index, group in enumerate(view.groups):
        for kind, style in PACKET_MARKS.items():
            chosen = (kinds == kind) & (groups == index)
            axes.plot(
                x[chosen], begin[chosen] / unit.size, linestyle="", color=group.colour, gid=f"{KIND_NAMES[kind]}:{index}",
                rasterized=int(chosen.sum()) > DENSE, **style,
            )  # fmt: skip
        chosen = lost_groups == index
        axes.plot(
            lost_x[chosen], lost["begin"].to_numpy(np.int64)[chosen] / unit.size, linestyle="", markeredgecolor=group.colour,
            gid=f"lost:{index}", rasterized=int(chosen.sum()) > DENSE, **LOST_MARK,
        )  # fmt: skip
    margin = max(top - bottom, 1) * 0.05
    axes.set_ylim((bottom - margin) / unit.size, (top + margin) / unit.size)
    axes.set_ylabel(f"place in the data stream ({unit.name})")
    handles = kind_handles({kind: int((kinds == kind).sum()) for kind in MARKS})
    if len(lost):
        label = f"lost, shown when it left ({len(lost)})"
        handles.append(Line2D([], [], linestyle="", markeredgecolor="#333333", label=label, **(LOST_MARK | {"markersize": 5})))
    return handles


def _marks(view: View, moment: Moment, origin: Origin | None) -> list[Mark]:
    """The events and signals that are shown, at ms since the event; several at the same moment as one line."""
    low_s, high_s = moment.span_s
    spoken: list[tuple[float, str]] = []
    signals = _within(view, moment, view.signals)
    resets = set(signals.loc[signals["kind"] == "MP_TCPRST", "row"])
    for at_s, kind, row, subflow, text, repeated in zip(
        view.seconds(signals),
        *(signals[name].tolist() for name in ("kind", "row", "subflow", "text", "repeated")),
        strict=True,
    ):
        if kind in MARKED and not repeated and not (kind == "RST" and row in resets):
            spoken.append((float(at_s), signal_name(kind, subflow, text)))
    for time_ns, words in origin.heard if origin else ():
        at_s = (time_ns - view.origin_ns) / 1e9
        if low_s <= at_s <= high_s:
            spoken.append((at_s, words))
    near_s = (high_s - low_s) * SAME_MOMENT_SHARE
    out: list[Mark] = [Mark((event.at_s - moment.at_s) * 1e3, event.text, event=True) for event in view.events(moment.span_s)]
    last_s = -np.inf
    for at_s, name in sorted(spoken):
        if at_s - last_s <= near_s:
            out[-1] = Mark(out[-1].at_s, f"{out[-1].text}, {name}")
            continue
        last_s = at_s
        out.append(Mark((at_s - moment.at_s) * 1e3, name))
    return sorted(out, key=lambda mark: mark.at_s)


def signal_name(kind: str, subflow: int, text: str) -> str:
    """What a signal is called in the figure: "MP_PRIO 0 backup", "JOIN 1", "REMOVE_ADDR"."""
    if kind == "MP_PRIO":
        return f"MP_PRIO {subflow} {'active' if text.startswith('not') else 'backup'}"
    return f"JOIN {subflow}" if kind == "MP_JOIN SYN" else MARKED[kind]


def _draw_causes(axes: Axes, view: View, moment: Moment, strays: pd.DataFrame, causes: Sequence[int]) -> None:
    """One row of ticks per cause, in the colour of the subflow."""
    x, groups = _milliseconds(moment, view.seconds(strays)), view.group_of(strays)
    which = strays["cause"].to_numpy(np.int64)
    for row, cause in enumerate(causes):
        for index, group in enumerate(view.groups):
            chosen = (which == cause) & (groups == index)
            if chosen.any():
                axes.plot(
                    x[chosen], np.full(int(chosen.sum()), row), linestyle="", marker="|", markersize=8, markeredgewidth=0.8,
                    color=group.colour, gid=f"stray:{cause}:{index}",
                )  # fmt: skip
    labels = [f"{CAUSES[cause]} ({int((which == cause).sum())})" for cause in causes]
    axes.set_yticks(range(len(causes)), labels, fontsize=8)
    axes.set_ylim(len(causes) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    title = "data on the subflow to leave that left or came after MP_PRIO had reached its sender, by cause"
    axes.set_title(title, fontsize=8, loc="left", pad=3, fontweight="normal")
