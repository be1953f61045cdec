"""What the figures of one connection and direction share: its rows, the colours of its subflows, gap and signal marks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.connections.delivery import delivery
from analysis.connections.facts import endpoint
from analysis.connections.model import Reconstruction
from analysis.style import PALETTE

KIND_NAMES = ("first transmission", "retransmission", "reinjection", "without mapping")
OTHERS_COLOUR = "#8C8C8C"
GROUPS_MAX = 7
"""Colours that can be told apart; with more subflows, those between the same addresses share one."""
MARKED = {
    "MP_JOIN SYN": "JOIN", "ADD_ADDR": "ADD_ADDR", "REMOVE_ADDR": "REMOVE_ADDR", "MP_PRIO": "MP_PRIO", "MP_FAIL": "MP_FAIL",
    "MP_FASTCLOSE": "MP_FASTCLOSE", "MP_TCPRST": "MP_TCPRST", "DATA_FIN": "DATA_FIN", "RST": "RST",
}  # fmt: skip
"""Kinds of signals that are marked in figures over time, with what they are called there."""
SAME_MARK_SHARE = 0.008
"""Signals of one kind closer together than this share of the figure are one mark."""

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Subflows drawn in one colour: mostly one."""

    label: str
    colour: str
    subflows: tuple[int, ...]


@dataclass(frozen=True)
class Mark:
    """A signal in a figure over time, or an event of the experiment. `count`: so many at practically the same moment."""

    at_s: float
    text: str
    count: int = 1
    event: bool = False

    @property
    def label(self) -> str:
        """What stands beside the line."""
        return f"{self.text} ×{self.count}" if self.count > 1 else self.text


@dataclass(frozen=True)
class Timeline:
    """The experiment in which a connection was captured: figures then have its clock, its events and its gap.

    `zero_ns`: the moment called 0. All else is in seconds since then: `span_s`, what is drawn at least; `events`, moments and
    names; `gap_s`, start and end of the longest time without new data, `gap_length` in words. `paths`: names of the paths that
    subflows take, by subflow number.
    """

    title: str
    zero_ns: int
    span_s: tuple[float, float]
    events: tuple[tuple[float, str], ...] = ()
    gap_s: tuple[float, float] | None = None
    gap_length: str = ""
    paths: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """One direction of one connection. Times are seconds since its first packet, or since the zero of its timeline.

    `segments`, `acks`: rows of the reconstruction with a place in the data stream, in order of time. `unmapped`: segments
    without one. `signals`: of both sides. `limits_s`: what is to be drawn.
    """

    rec: Reconstruction = field(repr=False)
    connection: int
    up: bool
    origin_ns: int
    segments: pd.DataFrame
    acks: pd.DataFrame
    signals: pd.DataFrame
    flows: pd.DataFrame
    groups: tuple[Group, ...]
    unmapped: int
    limits_s: tuple[float, float]
    timeline: Timeline | None = None

    def seconds(self, table: pd.DataFrame) -> Floats:
        """Times of the rows of a table, s."""
        return (table["time_ns"].to_numpy(np.int64) - self.origin_ns) / 1e9

    def group_of(self, table: pd.DataFrame) -> npt.NDArray[np.int64]:
        """For each row of a table the index of its subflow in `groups`; -1 when it has none."""
        subflows = table["subflow"].to_numpy(np.int64)
        lookup = np.full(max([int(subflows.max(initial=0)), *(s for g in self.groups for s in g.subflows)]) + 2, -1, np.int64)
        for index, group in enumerate(self.groups):
            lookup[list(group.subflows)] = index
        return np.asarray(lookup[subflows], np.int64)  # -1 finds the last cell, which stays -1

    @cached_property
    def deliveries(self) -> tuple[Floats, Int64s]:
        """When in-order data grew (s) and to how many bytes, by what the receiver acknowledged."""
        time_ns, reached = delivery(self.rec, self.connection, self.up)
        return (time_ns - self.origin_ns) / 1e9, reached

    @property
    def gap_s(self) -> tuple[float, float] | None:
        """Start and end of the longest time without new in-order data; None with fewer than two deliveries.

        The timeline's, if there is one.
        """
        if self.timeline is not None:
            return self.timeline.gap_s
        times, _ = self.deliveries
        if times.size < 2:
            return None
        longest = int(np.argmax(np.diff(times)))
        return float(times[longest]), float(times[longest + 1])

    def marks(self, span_s: tuple[float, float]) -> list[Mark]:
        """Signals between two moments worth a line in a figure, repetitions left out, neighbours of a kind as one."""
        return _marks(self.signals, self.seconds(self.signals), span_s)

    def events(self, span_s: tuple[float, float]) -> list[Mark]:
        """Events of the timeline between two moments."""
        known = self.timeline.events if self.timeline is not None else ()
        return [Mark(at_s, text, event=True) for at_s, text in known if span_s[0] <= at_s <= span_s[1]]

    @property
    def title(self) -> str:
        """What the timeline calls it, else which connection and which way."""
        if self.timeline is not None:
            return self.timeline.title
        ends = [f"{_host(self.flows, side)}" for side in ("client", "server")]
        source, target = ends if self.up else ends[::-1]
        return f"connection {self.connection}: {source} → {target}"


def _host(flows: pd.DataFrame, side: str) -> str:
    """Address and port of the connection's client or server, as the initial subflow has them."""
    if flows.empty:
        return side
    first = flows.iloc[0]
    side = side if bool(first["opened_by_client"]) else {"client": "server", "server": "client"}[side]
    return endpoint(str(first[side]), int(first[f"{side}_port"]))


