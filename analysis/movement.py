"""What a run's captures and its receiver's record say of its movements: the dip in the rate, bindings, subflows, DATA_FIN."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd

from analysis.connections import Reconstruction
from analysis.evidence import MOBILE, Evidence, ends_of, sides
from analysis.measures.movement import Movement, dip_ms, steady_mbit
from analysis.mobileip import read_mobility
from analysis.rundir import Json, load_workload
from analysis.series import Series
from analysis.streams import find_stream


def movement_facts(evidence: Evidence, series: Series | None) -> Json | None:
    """`movement` of docs/metrics.md; None without events, without a bulk stream over TCP, or without its captures."""
    run = evidence.run
    if not evidence.events_s or run.workload_kind != "bulk" or series is None:
        return None
    rec, _ = evidence.reconstruction(MOBILE)
    towards = sides(run)[0] == MOBILE
    record = load_workload(run, "receiver" if towards else "sender")
    found = find_stream(rec, *ends_of(record), run.addresses(MOBILE), towards)
    if found is None:
        return None
    connection, up = found
    first_s, last_s = evidence.events_s[0], evidence.events_s[-1]
    first_ns = run.t0_wall_ns + round(first_s * 1e9)
    planned = run.manifest["scenario"].get("duration_s")
    ends_s = float(planned) if isinstance(planned, (int, float)) else evidence.ended_s
    moments = (run.t0_wall_ns + round(moment_s * 1e9) for moment_s in (first_s, last_s, ends_s))
    joined, left, data_fins = _subflows(rec, connection, up, *moments)
    times_s, totals = np.array(series.times_s), np.array(series.totals, np.int64)
    steady = steady_mbit(times_s, totals, first_s, last_s)
    recovered = series.gap is None or series.gap[1] is not None
    dip = dip_ms(times_s, totals, steady, first_s) if steady and recovered else None
    return asdict(
        Movement(
            steady_mbit=None if steady is None else round(steady, 4),
            dip_ms=None if dip is None else round(dip, 3),
            bindings_updated=_bindings_updated(evidence, first_ns),
            subflows_joined=joined,
            subflows_left=left,
            data_fins=data_fins,
        )
    )


def _subflows(
    rec: Reconstruction, connection: int, up: bool, first_ns: int, last_ns: int, planned_ns: int
) -> tuple[int, int, int]:
    """Subflows established from the first event on; those that carried data before it and none in the end; DATA_FINs.

    `planned_ns`: when the sender was to end the stream.
    """
    flows = rec.flows[rec.flows["connection"] == connection]
    segments = rec.segments[(rec.segments["connection"] == connection) & (rec.segments["up"] == up)]
    fresh = segments.loc[segments["new_bytes"] > 0, "time_ns"]
    end_ns = min(int(fresh.max()) if len(fresh) else last_ns, planned_ns)
    joined = (flows["subflow"] > 0) & (flows["established_ns"] >= first_ns) & (flows["established_ns"] <= end_ns)
    early = set(segments.loc[segments["time_ns"] < first_ns, "flow"])
    late = set(segments.loc[segments["time_ns"] >= (last_ns + end_ns) // 2, "flow"])
    signals = rec.signals
    ended = (signals["connection"] == connection) & (signals["kind"] == "DATA_FIN") & (signals["time_ns"] < end_ns)
    return int(joined.sum()), len(early - late), int(ended.sum())


def _bindings_updated(evidence: Evidence, first_ns: int) -> int:
    """Requests of the MN for a new binding, not refreshes, that were made from the first event on and accepted."""
    table, _ = evidence.packets(MOBILE)
    found: pd.DataFrame = read_mobility(table).registrations
    chosen = (found["kind"] == "registration") & (found["sent_ns"] >= first_ns) & (found["accepted_ns"] >= 0)
    return int(chosen.sum())
