"""Time series of a run, small enough to keep: what the figures draw."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.measures.gap import Floats, Gap
from analysis.rundir import Run

BIN_S = 0.1
"""Width of a bin of the rate per path."""
POINTS = 600
"""Points kept of the cumulative curve; every interval longer than 1/POINTS of the run keeps both its ends."""


@dataclass(frozen=True)
class Series:
    """`start_s`: left edge of the first bin. `paths`: payload rate per path and bin, Mbit/s, at the mobile node.

    `times_s`, `totals`: new application data at the receiver, cumulative, in `unit`. `gap`: its start and end, the end
    is None when the connection did not recover. `events`: moment, kind and target.
    """

    start_s: float
    end_s: float
    paths: dict[str, list[float]]
    times_s: list[float]
    totals: list[int]
    unit: str
    gap: tuple[float, float | None] | None
    events: list[tuple[float, str, str]]


def build_series(
    run: Run, times_s: Floats, totals: npt.NDArray[Any], unit: str, packets: pd.DataFrame, gap: Gap, ended_s: float
) -> Series:
    """Reduce the records of a run to a `Series`. `packets`: time_ns (capture clock), device, payload_bytes."""
    at_s = (packets["time_ns"].to_numpy(np.int64) - run.t0_wall_ns) / 1e9 if len(packets) else np.zeros(0)
    moments = [0.0, *(event.at_s for event in run.events)]
    for some in (times_s, at_s):
        if some.size:
            moments += [float(some[0]), float(some[-1])]
    start_s = float(np.floor(min(moments) / BIN_S) * BIN_S)
    last_s = max(moments)
    if gap.gap_ms is None:
        last_s = max(last_s, min(ended_s, (gap.start_s or 0.0) + (gap.at_least_ms or 0.0) / 1e3))
    bins = max(1, int(np.ceil((last_s - start_s) / BIN_S)))
    names = {path.interface: path.name for path in run.paths}
    paths = {path.name: [0.0] * bins for path in run.paths}
    if len(packets):
        index = np.clip(((at_s - start_s) / BIN_S).astype(np.int64), 0, bins - 1)
        size = packets["payload_bytes"].to_numpy(np.float64)
        device = packets["device"].astype(str).to_numpy()
        for name in sorted(set(device)):
            chosen = device == name
            rate = np.bincount(index[chosen], size[chosen], bins) * 8 / 1e6 / BIN_S
            paths[names.get(name, name)] = [round(float(v), 3) for v in rate]
    span = None
    if gap.start_s is not None:
        span = (round(gap.start_s, 4), None if gap.gap_ms is None else round(gap.start_s + gap.gap_ms / 1e3, 4))
    kept = _thin(times_s, (last_s - start_s) / POINTS)
    return Series(
        start_s=round(start_s, 3),
        end_s=round(start_s + bins * BIN_S, 3),
        paths=paths,
        times_s=[round(float(t), 4) for t in times_s[kept]],
        totals=[int(v) for v in totals[kept]],
        unit=unit,
        gap=span,
        events=[(round(event.at_s, 4), event.kind, event.target) for event in run.events],
    )


def _thin(times_s: Floats, step_s: float) -> npt.NDArray[np.int64]:
    """Indices to keep: one per `step_s`, and both ends of every longer interval."""
    if not times_s.size:
        return np.zeros(0, np.int64)
    cell = np.floor((times_s - times_s[0]) / max(step_s, 1e-9))
    first = np.flatnonzero(np.diff(cell, prepend=-1.0) > 0)
    wide = np.flatnonzero(np.diff(times_s) > step_s)
    return np.unique(np.concatenate((first, wide, wide + 1, [times_s.size - 1]))).astype(np.int64)


def write_series(path: Path, series: Series) -> None:
    """Store a series as JSON."""
    path.write_text(json.dumps(asdict(series)) + "\n", "utf-8")


def read_series(path: Path) -> Series | None:
    """Read a stored series, None when there is none that can be used."""
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text("utf-8"))
        gap = tuple(data.pop("gap") or ()) or None
        events = [tuple(event) for event in data.pop("events")]
        return Series(gap=gap, events=events, **data)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
