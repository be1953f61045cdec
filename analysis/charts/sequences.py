"""Message sequence charts: who sent what to whom, when. Time runs downwards, one row per message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from analysis.charts import axes as parts
from analysis.charts.sequence_layout import (
    NO_HOST,
    OTHERS,
    Item,
    Lifeline,
    Message,
    Omitted,
    Quiet,
    arrange,
    lifelines,
    shortened,
)
from analysis.style import PALETTE, TEXT_COLOUR, new_figure

# Inches. The axes cover the whole figure in inches, y downwards, so that nothing has to be measured twice.
ROW, TIME_COLUMN, EDGE, BRACKET = 0.27, 0.95, 0.12, 1.55
HEADER, HOST_HEADER, TITLE = 0.5, 0.28, 0.34
SPACING_MIN, WIDTH_MIN, WIDTH_MAX = 1.45, 6.8, 13.0
LABEL_POINTS, SMALL_POINTS, NAME_POINTS, HOST_POINTS, TITLE_POINTS = 7.5, 7.5, 8.0, 8.5, 10.0
LABEL_MAX = 160
SOFT = "#666666"


@dataclass(frozen=True)
class Frame:
    """Geometry of a chart: its columns, in inches."""

    columns: list[Lifeline]
    x: dict[str, float]
    width: float
    top: float
    rows: int
    bracket: bool

    def y(self, row: int) -> float:
        """The line on which the arrow of a row lies."""
        return self.top + ROW * (row + 0.75)

    def at(self, name: str) -> float:
        """The column of an address."""
        return self.x.get(name, self.x.get(OTHERS, EDGE))

    @property
    def left(self) -> float:
        return TIME_COLUMN

    @property
    def right(self) -> float:
        return self.width - EDGE - (BRACKET if self.bracket else 0.0)


def sequence_chart(
    events: pd.DataFrame, hosts: Mapping[str, str] | None = None, title: str = "", rows_max: int = 60,
    start_ns: int | None = None,
) -> Figure:  # fmt: skip
    """One chart of all events, shortened in the middle to `rows_max` rows.

    events: time_ns, source, target (addresses, one lifeline each), label, kind (one colour each); optionally `again`
    (dashed). `hosts`: host by address; the lifelines of a host stand together. `start_ns`: time 0, by default the first
    event. Messages that repeat at least three times are shown once with their number, long pauses as one row.
    """
    items = shortened(arrange(events), rows_max)
    return _chart(items, hosts or {}, title, _start(events, start_ns), _kinds(events))


def sequence_pages(
    events: pd.DataFrame, hosts: Mapping[str, str] | None = None, title: str = "", rows_per_page: int = 60,
    pages_max: int = 4, start_ns: int | None = None,
) -> list[Figure]:  # fmt: skip
    """The chart on several pages, nothing left out unless it takes more than `pages_max`; then it is shortened."""
    items = shortened(arrange(events), rows_per_page * pages_max)
    pages = [items[at : at + rows_per_page] for at in range(0, len(items), rows_per_page)] or [[]]
    start, kinds = _start(events, start_ns), _kinds(events)
    return [
        _chart(page, hosts or {}, f"{title} (page {number} of {len(pages)})" if len(pages) > 1 else title, start, kinds)
        for number, page in enumerate(pages, 1)
    ]


def _start(events: pd.DataFrame, start_ns: int | None) -> int:
    if start_ns is not None:
        return start_ns
    return int(events["time_ns"].min()) if len(events) else 0


def _kinds(events: pd.DataFrame) -> dict[str, str]:
    """A colour per kind, in order of appearance."""
    kinds = dict.fromkeys(events.sort_values("time_ns", kind="stable")["kind"].astype(str))
    return {kind: PALETTE[index % len(PALETTE)] for index, kind in enumerate(kinds)}


def _chart(items: Sequence[Item], hosts: Mapping[str, str], title: str, start_ns: int, kinds: dict[str, str]) -> Figure:
    columns = lifelines(items, hosts)
    with parts.plain_style():
        if not columns:
            figure = new_figure(WIDTH_MIN, 0.9, None)
            axes = _canvas(figure, WIDTH_MIN, 0.9)
            axes.text(WIDTH_MIN / 2, 0.45, "no signalling", ha="center", color="#777777")
            return figure
        frame = _frame(items, columns, title)
        used = [kind for kind in kinds if any(isinstance(i, Message) and i.kind == kind for i in items)]
        legend = _legend_places(used, frame)
        height = frame.y(frame.rows) + 0.1 + (0.24 * (1 + max((row for row, _, _ in legend), default=-1)))
        figure = new_figure(frame.width, height, None)
        axes = _canvas(figure, frame.width, height)
        if title:
            text = parts.fitted(title, frame.width - 2 * EDGE, TITLE_POINTS, bold=True)
            axes.text(EDGE, 0.22, text, fontsize=TITLE_POINTS, fontweight="bold", va="center")
        _draw_header(axes, frame)
        for row, item in enumerate(items):
            _draw_item(axes, frame, row, item, start_ns, kinds)
        _draw_brackets(axes, frame, items, start_ns)
        for line, x, kind in legend:
            y = frame.y(frame.rows) + 0.05 + 0.24 * line
            axes.add_patch(Rectangle((x, y - 0.05), 0.12, 0.1, color=kinds[kind], linewidth=0))
            axes.text(x + 0.18, y, parts.shorten(kind, 60), fontsize=SMALL_POINTS, va="center")
        return figure


def _canvas(figure: Figure, width: float, height: float) -> Axes:
    """Axes that cover the figure, in inches, y downwards."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return axes


