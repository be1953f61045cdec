"""How much of each access link's capacity was used, and what each network carried, in the time between changes of capacity.

Capacities and rates count Ethernet frames without the frame check sequence, as the profiles of the links do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from analysis.measures.goodput import rate_mbit
from analysis.measures.observation import Array, Bools, Int64s

Json = dict[str, Any]
TOGETHER_S = 0.1
"""Changes of capacity that are closer to each other are one."""


@dataclass(frozen=True)
class Frames:
    """IP packets captured at the interfaces of the multihomed host, one entry each.

    `times_s`: seconds since time 0; `sizes`: bytes of the frame; `path`: number of the path, -1 for none; `with_data`: whether
    it goes in the direction of the application's data.
    """

    times_s: Array
    sizes: Array
    path: Int64s
    with_data: Bools


@dataclass(frozen=True)
class Capacity:
    """From `at_s` on the links of the paths have these rates in the direction of the data (Mbit/s; None: unknown)."""

    at_s: float
    rates_mbit: Mapping[str, float | None]


@dataclass(frozen=True)
class Arrivals:
    """New application data at the receiver: seconds since time 0, and bytes in all until then."""

    times_s: Array
    total_bytes: Array


def wire_bytes(frames: Frames, names: Sequence[str]) -> dict[str, int]:
    """Bytes by path in both directions, headers, tunnels, signalling and repetitions included: what a tariff counts."""
    mine = frames.path >= 0
    counts = np.bincount(frames.path[mine], weights=frames.sizes[mine], minlength=len(names))
    return dict(zip(names, counts.astype(np.int64).tolist(), strict=True))


@dataclass(frozen=True)
class LinkUse:
    """How the links were used in an interval, in the direction of the data. Texts are names of paths."""

    rate: dict[str, float | None]
    """Mbit/s on the wire, headers and repetitions included."""
    of_capacity: dict[str, float | None]
    """That divided by the link's capacity."""
    share: dict[str, float | None]
    """The path's part of the bytes."""
    capacity_mbit: float | None
    """Sum of all links' capacities."""
    goodput_mbit: float | None
    goodput_of_capacity: float | None


@dataclass(frozen=True)
class LoadPhase:
    """The time between two changes of capacity, seconds since time 0. `settled`: its second half."""

    begins_s: float
    ends_s: float
    capacity: dict[str, float | None]
    whole: LinkUse
    settled: LinkUse

    def fields(self) -> Json:
        """For metrics.json: those of `whole` beside the others."""
        row = asdict(self)
        return {**{name: value for name, value in row.items() if name not in ("whole", "settled")}, **row["whole"],
                "settled": row["settled"]}  # fmt: skip


@dataclass(frozen=True)
class Load:
    """What the networks carried, by path, and how that met their capacities. Bytes are those of `wire_bytes`."""

    wire_bytes: dict[str, int]
    wire_share: dict[str, float | None]
    phases: list[Json]
    """Of `LoadPhase.fields`."""


def load_phases(
    frames: Frames, names: Sequence[str], capacities: Sequence[Capacity], arrivals: Arrivals | None, ended_s: float
) -> list[LoadPhase]:
    """A row for each time between two changes of capacity (those within TOGETHER_S are one), the last one until `ended_s`.

    `capacities` in order of time, the first one from time 0 on. Goodput is None without `arrivals`, and what needs a
    capacity that is not known.
    """
    kept = [now for place, now in enumerate(capacities) if not _completed_by(now, capacities[place + 1 :])]
    edges = [0.0, *(item.at_s for item in kept[1:]), ended_s]
    rows = []
    for (begins_s, ends_s), capacity in zip(pairwise(edges), kept, strict=True):
        rates = [capacity.rates_mbit.get(name) for name in names]
        whole, late = (begins_s, ends_s), ((begins_s + ends_s) / 2, ends_s)
        uses = [_use(frames, names, rates, arrivals, when) for when in (whole, late)]
        rows.append(LoadPhase(round(begins_s, 3), round(ends_s, 3), dict(zip(names, rates, strict=True)), *uses))
    return rows


def _completed_by(now: Capacity, later: Sequence[Capacity]) -> bool:
    """Is the next change part of the same one? Then that one knows all rates. What holds from time 0 on is no change."""
    return bool(later) and now.at_s > 0 and later[0].at_s - now.at_s < TOGETHER_S


def _use(
    frames: Frames,
    names: Sequence[str],
    rates_mbit: Sequence[float | None],
    arrivals: Arrivals | None,
    when: tuple[float, float],
) -> LinkUse:
    begin_s, end_s = when
    inside = (frames.path >= 0) & frames.with_data & (frames.times_s >= begin_s) & (frames.times_s < end_s)
    sizes = np.bincount(frames.path[inside], weights=frames.sizes[inside], minlength=len(names))
    used = sizes * 8 / 1e6 / (end_s - begin_s) if end_s > begin_s else np.full(len(names), np.nan)
    known = [rate for rate in rates_mbit if rate is not None]
    capacity_mbit = sum(known) if len(known) == len(rates_mbit) else None
    goodput = None if arrivals is None else rate_mbit(arrivals.times_s, arrivals.total_bytes, begin_s, end_s)
    parts = [rate / limit if limit else None for rate, limit in zip(used.tolist(), rates_mbit, strict=True)]
    return LinkUse(
        rate=_named(names, used.tolist()),
        of_capacity=_named(names, parts),
        share=_named(names, (sizes / sizes.sum()).tolist() if sizes.any() else [None] * len(names)),
        capacity_mbit=capacity_mbit,
        goodput_mbit=_round(goodput),
        goodput_of_capacity=_round(goodput / capacity_mbit) if goodput is not None and capacity_mbit else None,
    )


def _named(names: Sequence[str], values: Sequence[float | None]) -> dict[str, float | None]:
    return {name: _round(value) for name, value in zip(names, values, strict=True)}


def _round(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, 6)
