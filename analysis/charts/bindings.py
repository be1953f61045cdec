"""Bindings of a mobile node over time."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.charts import axes as parts
from analysis.style import PALETTE, new_figure

ROWS_MAX = 40
"""Rows of a timeline; the rest is only counted."""
NEVER_NS = 1 << 62
OPEN = ("", "end of capture")
"""Values of `ended` of a binding that had not ended."""
Key = tuple[str, str, str, int]


def binding_timeline(bindings: pd.DataFrame, start_ns: int | None = None, end_ns: int | None = None) -> Figure:
    """When which care-of address was bound: one row per home address, peer, care-of address and BID, one bar per binding.

    bindings: home_address, care_of_address, bid (0, negative or missing: none), from_ns, to_ns (missing or negative: still
    bound at the end), ended (why: "expired", "deregistered", ...; "end of capture" or empty: still bound), optionally peer
    (home agent or correspondent; named where there are several). `start_ns`, `end_ns`: what the time axis covers, by
    default what the bindings cover. A care-of address keeps its colour.
    """
    with parts.plain_style():
        if bindings.empty:
            figure = new_figure(9, 1.2)
            axes = figure.add_subplot()
            axes.text(0.5, 0.5, "no bindings", transform=axes.transAxes, ha="center", color="#777777")
            axes.set_axis_off()
            return figure
        rows: dict[Key, list[Any]] = {}
        several = "peer" in bindings and bindings["peer"].nunique() > 1
        for binding in bindings.sort_values("from_ns", kind="stable").itertuples():
            peer = str(binding.peer) if several else ""
            key = str(binding.home_address), peer, str(binding.care_of_address), _bid(binding.bid)
            rows.setdefault(key, []).append(binding)
        left_out = len(rows) - ROWS_MAX
        shown = sorted(list(rows)[:ROWS_MAX], key=lambda key: key[:2])  # rows of a home address stay together, in order of time
        first_ns = int(bindings["from_ns"].min()) if start_ns is None else start_ns
        ends = [int(value) for value in bindings["to_ns"] if _known(value)]
        last_ns = max([int(bindings["from_ns"].max()), *ends]) if end_ns is None else end_ns
        span_s = max((last_ns - first_ns) / 1e9, 1e-3)
        if end_ns is None:
            span_s *= 1.06  # so that open ends can be seen
        addresses = list(dict.fromkeys(address for _, _, address, _ in rows))
        figure = new_figure(9, 1.0 + 0.42 * len(shown))
        axes = figure.add_subplot()
        for place, key in enumerate(shown):
            colour = PALETTE[addresses.index(key[2]) % len(PALETTE)]
            _draw_row(axes, place, rows[key], colour, first_ns, span_s)
        axes.set_yticks(range(len(shown)), [_name(key, shown[i - 1] if i else None) for i, key in enumerate(shown)])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, span_s)
        axes.set_xlabel("time (s)" if start_ns is not None else "time since the first binding (s)")
        parts.titled(axes, "bindings")
        if left_out > 0:
            parts.note(axes, [f"{parts.count_text(left_out, 'more row')} not shown"])
        return figure


def _bid(value: Any) -> int:
    """A binding identifier, 0 for none."""
    return max(int(value), 0) if value is not None and pd.notna(value) else 0


def _known(value: Any) -> bool:
    """Whether this is a moment."""
    return value is not None and bool(pd.notna(value)) and 0 <= int(value) < NEVER_NS


def _end(binding: Any) -> int | None:
    """When a binding ended, None when it had not when the capture ended."""
    open_end = not _known(binding.to_ns) or binding.ended in OPEN
    return None if open_end else int(binding.to_ns)


def _name(key: Key, before: Key | None) -> str:
    """Label of a row; home address and peer only where they change."""
    home, peer, care_of, bid = key
    own = f"{care_of}  BID {bid}" if bid > 0 else care_of
    if before is not None and before[:2] == key[:2]:
        return own
    return f"home {home}{f' at {peer}' if peer else ''}\n{own}"


def _draw_row(axes: Any, place: int, bindings: list[Any], colour: str, first_ns: int, span_s: float) -> None:
    """The bars of one row, with the reason where one ended, and an arrow where it did not."""
    for number, binding in enumerate(bindings):
        begin_s = (int(binding.from_ns) - first_ns) / 1e9
        end_ns = _end(binding)
        end_s = span_s if end_ns is None else (end_ns - first_ns) / 1e9
        axes.barh(
            place, max(end_s - begin_s, span_s * 1e-3), left=begin_s, height=0.52, color=colour, alpha=0.85,
            edgecolor="white", linewidth=1, zorder=3,
        )  # fmt: skip
        if end_ns is None:
            axes.plot([span_s * 0.995], [place], marker=">", markersize=6, color="white", zorder=4, clip_on=False)
            continue
        later = (int(bindings[number + 1].from_ns) - first_ns) / 1e9 if number + 1 < len(bindings) else span_s
        reason = parts.shorten(str(binding.ended or ""), 24)
        room = (later - end_s) / span_s * 6.5
        if reason and room > parts.text_width_in(reason, 7.5) + 0.1:
            axes.annotate(
                reason, (end_s, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5, color="#555555"
            )
        elif reason and (end_s - begin_s) / span_s * 6.5 > parts.text_width_in(reason, 7.5) + 0.15:
            axes.annotate(
                reason, (end_s, place), xytext=(-4, 0), textcoords="offset points", va="center", ha="right", fontsize=7.5,
                color="#000000", zorder=5,
            )  # fmt: skip
