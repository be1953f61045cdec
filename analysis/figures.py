"""Figures of runs, from time series and tables. Every function returns a Figure for `analysis.style.save`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter

from analysis.results import Cell, Spread, seconds_text
from analysis.series import BIN_S, Series
from analysis.style import EVENT_COLOUR, GAP_COLOUR, LINE_STYLES, MARKERS, MECHANISM_COLOURS, new_figure, path_colours, styled


def _mark_events(axes: Axes, series: Series, end_s: float, width_in: float) -> int:
    """Events as vertical lines, their names above the axes on as many lines as needed; returns that number."""
    span = max(end_s - series.start_s, 1e-9)
    taken: list[float] = []  # per line of labels: up to where it is used, in inches
    for at_s, kind, target in series.events:
        if at_s > end_s:
            continue
        axes.axvline(at_s, color=EVENT_COLOUR, linewidth=1, linestyle=(0, (3, 2)))
        text = f"{kind} {target}".strip()
        length_in = 0.062 * len(text) + 0.1
        left_in = (at_s - series.start_s) / span * width_in
        flipped = left_in + length_in > width_in and left_in > length_in
        begin_in = left_in - length_in if flipped else left_in
        level = next((i for i, used in enumerate(taken) if used <= begin_in), len(taken))
        taken[level : level + 1] = [begin_in + length_in]
        axes.annotate(
            text, (at_s, 1), xycoords=("data", "axes fraction"), xytext=(-2 if flipped else 2, 2 + 9.5 * level),
            textcoords="offset points", ha="right" if flipped else "left", fontsize=7.5, color=EVENT_COLOUR,
        )  # fmt: skip
    return len(taken)


def _title(axes: Axes, text: str, lines: int) -> None:
    """A title above the lines of event names."""
    axes.set_title(text, loc="left", pad=6 + 9.5 * lines)


def _common_end(drawn: Sequence[Series]) -> float:
    """Where a shared time axis ends: with the last run that recovered, or with the last of all."""
    alive = [s.end_s for s in drawn if s.gap is None or s.gap[1] is not None]
    events = [at_s + 5.0 for s in drawn for at_s, _, _ in s.events]
    return min(max(alive + events), max(s.end_s for s in drawn)) if alive else max(s.end_s for s in drawn)


def gap_text(series: Series) -> str:
    """Length of the gap, e.g. "gap 412 ms" or, without an end, "gap > 30 s"; "" when none is known."""
    if series.gap is None:
        return ""
    start_s, end_s = series.gap
    if end_s is None:
        return f"gap {seconds_text((series.end_s - start_s) * 1e3)}"
    gap_ms = (end_s - start_s) * 1e3
    return f"gap {gap_ms:.0f} ms" if gap_ms < 10000 else f"gap {gap_ms / 1e3:.1f} s"


def draw_goodput(axes: Axes, series: Series, title: str, end_s: float, width_in: float) -> None:
    """Payload rate per path over time, stacked, up to `end_s`, with events and gap; the axes are `width_in` wide."""
    colours = path_colours(list(series.paths))
    count = len(next(iter(series.paths.values()), []))
    edges = series.start_s + BIN_S * np.arange(count + 1)
    below = np.zeros(count)
    for name, rates in series.paths.items():
        above = below + np.asarray(rates)
        axes.stairs(above, edges, baseline=below, fill=True, color=colours[name], alpha=0.85, linewidth=0, label=name)
        below = above
    if series.gap is not None:
        _shade_gap(axes, series, end_s, width_in)
    lines = _mark_events(axes, series, end_s, width_in)
    axes.set_xlim(series.start_s, end_s)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("time (s)")
    _title(axes, title, lines)


def _shade_gap(axes: Axes, series: Series, end_s: float, width_in: float) -> None:
    """The gap as a shaded span with its length: inside when it fits, else beside it."""
    assert series.gap is not None
    start_s = series.gap[0]
    stop_s = min(end_s, series.end_s if series.gap[1] is None else series.gap[1])
    axes.axvspan(start_s, stop_s, color=GAP_COLOUR, alpha=0.18, linewidth=0)
    text = gap_text(series)
    span = max(end_s - series.start_s, 1e-9)
    length_in = 0.075 * len(text)
    x, side, shift = (start_s + stop_s) / 2, "center", 0
    if (stop_s - start_s) / span * width_in < length_in:
        right = (end_s - stop_s) / span * width_in > length_in
        x, side, shift = (stop_s, "left", 4) if right else (start_s, "right", -4)
    axes.annotate(
        text, (x, 0.96), xycoords=("data", "axes fraction"), xytext=(shift, 0), textcoords="offset points", ha=side,
        va="top", fontsize=8, color="#A03D00", fontweight="bold",
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )  # fmt: skip


def goodput_figure(series: Series, title: str) -> Figure:
    """One run: payload rate per path over time."""
    with styled():
        figure = new_figure(8, 3.2)
        axes = figure.add_subplot()
        draw_goodput(axes, series, title, series.end_s, 7.2)
        axes.set_ylabel("payload at the\nmobile node (Mbit/s)")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.15)
        if series.paths:
            figure.legend(loc="outside upper right", ncols=len(series.paths), handlelength=1.2)
        return figure


def side_by_side_figure(columns: Sequence[tuple[str, Series | None]]) -> Figure:
    """One scenario, all mechanisms: the same axes next to each other, two or three in a row."""
    with styled():
        across = 2 if len(columns) == 4 else min(3, len(columns))
        down = -(-len(columns) // across)
        width_in = 6.0 if across == 1 else 12.0
        figure = new_figure(width_in, 2.55 * down + 0.3)
        drawn = [series for _, series in columns if series is not None]
        end_s = _common_end(drawn) if drawn else 1.0
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        names: dict[str, None] = {}
        for index, axes in enumerate(grid.flat):
            if index >= len(columns):
                axes.set_axis_off()
                continue
            title, series = columns[index]
            if series is None:
                axes.set_title(title, loc="left")
                axes.text(0.5, 0.5, "no measurement", transform=axes.transAxes, ha="center", color="#777777")
                continue
            draw_goodput(axes, series, title, end_s, width_in / across - 0.4)
            axes.set_xlabel("time (s)" if index >= len(columns) - across else "")
            axes.xaxis.set_tick_params(labelbottom=index >= len(columns) - across)
            names |= dict.fromkeys(series.paths)
        highest = max((max(map(sum, zip(*s.paths.values(), strict=True)), default=0.0) for s in drawn), default=0.0)
        grid.flat[0].set_ylim(0, max(highest, 0.1) * 1.2)
        if drawn:
            grid.flat[0].set_xlim(min(s.start_s for s in drawn), end_s)
        figure.supylabel("Mbit/s", fontsize=9)
        colours = path_colours(list(names))
        handles = [Patch(color=colours[name], alpha=0.85, label=name) for name in names]
        if handles:
            figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), fontsize=8.5)
        return figure


def cumulative_figure(curves: Sequence[tuple[str, Series]], title: str) -> Figure:
    """One scenario: what the receiver had got by when, one line per mechanism."""
    with styled():
        figure = new_figure(8, 3.4)
        axes = figure.add_subplot()
        unit = curves[0][1].unit if curves else "bytes"
        scale = 1e6 if unit == "bytes" else 1.0
        end_s = _common_end([series for _, series in curves]) if curves else 1.0
        for index, (label, series) in enumerate(curves):
            times_s, totals = list(series.times_s), list(series.totals)
            if series.gap is not None and series.gap[1] is None:  # it stays there for ever
                times_s, totals = [*times_s, series.end_s], [*totals, totals[-1]]
            axes.plot(
                times_s, np.asarray(totals) / scale, drawstyle="steps-post", label=label,
                color=MECHANISM_COLOURS[index % len(MECHANISM_COLOURS)], linestyle=LINE_STYLES[index % len(LINE_STYLES)],
                linewidth=1.8,
            )  # fmt: skip
        if curves:
            _title(axes, title, _mark_events(axes, curves[0][1], end_s, 7.3))
            axes.legend(loc="upper left", frameon=True, facecolor="white", edgecolor="none", framealpha=0.9)
            axes.set_xlim(min(s.start_s for _, s in curves), end_s)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("time (s)")
        axes.set_ylabel("received (MB)" if unit == "bytes" else f"received ({unit})")
        return figure


def gap_figure(cells: Sequence[Cell], mechanisms: dict[str, str], scenarios: dict[str, str]) -> Figure:
    """Gaps of all repetitions: one dot each, a bar at the median, unrecovered ones as arrows above the axis."""
    with styled():
        figure = new_figure(max(6.5, 1.6 + 1.75 * len(scenarios)), 3.6)
        axes = figure.add_subplot()
        finite = [v for cell in cells for v in cell.spread.values] or [1.0]
        endless = any(cell.spread.open_ends for cell in cells)
        top = 10 ** np.ceil(np.log10(max(*finite, 1000.0) * 1.2))
        axes.set_yscale("log")
        low = 10 ** np.floor(np.log10(max(min(finite), 1.0)))
        axes.set_ylim(min(low, 10.0), top * (4 if endless else 1))
        width = 0.8 / max(1, len(mechanisms))
        for column, scenario in enumerate(scenarios):
            if column % 2:
                axes.axvspan(column - 0.5, column + 0.5, color="#F5F5F5", zorder=0)
            for row, mechanism in enumerate(mechanisms):
                x = column - 0.4 + width * (row + 0.5)
                spread = next((c.spread for c in cells if (c.mechanism, c.scenario) == (mechanism, scenario)), None)
                if spread is not None:
                    _draw_spread(axes, x, width, spread, row, top * 2)
        handles = [
            Line2D([], [], linestyle="", marker=MARKERS[i % 7], markersize=6, label=label,
                             color=MECHANISM_COLOURS[i % 7])
            for i, label in enumerate(mechanisms.values())
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))
        axes.set_xticks(range(len(scenarios)), [_wrap(label, 16) for label in scenarios.values()])
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="x", visible=False)
        axes.set_xlim(-0.5, len(scenarios) - 0.5)
        axes.yaxis.set_major_formatter(FuncFormatter(_duration))
        if endless:
            axes.axhline(top, color="#999999", linewidth=0.8)
            axes.yaxis.set_major_locator(FixedLocator([10.0**e for e in range(int(np.log10(top)) + 1)]))
            axes.set_ylabel("handover gap (arrows: never recovered)")
        else:
            axes.set_ylabel("handover gap")
        return figure


def _draw_spread(axes: Axes, x: float, width: float, spread: Spread, index: int, endless_y: float) -> None:
    colour, marker = MECHANISM_COLOURS[index % 7], MARKERS[index % 7]
    count = len(spread.values)
    offsets = (np.arange(count) - (count - 1) / 2) * min(0.25 * width, 0.5 * width / max(1, count))
    axes.plot(x + offsets, spread.values, linestyle="", marker=marker, markersize=5, color=colour, alpha=0.75)
    if count and not spread.open_ends:
        median = float(np.median(spread.values))
        axes.hlines(median, x - 0.38 * width, x + 0.38 * width, color=colour, linewidth=2)
        axes.annotate(
            _duration(median, 0), (x, max(spread.values)), xytext=(0, 7), textcoords="offset points", ha="center",
            fontsize=7.5, color=colour,
        )  # fmt: skip
    if spread.open_ends:
        axes.plot([x], [endless_y / 1.25], linestyle="", marker=r"$\uparrow$", markersize=9, color=colour)
        many = f"{len(spread.open_ends)} of {spread.count}" if spread.count > 1 else seconds_text(spread.open_ends[0])
        axes.annotate(
            many, (x, endless_y / 1.25), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=7.5,
            color=colour,
        )  # fmt: skip


def _duration(value_ms: float, _position: int) -> str:
    """Axis label of a duration."""
    return f"{value_ms:.0f} ms" if value_ms < 1000 else f"{value_ms / 1e3:.3g} s"


def _wrap(text: str, columns: int) -> str:
    """Break a label between words."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= columns:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