def facts_of(rec: Reconstruction, connection: int) -> Any:
    """The row of a connection. Raises KeyError when there is none."""
    return rec.connections.loc[connection]


def make_view(
    rec: Reconstruction, connection: int, up: bool, start_s: float | None = None, end_s: float | None = None,
    timeline: Timeline | None = None,
) -> View:  # fmt: skip
    """Rows of one direction of a connection, between two moments (s since its first packet) if they are given.

    With a `timeline`, moments count from its zero. Raises KeyError when there is no such connection. Deliveries and gap are
    those of the whole connection.
    """
    facts = facts_of(rec, connection)
    segments = rec.segments.loc[(rec.segments["connection"] == connection) & (rec.segments["up"] == up)]
    acks = rec.acks.loc[(rec.acks["connection"] == connection) & (rec.acks["up"] == up)]
    flows = rec.flows.loc[rec.flows["connection"] == connection].sort_values("subflow", kind="stable")
    origin_ns = int(facts["first_ns"]) if timeline is None else timeline.zero_ns
    first_s, last_s = ((int(facts[name]) - origin_ns) / 1e9 for name in ("first_ns", "last_ns"))
    if timeline is not None:
        first_s, last_s = min(first_s, timeline.span_s[0]), max(last_s, timeline.span_s[1])
    last_s = max(last_s, first_s + 1e-3)
    mapped = segments["begin"] >= 0
    return View(
        rec=rec,
        connection=connection,
        up=up,
        origin_ns=origin_ns,
        segments=segments.loc[mapped],
        acks=acks.loc[acks["data_ack"] >= 0],
        signals=rec.signals.loc[rec.signals["connection"] == connection],
        flows=flows,
        groups=subflow_groups(flows, "data_up" if up else "data_down", timeline.paths if timeline else {}),
        unmapped=int((~mapped).sum()),
        limits_s=(first_s if start_s is None else start_s, last_s if end_s is None else end_s),
        timeline=timeline,
    )


def _ends(flow: Any) -> tuple[str, str]:
    """Addresses of a flow at the connection's client and server."""
    ends = str(flow.client), str(flow.server)
    return ends if flow.opened_by_client else ends[::-1]


def subflow_groups(flows: pd.DataFrame, size: str, paths: Mapping[int, str]) -> tuple[Group, ...]:
    """Who shares a colour: nobody as long as there are colours, then subflows between the same addresses, then the small.

    flows: those of one connection in order of their subflow numbers. `size`: the column by which few stand out of many.
    `paths`: names of paths by subflow number, as far as they are known.
    """
    rows: list[Any] = list(flows.itertuples())
    several_servers = len({_ends(row)[1] for row in rows}) > 1

    def name(row: Any) -> str:
        client, server = _ends(row)
        path = paths.get(int(row.subflow))
        return (f"{client} – {server}" if several_servers else client) + (f" ({path})" if path else "")

    members: dict[Any, list[Any]] = {}
    for row in rows:
        members.setdefault(int(row.subflow) if len(rows) <= GROUPS_MAX else _ends(row), []).append(row)
    groups = list(members.values())
    rest: list[Any] = []
    if len(groups) > GROUPS_MAX:
        largest = sorted(groups, key=lambda group: -sum(getattr(row, size) for row in group))[: GROUPS_MAX - 1]
        kept = {id(group) for group in largest}
        rest = [row for group in groups if id(group) not in kept for row in group]
        groups = [group for group in groups if id(group) in kept]
    out = [
        Group(f"{_numbers(int(row.subflow) for row in group)} · {name(group[0])}", PALETTE[i], _subflows(group))
        for i, group in enumerate(groups)
    ]
    if rest:
        out.append(Group(f"{len(rest)} other subflows", OTHERS_COLOUR, _subflows(rest)))
    return tuple(out)


def _subflows(rows: list[Any]) -> tuple[int, ...]:
    return tuple(int(row.subflow) for row in rows)


def _numbers(values: Iterable[int]) -> str:
    """Numbers of subflows in a legend: 0, 3, 4 … (9 of them)."""
    numbers = list(values)
    some = ", ".join(map(str, numbers[:3]))
    return some if len(numbers) <= 3 else f"{some} … ({len(numbers)} subflows)"


def _marks(signals: pd.DataFrame, times_s: Floats, span_s: tuple[float, float]) -> list[Mark]:
    kinds = signals["kind"].astype(str).to_numpy()
    spoken = set(signals.loc[signals["kind"] == "MP_TCPRST", "row"])  # an RST that says why needs no second mark
    near_s = (span_s[1] - span_s[0]) * SAME_MARK_SHARE
    out: list[Mark] = []
    last: dict[str, int] = {}
    for at_s, kind, row, subflow, repeated in zip(
        times_s, kinds, signals["row"], signals["subflow"], signals["repeated"], strict=True
    ):
        if kind not in MARKED or repeated or not span_s[0] <= at_s <= span_s[1] or (kind == "RST" and row in spoken):
            continue
        text = MARKED[kind]
        known = last.get(text)
        if known is not None and at_s - out[known].at_s <= near_s:
            out[known] = Mark(out[known].at_s, text, out[known].count + 1)
            continue
        last[text] = len(out)
        out.append(Mark(float(at_s), f"{text} {subflow}" if text in ("JOIN", "MP_PRIO") else text))
    return out