def _frame(items: Sequence[Item], columns: list[Lifeline], title: str) -> Frame:
    """Where the columns stand: far enough apart for their names and, within reason, for the labels between them."""
    bracket = any(isinstance(item, Message) and item.repeats > 1 for item in items)
    names = [max(parts.text_width_in(line, NAME_POINTS) for line in _name_lines(column.name)) + 0.25 for column in columns]
    spacing = max([SPACING_MIN, *names])
    labels = [parts.text_width_in(_label(item), LABEL_POINTS) + 0.3 for item in items if isinstance(item, Message)]
    sides = max(names[0], names[-1]) / 2
    extra = TIME_COLUMN + EDGE + (BRACKET if bracket else 0.0)
    wanted = max([WIDTH_MIN, extra + 2 * sides + spacing * (len(columns) - 1), extra + max(labels, default=0.0)])
    least = extra + 2 * sides + max(names) * (len(columns) - 1)
    width = max(min(wanted, WIDTH_MAX), least)
    room = width - extra - 2 * sides
    step = room / max(len(columns) - 1, 1)
    x = {column.name: TIME_COLUMN + sides + (step * i if len(columns) > 1 else room / 2) for i, column in enumerate(columns)}
    grouped = any(column.host != NO_HOST for column in columns)
    top = EDGE + (TITLE if title else 0.0) + (HOST_HEADER if grouped else 0.0) + HEADER
    return Frame(columns, x, width, top, len(items), bracket)


