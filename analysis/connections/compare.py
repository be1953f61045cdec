"""What happened to the packets between two capture points: translation, rewriting, options removed, loss, injection, delay."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.connections.alignment import Alignment, align
from analysis.connections.damage import DAMAGE_COLUMNS, Crossing, find_damage
from analysis.connections.facts import amount, endpoint
from analysis.connections.pairing import Pair, pair_flows

if TYPE_CHECKING:
    from analysis.connections.model import Reconstruction

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Comparison:
    """Flows at capture points A and B.

    `pairs`, one row per flow seen at both: flow_a, flow_b, connection (of flow_a), paired_by, client_side ("a" or "b": the
    point nearer to the client), ends_a, ends_b, packets_a, packets_b, matched, shift_up, shift_down (sequence numbers at B
    minus those at A), hops_up, hops_down (routers in between by the TTL, -1 unknown).
    `damage`, one row per pair, direction, kind and thing: pair (row of `pairs`, -1 for flows without a partner), flow_a,
    flow_b, direction ("up": from the client of flow_a, "down", "" both), kind, what, count, time_ns and row of the first
    packet, text, weight.
    `delays`, one row per pair and direction: pair, direction, count, min_ms, median_ms, p95_ms, max_ms: the time from the point
    passed first to the other one. Clocks that disagree add a constant: `clock_offset_ms` (B minus A) is the estimate of it
    that makes the least delays of both directions equal; it is not applied. NaN without packets in both directions.
    """

    pairs: pd.DataFrame
    damage: pd.DataFrame
    delays: pd.DataFrame
    clock_offset_ms: float


def compare(core: Reconstruction, point_a: int | Collection[int], point_b: int | Collection[int]) -> Comparison:
    """Compare two capture points, or two groups of them (all interfaces of a client with all of a server, say).

    Points are values of `core.connections.point`. Raises ValueError when a point has no flows or both groups overlap.
    """
    first, second = _flows_at(core, point_a, "point_a"), _flows_at(core, point_b, "point_b")
    if set(first) & set(second):
        raise ValueError("point_a, point_b: the same capture point on both sides: name two different ones")
    pairs = pair_flows(core, first, second)
    aligned = align(core, pairs)
    near = _first_is_near(core, aligned, len(pairs))
    crossing = Crossing.of(core, pairs, aligned, near)
    delays, offset_ms = _delays(crossing)
    rows = find_damage(crossing, offset_ms) + _missing_flows(core, pairs, first, second)
    damage = pd.DataFrame(rows, columns=list(DAMAGE_COLUMNS)).sort_values("time_ns", kind="stable", ignore_index=True)
    return Comparison(_describe_pairs(crossing), damage, delays, offset_ms)


def _flows_at(core: Reconstruction, point: int | Collection[int], name: str) -> list[int]:
    points = {point} if isinstance(point, int) else set(point)
    point_of = core.connections["point"].to_numpy()[core.flows["connection"].to_numpy()]
    found: list[int] = np.flatnonzero(np.isin(point_of, list(points))).tolist()
    if not found:
        known = sorted(set(point_of.tolist()))
        raise ValueError(f"{name}: no flow at capture point {sorted(points)}: there are {known}")
    return found


def _first_is_near(core: Reconstruction, aligned: Alignment, pairs: int) -> npt.NDArray[np.bool_]:
    """Per pair whether the first point is nearer to the client: what the client sends passes it first.

    Constant differences of clocks cancel out when both directions are compared. Where that does not tell, the TTL does, and
    else what holds for most other pairs.
    """
    one = np.flatnonzero(~aligned.second & (aligned.mate >= 0))
    other = aligned.mate[one]
    later_ns = aligned.time_ns[other] - aligned.time_ns[one]
    ttl = core.packets["ttl"].astype(np.int64)
    lower = ttl[aligned.row[one]] - ttl[aligned.row[other]]
    sign = np.zeros(pairs, np.int64)
    medians = pd.DataFrame({"group": aligned.group(one), "later": later_ns, "lower": lower}).groupby("group").median()
    whole = medians.reindex(range(pairs * 2))
    by_time = whole["later"].to_numpy()[1::2] - whole["later"].to_numpy()[::2]
    by_ttl = np.nan_to_num(whole["lower"].to_numpy()[1::2]) - np.nan_to_num(whole["lower"].to_numpy()[::2])
    sign = np.where(np.nan_to_num(by_time) != 0, np.sign(np.nan_to_num(by_time)), np.sign(by_ttl))
    usual = 1 if sign.sum() >= 0 else -1
    return np.where(sign == 0, usual, sign) > 0


def _delays(crossing: Crossing) -> tuple[pd.DataFrame, float]:
    """One-way delays per pair and direction, and how far the clock of B is ahead of that of A if paths are symmetric."""
    aligned = crossing.aligned
    group = aligned.group(crossing.sent)
    delay_ms = (aligned.time_ns[crossing.arrived] - aligned.time_ns[crossing.sent]) / 1e6
    order = np.lexsort((delay_ms, group))
    ordered = delay_ms[order]
    numbers, start, count = np.unique(group[order], return_index=True, return_counts=True)
    columns: dict[str, Any] = {"pair": numbers // 2, "direction": np.where(numbers % 2 == 1, "up", "down"), "count": count}
    for name, share in (("min_ms", 0.0), ("median_ms", 0.5), ("p95_ms", 0.95), ("max_ms", 1.0)):
        at = start + share * (count - 1)
        low = np.floor(at).astype(np.int64)
        high = np.minimum(low + 1, start + count - 1)
        columns[name] = ordered[low] + (at - low) * (ordered[high] - ordered[low])
    from_a = ~aligned.second[crossing.sent]
    both = [float(delay_ms[chosen].min()) if chosen.any() else np.nan for chosen in (from_a, ~from_a)]
    return pd.DataFrame(columns), (both[0] - both[1]) / 2


def _describe_pairs(crossing: Crossing) -> pd.DataFrame:
    """The table `pairs`."""
    core, aligned = crossing.core, crossing.aligned
    count = len(crossing.pairs)
    number = [
        np.bincount(aligned.pair[chosen], minlength=count)
        for chosen in (~aligned.second, aligned.second, ~aligned.second & (aligned.mate >= 0))
    ]
    hops = _hops(crossing)
    flows, ends = core.flows, _ends(core.flows)
    return pd.DataFrame(
        {
            "flow_a": [pair.first for pair in crossing.pairs],
            "flow_b": [pair.second for pair in crossing.pairs],
            "connection": flows["connection"].to_numpy()[[pair.first for pair in crossing.pairs]],
            "paired_by": [pair.paired_by for pair in crossing.pairs],
            "client_side": np.where(crossing.near, "a", "b"),
            "ends_a": [" > ".join(ends[pair.first]) for pair in crossing.pairs],
            "ends_b": [" > ".join(ends[pair.second][:: -1 if pair.flipped else 1]) for pair in crossing.pairs],
            "packets_a": number[0],
            "packets_b": number[1],
            "matched": number[2],
            "shift_up": aligned.shift[:, 1],
            "shift_down": aligned.shift[:, 0],
            "hops_up": hops[1::2],
            "hops_down": hops[::2],
        }
    )


def _hops(crossing: Crossing) -> Array:
    """Routers between the points per pair * 2 + up, by the TTL of most packets; -1 unknown or not plausible."""
    ttl = crossing.core.packets["ttl"].astype(np.int64)
    aligned = crossing.aligned
    lost = ttl[aligned.row[crossing.sent]] - ttl[aligned.row[crossing.arrived]]
    medians = pd.Series(lost).groupby(aligned.group(crossing.sent)).median()
    hops = medians.reindex(range(2 * len(crossing.pairs))).fillna(-1).to_numpy()
    return np.where(hops >= 0, hops, -1).astype(np.int64)


def _ends(flows: pd.DataFrame) -> list[tuple[str, str]]:
    """Client and server of every flow as text."""
    columns = (flows[name].tolist() for name in ("client", "client_port", "server", "server_port"))
    return [(endpoint(client, port), endpoint(server, other)) for client, port, server, other in zip(*columns, strict=True)]


def _missing_flows(core: Reconstruction, pairs: list[Pair], first: list[int], second: list[int]) -> list[tuple[Any, ...]]:
    """Rows of `damage` for flows that only one point saw."""
    rows: list[tuple[Any, ...]] = []
    columns = {name: core.flows[name].tolist() for name in ("packets_up", "packets_down", "first_ns")}
    ends = _ends(core.flows)
    first_row = np.full(len(core.flows), -1, np.int64)
    used = np.flatnonzero(core.flow >= 0)[::-1]
    first_row[core.flow[used]] = used
    for flows, known, here, other in (
        (first, {pair.first for pair in pairs}, "A", "B"),
        (second, {pair.second for pair in pairs}, "B", "A"),
    ):
        for flow in flows:
            if flow not in known:
                packets = columns["packets_up"][flow] + columns["packets_down"][flow]
                text = f"Flow {' > '.join(ends[flow])} ({amount(packets, 'packets')}) was seen at {here} only."
                numbers = (flow, -1) if here == "A" else (-1, flow)
                place = columns["first_ns"][flow], int(first_row[flow])
                rows.append((-1, *numbers, "", "flow-missing", f"at {other}", packets, *place, text, "warning"))
    return rows
