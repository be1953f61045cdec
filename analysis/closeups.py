"""What the figures around the events of a run show, from the captures at both ends of the workload's stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.charts.axes import duration_text
from analysis.charts.closeup import AFTER_S, Moment, Origin, signal_name, span_around
from analysis.connections import Reconstruction
from analysis.connections.model import FIRST, REINJECTION, RETRANSMISSION
from analysis.measures.delivery import Delivery, deliver
from analysis.measures.observation import Int64s, Observation
from analysis.measures.pairs import arrivals, shared_flows
from analysis.measures.phases import gap_span
from analysis.measures.strays import Strays, find_strays

SHORT_GAP_NS, LONG_GAP_NS = 40_000_000, 200_000_000
NEAR_NS = 300_000_000
"""A short gap is no reason to show more than usual, nor is one that begins later than this and is not long: the figure would
show other things than what happened at the event. Then the longest one of what is shown anyway is shaded."""
RECOVERED_WITHIN_S = 5.0
"""Until a gap is repaired, but no longer than this after the event, is shown."""
STRAYS_WITHIN_NS = 2_000_000_000
"""Strays so long after an event are no part of what happened around it."""


def moments(
    seen: Observation, origin: Origin | None, events: Sequence[tuple[float, str]], zero_ns: int, end_s: float
) -> list[Moment]:
    """What to show around each event. `events`: seconds since `zero_ns` and names, ascending; nothing behind `end_s`.

    The gap is that of `handovers` in docs/metrics.md, or the time in which nothing came any more; where it is no reason to
    show more than usual, the longest one of what is shown.
    """
    delivery = deliver(seen)
    arrived_ns = delivery.time_ns
    last_s = (int(arrived_ns[-1]) - zero_ns) / 1e9 if arrived_ns.size else 0.0
    out = []
    for number, (at_s, name) in enumerate(events):
        event_ns = zero_ns + round(at_s * 1e9)
        next_s = events[number + 1][0] if number + 1 < len(events) else end_s
        next_ns = zero_ns + round(next_s * 1e9)
        span = gap_span(arrived_ns, event_ns, next_ns)
        elsewhere = ""
        if span is not None and not _worth_showing(span, event_ns):
            shown = gap_span(arrived_ns, event_ns, min(event_ns + round(AFTER_S * 1e9), next_ns))
            if shown != span and span[1] - span[0] > SHORT_GAP_NS:
                length, later = (duration_text(part / 1e9) for part in (span[1] - span[0], span[0] - event_ns))
                elsewhere = f"the longest gap within 1 s, {length}, begins {later} after the event"
            span = shown
        gap_s = None if span is None else ((span[0] - zero_ns) / 1e9, (span[1] - zero_ns) / 1e9)
        if span is None and not seen.ended and arrived_ns.size and arrived_ns[0] < event_ns:
            gap_s = last_s, end_s
        repaired_s = at_s
        if span is not None and span[1] - span[0] > SHORT_GAP_NS:
            repaired_s = min((_repaired_ns(seen, delivery, span[1]) - zero_ns) / 1e9, at_s + RECOVERED_WITHIN_S, next_s)
        until_s = max(repaired_s, at_s if gap_s is None else gap_s[1], _last_stray_s(origin, event_ns, zero_ns))
        out.append(Moment(at_s, name, span_around(at_s, until_s, end_s), gap_s, elsewhere))
    return out


def _worth_showing(gap: tuple[int, int], event_ns: int) -> bool:
    """Whether a gap is long for where it begins."""
    length_ns = gap[1] - gap[0]
    return length_ns > LONG_GAP_NS or (length_ns > SHORT_GAP_NS and gap[0] <= event_ns + NEAR_NS)


def _repaired_ns(seen: Observation, delivery: Delivery, gap_end_ns: int) -> int:
    """When all that had arrived by the end of a gap was in order, too; the last arrival if it never was."""
    segments = seen.segments
    top = int(segments.end[segments.time_ns <= gap_end_ns].max(initial=0))
    at = int(np.searchsorted(delivery.total_bytes, top))
    return int(delivery.time_ns[min(at, delivery.time_ns.size - 1)])


def _last_stray_s(origin: Origin | None, event_ns: int, zero_ns: int) -> float:
    if origin is None:
        return 0.0
    times = origin.strays["time_ns"].to_numpy(np.int64)
    near = times[(times >= event_ns) & (times <= event_ns + STRAYS_WITHIN_NS)]
    return (int(near.max()) - zero_ns) / 1e9 if near.size else 0.0


def trace_origin(received: Observation, sent: Observation) -> tuple[Reconstruction, Origin]:
    """The receiver's reconstruction with the kinds of segments as their sender knows them, and what only that one saw."""
    partner = arrivals(sent, received)
    kinds = received.rec.segments["kind"].to_numpy(np.int64).copy()
    came = partner >= 0
    kinds[received.segment_rows[partner[came]]] = sent.segments.kind[came]
    table = received.rec.segments.assign(kind=kinds)
    lost = np.flatnonzero(
        ~came & np.isin(sent.segments.kind, (FIRST, RETRANSMISSION, REINJECTION)) & (sent.segments.begin >= 0)
    )
    subflows = _subflow_numbers(sent, received)
    gone = pd.DataFrame(
        {
            "time_ns": sent.segments.time_ns[lost],
            "subflow": subflows[sent.segments.flow[lost]],
            "begin": sent.segments.begin[lost],
        }
    )
    found = find_strays(sent, received)
    strays = [_stray_rows(sent, received, part, subflows) for part in found]
    columns = {name: np.zeros(0, np.int64) for name in ("time_ns", "subflow", "cause")}
    origin = Origin(gone, pd.concat(strays) if strays else pd.DataFrame(columns), tuple(_heard(sent, subflows)))
    return replace(received.rec, segments=table), origin


def _subflow_numbers(sent: Observation, received: Observation) -> Int64s:
    """Number of each of the sender's subflows in the receiver's connection; -1 for those that never arrived there."""
    there = received.rec.flows["subflow"].to_numpy(np.int64)[received.flows]
    shared = shared_flows(sent, received)
    return np.asarray(np.append(there, -1)[np.minimum(shared, there.size)], np.int64)


def _stray_rows(sent: Observation, received: Observation, strays: Strays, subflows: Int64s) -> pd.DataFrame:
    """Strays with their arrival; lost ones when they left."""
    left_ns = sent.segments.time_ns[strays.sent]
    came = strays.received >= 0
    time_ns = left_ns.copy()
    time_ns[came] = received.segments.time_ns[strays.received[came]]
    subflow = subflows[sent.segments.flow[strays.sent]]
    return pd.DataFrame({"time_ns": time_ns, "subflow": subflow, "cause": strays.cause})


def _heard(sent: Observation, subflows: Int64s) -> list[tuple[int, str]]:
    """MP_PRIO of the receiver when it reached the sender."""
    signals = sent.signals
    chosen = signals[(signals["kind"] == "MP_PRIO") & (signals["from_client"] != sent.up) & ~signals["repeated"]]
    numbers = dict(zip(sent.rec.flows["subflow"].to_numpy()[sent.flows].tolist(), subflows.tolist(), strict=True))
    columns = (chosen[name].tolist() for name in ("time_ns", "subflow", "text"))
    return [
        (time_ns, f"{signal_name('MP_PRIO', numbers.get(subflow, subflow), text)} at sender")
        for time_ns, subflow, text in zip(*columns, strict=True)
    ]
