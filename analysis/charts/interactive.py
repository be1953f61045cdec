"""Data of the interactive DSN plot: the script that draws it is `analysis/templates/dsn-plot.js`.

All numbers go into one string per table: columns one after the other, most as differences of neighbours, each number in base
128 with the lowest seven bits first (the high bit says that more follow), signed ones as zigzag, all of it in base64. Columns
of zeros are left out; a table names those that are there.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.charts.axes import LEVELS_MAX, duration_text
from analysis.charts.thinning import one_per_cell
from analysis.charts.view import KIND_NAMES, Timeline, View, facts_of, make_view
from analysis.connections.model import FIRST, Reconstruction

POINTS_MAX = 200_000
SCREEN_COLUMNS = 1600
"""Width in pixels of what is called one screen when the plot says up to which zoom it is complete."""
MARKS_MAX = 2000
SCRIPT = Path(__file__).resolve().parent.parent / "templates" / "dsn-plot.js"

Int64s = npt.NDArray[np.int64]


def script_text() -> str:
    """The script, ready to stand between script tags."""
    text = SCRIPT.read_text("utf-8")
    assert "</" not in text, "the script would end its own tag"
    return text


def script_hash() -> str:
    """The script's hash as a Content-Security-Policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script_text().encode()).digest()).decode()}"


def pack(columns: Sequence[Int64s]) -> str:
    """Columns of numbers >= 0, (n,) each, as base 128 in base64."""
    return base64.b64encode(b"".join(_base128(column) for column in columns)).decode("ascii")


def _base128(values: Int64s) -> bytes:
    """Numbers >= 0 in base 128, the lowest digit first."""
    rest = values.astype(np.uint64)
    size = np.ones(rest.size, np.int64)
    for bits in range(7, 63, 7):
        size += rest >= (1 << bits)
    start = np.cumsum(size) - size
    out = np.zeros(int(size.sum()), np.uint8)
    for digit in range(int(size.max(initial=1))):
        more = size > digit
        value = (rest[more] >> np.uint64(7 * digit)) & np.uint64(127)
        out[start[more] + digit] = value | np.where(size[more] > digit + 1, 128, 0).astype(np.uint64)
    return out.tobytes()


def zigzag(values: Int64s) -> Int64s:
    """0, -1, 1, -2, ... as 0, 1, 2, 3, ..."""
    return np.asarray(np.where(values < 0, -2 * values - 1, 2 * values), np.int64)


def steps(values: Int64s) -> Int64s:
    """The first number and the differences of the following ones."""
    return np.asarray(np.diff(values, prepend=np.int64(0)), np.int64)


@dataclass(frozen=True)
class FrameNumbers:
    """Where the rows of a table are in their files, as other tools count.

    `files`: names. `file_of_point`: index of the file of each capture point. `places`: per file the place of every record,
    ascending.
    """

    files: tuple[str, ...]
    file_of_point: Int64s
    places: tuple[Int64s, ...]

    def find(self, interface: Int64s, place: Int64s) -> tuple[Int64s, Int64s]:
        """Index of the file and number of the frame (from 1) of packets with these `interface` and `payload_at`."""
        file = self.file_of_point[np.minimum(interface, self.file_of_point.size - 1)]
        number = np.zeros(file.size, np.int64)
        for index, places in enumerate(self.places):
            mine = np.flatnonzero(file == index)
            number[mine] = np.searchsorted(places, place[mine]) + 1
        return file, number


def frame_numbers(names: Sequence[str], tables: Sequence[Any]) -> FrameNumbers:
    """From the packet tables of whole files in the order in which their points are counted; rows as in the file."""
    points = [max(len(table.points), 1) for table in tables]
    places = []
    for table in tables:
        at = table["payload_at"].astype(np.int64)
        places.append(np.maximum.accumulate(at))  # a record without payload has no place: it stays by the one before it
    return FrameNumbers(tuple(names), np.repeat(np.arange(len(points)), points), tuple(places))


