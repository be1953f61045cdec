"""Distributions: gaps over repetitions, times between deliveries of one connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from analysis.charts import axes as parts
from analysis.charts.thinning import envelope
from analysis.charts.view import make_view
from analysis.connections.model import Reconstruction
from analysis.style import MARKERS, MECHANISM_COLOURS, new_figure

Floats = npt.NDArray[np.float64]
FLOOR_MS = 1e-3
"""Durations below this are drawn here: a logarithmic axis has no zero."""


def ecdf(values: Sequence[float], endless: int = 0) -> tuple[Floats, Floats]:
    """Sorted values and the share of all (the `endless` ones, too) that are at most that large."""
    ordered = np.sort(np.asarray(values, np.float64))
    return ordered, np.arange(1, ordered.size + 1) / max(ordered.size + endless, 1)


def gap_distribution_figure(values_ms: Mapping[str, Sequence[float]], endless: Mapping[str, int] | None = None) -> Figure:
    """Gaps of all repetitions by label: the share of runs with at most that gap, and a dot for every run below.

    values_ms: gaps in ms by label, e.g. of a mechanism; `endless`: how many more runs of a label never recovered; their
    curve stays below 1. Raises ValueError for values that are negative or not finite.
    """
    missing = dict(endless or {})
    for label, some in values_ms.items():
        if not all(np.isfinite(v) and v >= 0 for v in some):
            raise ValueError(f"gaps of {label!r}: not finite or negative")
    labels = list(dict.fromkeys([*values_ms, *missing]))
    with parts.plain_style():
        figure = new_figure(8, 3.2 + 0.24 * len(labels))
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, 0.24 * len(labels) + 0.2])
        for row, label in enumerate(labels):
            some, lost = values_ms.get(label, ()), missing.get(label, 0)
            colour, marker = MECHANISM_COLOURS[row % 7], MARKERS[row % 7]
            x, share = ecdf(some, lost)
            x = np.maximum(x, FLOOR_MS)
            if x.size:
                top.step(np.append(x, x[-1] * 1.0), np.append(share, share[-1]), where="post", color=colour, linewidth=1.5)
                top.vlines(x[0], 0, share[0], color=colour, linewidth=1.5)
                top.plot(x, share, linestyle="", marker=marker, markersize=3.5, color=colour)
            bottom.plot(x, np.full(x.size, row), linestyle="", marker=marker, markersize=5, alpha=0.65, color=colour, gid=label)
            if x.size:
                bottom.plot(
                    [float(np.median(x))], [row], linestyle="", marker="|", markersize=13, markeredgewidth=2, color=colour
                )
        _gap_axes(top, bottom, labels, values_ms, missing)
        return figure


def _gap_axes(
    top: Axes, bottom: Axes, labels: list[str], values_ms: Mapping[str, Sequence[float]], missing: Mapping[str, int]
) -> None:  # fmt: skip
    """Scales, names and small print of the two parts of the figure."""
    finite = [max(v, FLOOR_MS) for some in values_ms.values() for v in some] or [1.0, 1000.0]
    _duration_axis(bottom, min(finite) / 1.3, max(finite) * 1.3)
    top.set_ylim(0, 1.04)
    top.set_ylabel("share of runs")
    bottom.set_xlabel("handover gap (bar: median of those that recovered)")
    bottom.set_yticks(range(len(labels)), [_label(label, values_ms, missing) for label in labels])
    bottom.set_ylim(len(labels) - 0.4, -0.6)
    bottom.tick_params(axis="y", length=0)
    bottom.grid(axis="y", visible=False)
    if not labels:
        top.text(0.5, 0.5, "no runs", transform=top.transAxes, ha="center", color="#777777")


def _label(label: str, values_ms: Mapping[str, Sequence[float]], missing: Mapping[str, int]) -> str:
    """A label with its number of runs."""
    recovered, lost = len(values_ms.get(label, ())), missing.get(label, 0)
    name = parts.shorten(label, 36)
    return f"{name} (n = {recovered + lost}, {lost} never)" if lost else f"{name} (n = {recovered})"


def _duration_axis(axes: Axes, low_ms: float, high_ms: float) -> None:
    """A logarithmic axis of durations in ms."""
    axes.set_xscale("log")
    axes.set_xlim(low_ms, high_ms)
    decades = np.log10(high_ms / low_ms)
    text = FuncFormatter(lambda value, _: parts.duration_text(value / 1e3))
    axes.xaxis.set_major_formatter(text)
    axes.xaxis.set_minor_formatter(NullFormatter())
    if decades < 1.7:  # too few powers of ten to read anything by
        steps = [s * 10.0**e for e in range(-4, 9) for s in ((1, 2, 3, 5, 7) if decades < 0.8 else (1, 2, 5))]
        axes.set_xticks([s for s in steps if low_ms <= s <= high_ms])
        axes.set_xticks([], minor=True)


def delivery_distribution_figure(rec: Reconstruction, connection: int, up: bool) -> Figure:
    """Times between deliveries of new in-order data: which share of them is longer than x, on logarithmic axes.

    The longest is the gap. Raises KeyError for an unknown connection.
    """
    view = make_view(rec, connection, up)
    times_s, _ = view.deliveries
    with parts.plain_style():
        figure = new_figure(7.4, 3.2)
        axes = figure.add_subplot()
        parts.titled(axes, view.title)
        steps_ms = np.sort(np.maximum(np.diff(times_s) * 1e3, FLOOR_MS))
        if not steps_ms.size:
            axes.text(0.5, 0.5, "fewer than two deliveries", transform=axes.transAxes, ha="center", color="#777777")
            axes.set_axis_off()
            return figure
        longer = 1 - np.arange(steps_ms.size) / steps_ms.size  # this one and the longer ones
        kept = envelope(np.log(steps_ms), longer, 1400)
        axes.plot(steps_ms[kept], longer[kept], color="#0072B2", linewidth=1.4, drawstyle="steps-pre", gid="longer")
        tail = kept[-min(12, kept.size) :]
        axes.plot(steps_ms[tail], longer[tail], linestyle="", marker="o", markersize=3.5, color="#0072B2")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share * 100:g} %"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(0.6 / steps_ms.size, 1.4)
        _duration_axis(axes, float(steps_ms[0]) / 1.2, float(steps_ms[-1]) * 1.25)
        axes.set_xlabel("time between deliveries of new in-order data")
        axes.set_ylabel("share that is at least as long")
        axes.legend(
            handles=[
                Line2D([], [], linestyle="", label=parts.count_text(steps_ms.size, "interval")),
                Line2D([], [], linestyle="", label=f"median {parts.duration_text(float(np.median(steps_ms)) / 1e3)}"),
                Line2D([], [], linestyle="", label=f"longest {parts.duration_text(float(steps_ms[-1]) / 1e3)}"),
            ],
            loc="upper right", handlelength=0, handletextpad=0, frameon=True, facecolor="white", edgecolor="none",
        )  # fmt: skip
        return figure
