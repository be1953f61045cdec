"""Repetitions side by side: a row for every combination, a dot for every run, a bar at the median, the bound as a line."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from analysis.charts import axes as parts
from analysis.results import Spread, number_text
from analysis.style import MARKERS, MECHANISM_COLOURS, TEXT_COLOUR, new_figure

LOGARITHMIC_FROM = 20.0
"""Durations whose largest is so many times the smallest are drawn on a logarithmic axis."""
ROW_IN, MARGIN_IN = 0.23, 0.75
BASELINE_COLOUR = "#8A8A8A"
ENDLESS = ">"
"""Marker of runs that never recovered."""
_SPREAD_ROWS = 0.28
"""Dots of one row lie at most so far beside its middle, in rows."""


@dataclass(frozen=True)
class Strip:
    """One row. `group` is a heading above the rows that have it in common; `baseline`: drawn in grey.

    `kind` chooses colour and marker: the same mechanism has the same in all groups.
    """

    group: str
    label: str
    spread: Spread
    kind: int
    baseline: bool = False


@dataclass(frozen=True)
class Limit:
    """A bound as a line: `text` says it."""

    value: float
    text: str


def strip_figure(strips: Sequence[Strip], name: str, unit: str, limit: Limit | None = None) -> Figure:
    """The figure; `name` and `unit` are those of the metric. Runs that never recovered are arrow heads at the right edge.

    Raises ValueError when there is no row.
    """
    if not strips:
        raise ValueError("no rows to draw")
    groups = list(dict.fromkeys(strip.group for strip in strips))
    with parts.plain_style():
        count = len(strips) + (len(groups) if any(groups) else 0)
        figure = new_figure(8.4, MARGIN_IN + ROW_IN * count)
        axes = figure.add_subplot()
        rows = _rows(strips)
        edge = _scale(axes, strips, unit, limit)
        for y, strip in rows:
            _draw(axes, y, strip, edge)
        _name_rows(axes, rows, unit)
        for group in filter(None, groups):
            top = min(y for y, strip in rows if strip.group == group) - 1
            axes.annotate(
                group, (0, top), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points", va="center",
                fontsize=8.5, fontweight="bold", color=TEXT_COLOUR,
            )  # fmt: skip
        if limit is not None:
            axes.axvline(limit.value, color="#333333", linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
            parts.titled(axes, f"dashed: {limit.text}")
        axes.set_ylim(count - 0.3, -0.7)
        axes.set_xlabel(f"{name} (dot: one run, bar: median)")
        return figure


def _rows(strips: Sequence[Strip]) -> list[tuple[int, Strip]]:
    """Every strip with its place from the top; a group's heading takes one place."""
    out, y, last = [], -1, ""
    for strip in strips:
        y += 2 if strip.group and strip.group != last else 1
        last = strip.group
        out.append((y, strip))
    return out


def _scale(axes: Axes, strips: Sequence[Strip], unit: str, limit: Limit | None) -> float:
    """Set the axis of values; returns where the arrows of runs without an end are drawn."""
    shown = [v for strip in strips for v in strip.spread.values] + ([limit.value] if limit is not None else [])
    endless = any(strip.spread.open_ends for strip in strips)
    low, high = (min(shown), max(shown)) if shown else (0.0, 1.0)
    if unit == "ms" and low > 0 and high / low > LOGARITHMIC_FROM:
        axes.set_xscale("log")
        left, right = low / 1.4, high * (4.0 if endless else 1.4)
        axes.xaxis.set_minor_formatter(NullFormatter())
        edge = right / 1.5
    else:
        left, margin = min(0.0, low * 1.08), 0.08 * max(high - min(low, 0.0), 1e-9)
        right = high + margin * (3.0 if endless else 1.0)
        edge = right - margin
    axes.set_xlim(left, right)
    text = parts.duration_text if unit == "ms" else None
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda v, _: "0" if not v else text(v / 1e3) if text else f"{v:g}{f' {unit}' if unit else ''}")
    )
    return edge


def _draw(axes: Axes, y: int, strip: Strip, edge: float) -> None:
    colour = BASELINE_COLOUR if strip.baseline else MECHANISM_COLOURS[strip.kind % len(MECHANISM_COLOURS)]
    marker = MARKERS[strip.kind % len(MARKERS)]
    values = sorted(strip.spread.values)
    count = len(values)
    beside = np.linspace(-_SPREAD_ROWS, _SPREAD_ROWS, count) if count > 1 else np.zeros(count)
    axes.plot(
        values, y + beside, linestyle="", marker=marker, markersize=4.5, color=colour, alpha=0.8, markeredgewidth=0,
        gid=f"{strip.group}/{strip.label}",
    )  # fmt: skip
    if count and not strip.spread.open_ends:
        axes.vlines(statistics.median(values), y - 0.42, y + 0.42, color=colour, linewidth=2)
    if strip.spread.open_ends:
        axes.plot([edge], [y], linestyle="", marker=ENDLESS, markersize=8, color=colour)


def _name_rows(axes: Axes, rows: Sequence[tuple[int, Strip]], unit: str) -> None:
    """Labels on the left, medians with the number of runs on the right."""
    places = [y for y, _ in rows]
    axes.set_yticks(places, [parts.shorten(strip.label, 44) for _, strip in rows])
    for tick, (_, strip) in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(BASELINE_COLOUR if strip.baseline else TEXT_COLOUR)
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, [_figures(strip.spread, unit) for _, strip in rows])
    for axis in (axes, right):
        axis.tick_params(axis="y", length=0, labelsize=8.5)
    right.spines["right"].set_visible(False)
    axes.grid(axis="y", visible=False)


def _figures(spread: Spread, unit: str) -> str:
    if not spread.count:
        return "no measurement"
    if spread.open_ends:
        return f"never in {len(spread.open_ends)} of {spread.count}"
    return f"{number_text(statistics.median(spread.values), unit)} (n = {spread.count})"