def plot_data(
    rec: Reconstruction, connection: int, up: bool, points_max: int = POINTS_MAX, numbers: FrameNumbers | None = None,
    timeline: Timeline | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What the script needs to draw one direction of one connection; JSON-able, numbers as base64.

    At most `points_max` segments and half as many data ACKs: retransmissions and reinjections go first, of the rest one per
    cell of as fine a grid as possible. `numbers`: makes frame numbers. `timeline`: gives clock, events and gap. Raises KeyError
    for an unknown connection.
    """
    view = make_view(rec, connection, up, timeline=timeline)
    segments, segment_zoom = _segments(view, points_max)
    acks, ack_zoom = _thinned(
        view.acks["time_ns"].to_numpy(np.int64), view.acks["data_ack"].to_numpy(np.int64), points_max // 2
    )
    zooms = [zoom for zoom in (segment_zoom, ack_zoom) if zoom]
    rows = np.concatenate((view.segments["row"].to_numpy(np.int64)[segments], view.acks["row"].to_numpy(np.int64)[acks]))
    file, frame = np.zeros(rows.size, np.int64), np.zeros(rows.size, np.int64)
    if numbers is not None:
        packets = rec.packets
        file, frame = numbers.find(packets["interface"][rows].astype(np.int64), packets["payload_at"][rows])
    cut = segments.size
    facts = facts_of(rec, connection)
    first_ns, idsn = int(facts["first_ns"]), int(facts["client_idsn" if up else "server_idsn"])
    marks = view.marks(view.limits_s)
    return {
        "title": view.title,
        "span": list(view.limits_s),
        "start": (first_ns - view.origin_ns) / 1e9,
        "gap": list(view.gap_s) if view.gap_s else None,
        "gapText": _gap_text(view),
        "idsn": str(idsn) if idsn else "",
        "groups": [{"label": g.label, "colour": g.colour, "subflow": min(g.subflows)} for g in view.groups],
        "kinds": list(KIND_NAMES),
        "kindCounts": np.bincount(view.segments["kind"].to_numpy(np.int64), minlength=len(KIND_NAMES)).tolist(),
        "files": list(numbers.files) if numbers else [""],
        "segments": _segment_columns(view, first_ns, segments, file[:cut], frame[:cut]),
        "acks": _ack_columns(view, first_ns, acks, file[cut:], frame[cut:]),
        "completeTo": min(zooms) if zooms else 0,
        "unmapped": view.unmapped,
        "marks": [[mark.at_s, mark.label] for mark in marks[:MARKS_MAX]],
        "marksLeftOut": max(len(marks) - MARKS_MAX, 0),
        "events": [[mark.at_s, mark.label] for mark in view.events(view.limits_s)],
        "levels": LEVELS_MAX,
    }


def _gap_text(view: View) -> str:
    """What the shaded span is and how long it lasted."""
    if view.gap_s is None:
        return ""
    if view.timeline is not None:
        return f"the gap, {view.timeline.gap_length or duration_text(view.gap_s[1] - view.gap_s[0])}"
    return f"longest time without new in-order data, {duration_text(view.gap_s[1] - view.gap_s[0])}"


def _segments(view: View, limit: int) -> tuple[Int64s, float]:
    """Rows of `view.segments` to send, ascending, and the zoom up to which nothing is missing (0: at any)."""
    time_ns, begin = (view.segments[name].to_numpy(np.int64) for name in ("time_ns", "begin"))
    kinds = view.segments["kind"].to_numpy(np.int64)
    if kinds.size <= limit:
        return np.arange(kinds.size), 0.0
    rare, common = np.flatnonzero(kinds != FIRST), np.flatnonzero(kinds == FIRST)
    some, zoom_some = _thinned(time_ns[rare], begin[rare], limit // 2)
    rest, zoom_rest = _thinned(time_ns[common], begin[common], limit - some.size)
    zooms = [zoom for zoom in (zoom_some, zoom_rest) if zoom]
    return np.sort(np.concatenate((rare[some], common[rest]))), min(zooms) if zooms else 0.0


def _thinned(x: Int64s, y: Int64s, limit: int) -> tuple[Int64s, float]:
    """At most about `limit` points, one per cell of the finest grid that does it, and the zoom it stands for (0: all)."""
    if x.size <= limit:
        return np.arange(x.size), 0.0
    columns = 1 << 20
    while (kept := _grid(x, y, columns)).size > limit and columns > 2:
        columns //= 2
    for finer in (columns * 7 // 4, columns * 3 // 2, columns * 5 // 4):
        some = _grid(x, y, finer)
        if some.size <= limit:
            return some, finer / SCREEN_COLUMNS
    return kept[:limit], columns / SCREEN_COLUMNS


def _grid(x: Int64s, y: Int64s, columns: int) -> Int64s:
    return one_per_cell(x, y, columns, max(columns // 2, 1))


def _table(count: int, total: int, columns: dict[str, Int64s]) -> dict[str, Any]:
    """A table of the plot: what it is called and how it is packed is read by `unpacked` of the script."""
    sent = {name: column for name, column in columns.items() if column.any()}
    return {"count": count, "total": total, "columns": list(sent), "data": pack(list(sent.values()))}


def _micros(table: Any, rows: Int64s, first_ns: int) -> Int64s:
    """Times of rows in whole microseconds since the connection's first packet, never negative."""
    return np.asarray(np.maximum((table["time_ns"].to_numpy(np.int64)[rows] - first_ns) // 1000, 0), np.int64)


def _carriers(view: View, table: Any, rows: Int64s) -> tuple[Int64s, Int64s]:
    """Groups of rows, and how far the numbers of their subflows are above the smallest of the group."""
    group = np.maximum(view.group_of(table)[rows], 0)
    smallest = np.array([min(g.subflows) for g in view.groups] or [0], np.int64)
    return group, np.maximum(table["subflow"].to_numpy(np.int64)[rows] - smallest[group], 0)


def _segment_columns(view: View, first_ns: int, rows: Int64s, file: Int64s, frame: Int64s) -> dict[str, Any]:
    table = view.segments
    begin, end = (table[name].to_numpy(np.int64)[rows] for name in ("begin", "end"))
    group, subflow = _carriers(view, table, rows)
    columns = {
        "time": steps(_micros(table, rows, first_ns)),
        "begin": zigzag(steps(begin)),
        "size": zigzag(steps(np.maximum(end - begin, 0))),
        "code": group * 4 + table["kind"].to_numpy(np.int64)[rows],
        "subflow": subflow,
        "file": file,
        "frame": zigzag(steps(frame)),
    }
    return _table(rows.size, len(table), columns)


def _ack_columns(view: View, first_ns: int, rows: Int64s, file: Int64s, frame: Int64s) -> dict[str, Any]:
    table = view.acks
    group, subflow = _carriers(view, table, rows)
    columns = {
        "time": steps(_micros(table, rows, first_ns)),
        "begin": zigzag(steps(table["data_ack"].to_numpy(np.int64)[rows])),
        "code": group * 4,
        "subflow": subflow,
        "file": file,
        "frame": zigzag(steps(frame)),
    }
    return _table(rows.size, len(table), columns)
