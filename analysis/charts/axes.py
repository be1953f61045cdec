"""Parts of axes that several figures share: units, labels of marks, the shaded gap, legends and notes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath

from analysis.charts.view import Mark, View
from analysis.style import EVENT_COLOUR, GAP_COLOUR, styled

LEVELS_MAX = 6
"""Lines of names above the axes; marks that find no place on them stay without a name."""
LINE_POINTS = 9.5
HINTING = 0.93
"""Letters that are fitted to pixels may need more room than the font says."""
GAP_ALPHA, GAP_TEXT = 0.16, "#A03D00"
DENSE = 2000
"""More points than this are embedded as a picture in an SVG."""


@dataclass(frozen=True)
class ByteUnit:
    """A decimal unit for a byte axis."""

    name: str
    size: float


@contextmanager
def plain_style() -> Iterator[None]:
    """The common style for figures with texts from captures: a dollar sign in them is no formula."""
    with styled(), mpl.rc_context({"text.parse_math": False}):
        yield


def byte_unit(largest: float) -> ByteUnit:
    """The unit in which numbers up to `largest` bytes read well."""
    for name, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if largest >= 2 * size:
            return ByteUnit(name, size)
    return ByteUnit("bytes", 1.0)


def bytes_text(value: float) -> str:
    """A number of bytes with three digits and a decimal prefix."""
    for name, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}" if abs(value) < 1000 * size else f"{value / size:.0f} {name}"
    return f"{value:.0f} B"


def duration_text(seconds: float) -> str:
    """A duration with about three digits: 340 µs, 41.5 ms, 1.24 s, 12 min 5 s."""
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 600:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 600:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def count_text(count: int, singular: str, plural: str = "") -> str:
    """1 segment, 12 345 segments (thousands apart by a thin space)."""
    return f"{count:,}".replace(",", "\u202f") + f" {singular if count == 1 else plural or singular + 's'}"


def shorten(text: str, length: int) -> str:
    """The text without control characters, its middle replaced by an ellipsis when it is longer than `length`."""
    text = "".join(letter if letter.isprintable() else "·" for letter in text)
    if len(text) <= length:
        return text
    tail = (length - 1) // 3
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


@lru_cache(maxsize=4096)
def text_width_in(text: str, points: float, bold: bool = False) -> float:
    """Width of a line of text in inches."""
    font = FontProperties(family="DejaVu Sans", size=points, weight="bold" if bold else "normal")
    return float(TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]) / 72


def fitted(text: str, width_in: float, points: float, bold: bool = False) -> str:
    """The text, shortened in the middle until it is not wider than `width_in`, on a screen, too."""
    text, width_in = shorten(text, 400), width_in * HINTING
    while len(text) > 1 and (wide_in := text_width_in(text, points, bold)) > width_in:
        text = shorten(text, max(min(int(len(text) * width_in / wide_in), len(text) - 1), 1))
    return text


def draw_marks(axes: Axes, marks: Sequence[Mark], span: tuple[float, float], width_in: float) -> tuple[int, int]:
    """Signals as dashed lines, events as solid ones, with names above the axes, which are `width_in` wide.

    Returns how many lines of names there are and how many marks stayed without a name.
    """
    taken: list[float] = []  # per line of names: up to where it is used, in inches
    unnamed = 0
    for mark in marks:
        dashes: Any = "-" if mark.event else (0, (3, 2))
        axes.axvline(mark.at_s, color=EVENT_COLOUR, linewidth=0.8, linestyle=dashes, alpha=0.75, zorder=1.5)
        length_in = text_width_in(mark.label, 7.5, mark.event) + 0.1
        left_in = (mark.at_s - span[0]) / max(span[1] - span[0], 1e-9) * width_in
        flipped = left_in + length_in > width_in and left_in > length_in
        begin_in = left_in - length_in if flipped else left_in
        level = next((i for i, used in enumerate(taken) if used <= begin_in), len(taken))
        if level >= LEVELS_MAX:
            unnamed += 1
            continue
        taken[level : level + 1] = [begin_in + length_in]
        axes.annotate(
            mark.label, (mark.at_s, 1), xycoords=("data", "axes fraction"),
            xytext=(-2 if flipped else 2, 2 + LINE_POINTS * level), textcoords="offset points",
            ha="right" if flipped else "left", fontsize=7.5, color=EVENT_COLOUR,
            fontweight="bold" if mark.event else "normal",
        )  # fmt: skip
    return len(taken), unnamed


def draw_gap(
    axes: Axes, gap_s: tuple[float, float] | None, span: tuple[float, float], width_in: float, length: str = ""
) -> None:  # fmt: skip
    """The longest time without new in-order data as a shaded span with its length, beside it when it does not fit.

    `length`: in words, where it is not what the span tells.
    """
    if gap_s is None or gap_s[0] >= span[1] or gap_s[1] <= span[0]:
        return
    start_s, stop_s = max(gap_s[0], span[0]), min(gap_s[1], span[1])
    axes.axvspan(start_s, stop_s, color=GAP_COLOUR, alpha=GAP_ALPHA, linewidth=0, zorder=0.5)
    text = f"gap {length or duration_text(gap_s[1] - gap_s[0])}"
    length_in, scale = text_width_in(text, 8, True) + 0.12, width_in / max(span[1] - span[0], 1e-9)
    x, side, shift = (start_s + stop_s) / 2, "center", 0
    if (stop_s - start_s) * scale < length_in:
        right = (span[1] - stop_s) * scale > length_in
        x, side, shift = (stop_s, "left", 4) if right else (start_s, "right", -4)
    axes.annotate(
        text, (x, 0.03), xycoords=("data", "axes fraction"), xytext=(shift, 0), textcoords="offset points", ha=side,
        va="bottom", fontsize=8, color=GAP_TEXT, fontweight="bold", zorder=6,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )  # fmt: skip


def titled(axes: Axes, text: str, lines: int = 0) -> None:
    """A title above `lines` lines of names."""
    axes.set_title(shorten(text, 110), loc="left", pad=6 + LINE_POINTS * lines)


def group_handles(view: View) -> list[Line2D]:
    """Legend entries of the subflows."""
    return [
        Line2D([], [], linestyle="", marker="s", markersize=7, color=group.colour, label=shorten(group.label, 64))
        for group in view.groups
    ]


def legend_below(figure: Figure, handles: Sequence[Line2D], width_in: float) -> None:
    """A legend under the axes, with as many columns as the longest label allows."""
    if not handles:
        return
    longest_in = max(text_width_in(str(handle.get_label()), 8) + 0.45 for handle in handles)
    columns = max(1, min(len(handles), 5, int(width_in / longest_in)))
    figure.legend(
        handles=list(handles), loc="outside lower left", ncols=columns, fontsize=8, handletextpad=0.4, columnspacing=1.4
    )


def note(axes: Axes, parts: Sequence[str]) -> None:
    """Small print at the end of the label of the x axis: what the figure leaves out."""
    said = "; ".join(part for part in parts if part)
    if said:
        axes.set_xlabel(f"{axes.get_xlabel()}\n{said}")