def _name_lines(name: str) -> list[str]:
    """A long name on two lines, broken behind a colon or dot near the middle."""
    if len(name) <= 20:
        return [name]
    breaks = [i + 1 for i, letter in enumerate(name[:-1]) if letter in ":.- "] or [len(name) // 2]
    middle = min(breaks, key=lambda at: abs(at - len(name) / 2))
    return [parts.shorten(line, 30) for line in (name[:middle], name[middle:])]


def _draw_header(axes: Axes, frame: Frame) -> None:
    """Names of hosts and addresses, and the lifelines."""
    bottom = frame.y(frame.rows - 1) + 0.14
    for column in frame.columns:
        x = frame.at(column.name)
        axes.plot([x, x], [frame.top, bottom], color="#B8B8B8", linewidth=1, zorder=1, solid_capstyle="butt")
        axes.text(
            x, frame.top - HEADER / 2, "\n".join(_name_lines(column.name)), fontsize=NAME_POINTS, ha="center",
            va="center", linespacing=1.15, zorder=3, gid="lifeline",
        )  # fmt: skip
    groups: dict[str, list[float]] = {}
    for column in frame.columns:
        if column.host != NO_HOST:
            groups.setdefault(column.host, []).append(frame.at(column.name))
    step = min((b - a for a, b in zip(list(frame.x.values()), list(frame.x.values())[1:], strict=False)), default=2.0)
    half = min(step / 2 - 0.04, frame.x[frame.columns[0].name] - TIME_COLUMN)
    for host, places in groups.items():
        left, right = min(places) - half, max(places) + half
        axes.add_patch(
            FancyBboxPatch(
                (left, frame.top - HEADER - HOST_HEADER + 0.03), right - left, HOST_HEADER + HEADER - 0.08,
                boxstyle="round,pad=0,rounding_size=0.06", facecolor="#F1F3F5", edgecolor="#D0D5DA", linewidth=0.8, zorder=0,
            )
        )  # fmt: skip
        axes.text(
            (left + right) / 2, frame.top - HEADER - HOST_HEADER / 2 + 0.04,
            parts.fitted(host, right - left - 0.1, HOST_POINTS, bold=True),
            fontsize=HOST_POINTS,
            fontweight="bold", ha="center", va="center", gid="host",
        )  # fmt: skip


def _draw_item(axes: Axes, frame: Frame, row: int, item: Item, start_ns: int, kinds: dict[str, str]) -> None:
    y = frame.y(row)
    if isinstance(item, Quiet):
        _draw_pause(axes, frame, y, f"{parts.duration_text(item.seconds)} without signalling")
    elif isinstance(item, Omitted):
        _draw_pause(axes, frame, y, f"{parts.count_text(item.count, 'message')} not shown")
    else:
        axes.text(
            frame.left - 0.12, y, _time_text(item.time_ns - start_ns), fontsize=SMALL_POINTS, ha="right", va="center",
            color=SOFT, gid="time",
        )  # fmt: skip
        _draw_arrow(axes, frame, y, item, kinds[item.kind])


def _draw_pause(axes: Axes, frame: Frame, y: float, text: str) -> None:
    """A broken stretch of all lifelines with a text."""
    left, right = EDGE, frame.right
    axes.add_patch(Rectangle((left, y - ROW * 0.62), right - left, ROW * 0.9, facecolor="#F4F4F4", linewidth=0, zorder=2))
    middle, place = (left + right) / 2, y - ROW * 0.17
    axes.text(
        middle, place, text, fontsize=SMALL_POINTS, ha="center", va="center", color=SOFT, style="italic", zorder=3, gid="pause"
    )


def _time_text(after_ns: int) -> str:
    """Seconds with as many digits as the column has room for."""
    seconds = after_ns / 1e9
    return f"{seconds:.4f} s" if abs(seconds) < 1000 else f"{seconds:.2f} s"


def _label(item: Message) -> str:
    return parts.shorten(f"{item.label} (again)" if item.again else item.label, LABEL_MAX)


def _draw_arrow(axes: Axes, frame: Frame, y: float, item: Message, colour: str) -> None:
    """The arrow from source to target and its label, which stays within the chart."""
    source, target = frame.at(item.source), frame.at(item.target)
    style = (0, (3, 1.5)) if item.again else "-"
    if source == target:  # to itself, or between addresses that share a lifeline
        axes.plot(
            [source, source + 0.22, source + 0.22],
            [y - 0.1, y - 0.1, y + 0.02],
            color=colour,
            linewidth=1.2,
            linestyle=style,
            zorder=4,
        )
        tail, head, middle = source + 0.22, source, source
    else:
        tail, head, middle = source, target, (source + target) / 2
    level = y + 0.02 if source == target else y
    axes.annotate(
        "", (head, level), xytext=(tail, level), zorder=4,
        arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.2, "linestyle": style, "shrinkA": 0, "shrinkB": 0,
                    "mutation_scale": 9},
    )  # fmt: skip
    text = parts.fitted(_label(item), frame.right - frame.left - 0.05, LABEL_POINTS)
    half = parts.text_width_in(text, LABEL_POINTS) / 2
    if source == target:
        middle = source + 0.3 + half
    middle = min(max(middle, frame.left + half), max(frame.right - half, frame.left + half))
    axes.text(
        middle, y - 0.055, text, fontsize=LABEL_POINTS, ha="center", va="bottom", color=TEXT_COLOUR, zorder=5, gid="label",
        bbox={"boxstyle": "square,pad=0.08", "facecolor": "white", "edgecolor": "none"},
    )  # fmt: skip


def _draw_brackets(axes: Axes, frame: Frame, items: Sequence[Item], start_ns: int) -> None:
    """To the right of rows that stand for several repetitions: how many, and until when."""
    blocks: dict[int, list[int]] = {}
    for row, item in enumerate(items):
        if isinstance(item, Message) and item.repeats > 1:
            blocks.setdefault(item.block, []).append(row)
    for rows in blocks.values():
        item = items[rows[0]]
        assert isinstance(item, Message)
        top, bottom, x = frame.y(rows[0]) - ROW * 0.55, frame.y(rows[-1]) + ROW * 0.15, frame.right + 0.08
        axes.plot([x, x + 0.07, x + 0.07, x], [top, top, bottom, bottom], color=SOFT, linewidth=0.9)
        until = _time_text(item.until_ns - start_ns)
        text = f"{item.repeats} times,{chr(10) if len(rows) > 1 else ' '}until {until}"
        axes.text(x + 0.13, (top + bottom) / 2, text, fontsize=7, va="center", color=SOFT, gid="repeats")


def _legend_places(kinds: Sequence[str], frame: Frame) -> list[tuple[int, float, str]]:
    """Line and left edge of each kind's entry in the legend; none for a single kind."""
    out: list[tuple[int, float, str]] = []
    line, x = 0, EDGE
    for kind in kinds if len(kinds) > 1 else ():
        length = 0.3 + parts.text_width_in(parts.shorten(kind, 60), SMALL_POINTS)
        if x > EDGE and x + length > frame.width - EDGE:
            line, x = line + 1, EDGE
        out.append((line, x, kind))
        x += length + 0.15
    return out
