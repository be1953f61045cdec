"""Data that still comes on the old subflow after MP_PRIO has asked its sender to use another one, and why.

A native sender gives data to a subflow when it schedules it, and only that subflow's TCP can send it then (RFC 8684 section
3.3.6 allows another one to send it as well). The order of data sequence numbers is the order in which data was scheduled: that
is how captures at both ends tell what was scheduled before MP_PRIO came from what was scheduled after.

The question is that of section 5.3 of G. Hampel, A. Rana and T. Klein, Seamless TCP mobility using lightweight MPTCP proxy
(2013).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from analysis.connections.model import FIRST, REINJECTION, RETRANSMISSION
from analysis.measures.observation import Bools, Int64s, Observation
from analysis.measures.pairs import arrivals
from analysis.measures.roundtrips import flow_round_trip
from analysis.packets.schema import MP_PRIO

IN_FLIGHT, QUEUED, EQUAL_PRIORITY, RETRANSMITTED, REINJECTED, UNEXPLAINED = range(6)
CAUSES = ("in flight", "queued before", "while priorities were equal", "retransmission", "reinjection", "unexplained")
"""Names of the causes, for figures."""
PAIR_NS = 1_000_000_000
"""The MP_PRIO of the new subflow belongs to that of the old one when they are not further apart."""
NEVER = int(np.iinfo(np.int64).max)


class Demand(NamedTuple):
    """MP_PRIO that asked the sender to leave a subflow, as it reached the sender.

    `asked_ns`: the first option of the pair, `told_ns`: the last one. Between them the sender knows only half of it: both
    subflows have the same priority. `until_ns`: the next demand, or NEVER. Subflows are numbers in the sender's connection.
    """

    old: int
    new: int | None
    asked_ns: int
    told_ns: int
    until_ns: int


@dataclass(frozen=True)
class Strays:
    """Segments on the old subflow that left after the demand had reached their sender, or arrived after that moment.

    `sent`, `received`: indices into the segments of both observations, `received` -1 for lost ones. `cause`: a constant of
    this module. `again`, `needless`: segments sent again on any subflow until the next demand, and those of them of which an
    earlier copy had arrived or still did.
    """

    demand: Demand
    sent: Int64s
    received: Int64s
    cause: Int64s
    again: int
    needless: int


@dataclass(frozen=True)
class Switch:
    """The strays of one demand in figures. Every field is described in docs/metrics.md."""

    asked_s: float
    told_ms: float
    old_subflow: int
    new_subflow: int | None
    in_flight_packets: int
    queued_packets: int
    equal_priority_packets: int
    retransmitted_packets: int
    reinjected_packets: int
    unexplained_packets: int
    last_stray_ms: float | None
    repeated_packets: int
    needless_packets: int


def switch_fields(sent: Observation, received: Observation, t0_ns: int) -> list[dict[str, object]]:
    """One dict per demand, in order of time; seconds count from `t0_ns`. Plain TCP has none."""
    return [asdict(_switch(strays, sent, t0_ns)) for strays in find_strays(sent, received)]


def _switch(strays: Strays, sent: Observation, t0_ns: int) -> Switch:
    counts = np.bincount(strays.cause, minlength=len(CAUSES)).tolist()
    demand, left_ns = strays.demand, sent.segments.time_ns[strays.sent]
    last_ns = int(left_ns.max(initial=0))
    return Switch(
        asked_s=round((demand.asked_ns - t0_ns) / 1e9, 6),
        told_ms=round((demand.told_ns - demand.asked_ns) / 1e6, 6),
        old_subflow=demand.old,
        new_subflow=demand.new,
        in_flight_packets=counts[IN_FLIGHT],
        queued_packets=counts[QUEUED],
        equal_priority_packets=counts[EQUAL_PRIORITY],
        retransmitted_packets=counts[RETRANSMITTED],
        reinjected_packets=counts[REINJECTED],
        unexplained_packets=counts[UNEXPLAINED],
        last_stray_ms=round((last_ns - demand.asked_ns) / 1e6, 6) if last_ns > demand.asked_ns else None,
        repeated_packets=strays.again,
        needless_packets=strays.needless,
    )


def find_strays(sent: Observation, received: Observation) -> list[Strays]:
    """The strays of every demand that reached the data's sender. Both observations: the same data, captured at its two ends."""
    known = demands(sent)
    if not known:
        return []
    partner = arrivals(sent, received)
    came_ns = np.where(partner >= 0, received.segments.time_ns[partner] if len(received.segments) else -1, -1)
    needless = _needless(sent, partner)
    return [_strays(sent, demand, partner, came_ns, needless) for demand in known]


def demands(sent: Observation) -> list[Demand]:
    """MP_PRIO of the data's receiver in pairs: "backup" for the subflow to leave, "not backup" for the one to use instead."""
    signals = sent.signals
    chosen = signals[(signals["kind"] == "MP_PRIO") & (signals["from_client"] != sent.up) & ~signals["repeated"]]
    options = sent.rec.packets.signals
    asked = options["subtype"] == MP_PRIO
    backup = dict(zip(options["row"][asked].tolist(), options["backup"][asked].tolist(), strict=True))
    columns = chosen["time_ns"].tolist(), chosen["subflow"].tolist(), chosen["row"].tolist()
    leave = [(at, int(flow)) for at, flow, row in zip(*columns, strict=True) if backup.get(row)]
    take = [(at, int(flow)) for at, flow, row in zip(*columns, strict=True) if not backup.get(row, 1)]
    pairs = [_pair(at, old, take) for at, old in leave]
    begins = [first for _, _, first, _ in pairs] + [NEVER]
    return [Demand(*pair, until) for pair, until in zip(pairs, begins[1:], strict=True)]


def _pair(at_ns: int, old: int, take: Sequence[tuple[int, int]]) -> tuple[int, int | None, int, int]:
    """Old and new subflow, first and last moment of a demand."""
    near = [(abs(other - at_ns), other, flow) for other, flow in take if flow != old and abs(other - at_ns) <= PAIR_NS]
    if not near:
        return old, None, at_ns, at_ns
    _, other, new = min(near)
    return old, new, min(at_ns, other), max(at_ns, other)


def _strays(sent: Observation, demand: Demand, partner: Int64s, came_ns: Int64s, needless: Bools) -> Strays:
    segments = sent.segments
    here = (segments.flow == demand.old) & (segments.time_ns < demand.until_ns)
    left_before = segments.time_ns <= demand.asked_ns
    late = here & (~left_before | (came_ns > demand.asked_ns)) & np.isin(segments.kind, (FIRST, RETRANSMISSION, REINJECTION))
    index = np.flatnonzero(late)
    cause = np.full(segments.kind.size, UNEXPLAINED, np.int64)
    queued, equal = _scheduled(sent, demand)
    cause[equal] = EQUAL_PRIORITY
    cause[queued] = QUEUED
    cause[segments.kind == RETRANSMISSION] = RETRANSMITTED
    cause[segments.kind == REINJECTION] = REINJECTED
    cause[left_before] = IN_FLIGHT
    after = (segments.time_ns > demand.asked_ns) & (segments.time_ns < demand.until_ns)
    again = after & np.isin(segments.kind, (RETRANSMISSION, REINJECTION))
    return Strays(demand, index, partner[index], cause[index], int(again.sum()), int((again & needless).sum()))


def _scheduled(sent: Observation, demand: Demand) -> tuple[Bools, Bools]:
    """First transmissions on the old subflow that were scheduled before the demand, and those that may have been scheduled
    while both subflows had the same priority.

    The first data that another subflow sends after the demand shows what was scheduled until then: all that comes before it in
    the data stream. It shows that only if it was sent at once, within a round trip. A sender that began before it was told all
    had scheduled that before it was asked; one that waited until it was told all may have scheduled it in between. Data behind
    it was scheduled later; it may have waited in the old subflow's queue since before the last MP_PRIO as long as that subflow
    never stopped sending for a round trip: then its queue cannot have been seen empty.
    """
    segments = sent.segments
    none = np.zeros(len(segments), np.bool_)
    pause_ns = _round_trip_ns(sent, demand)
    on_old = segments.flow == demand.old
    after = (segments.time_ns > demand.asked_ns) & (segments.time_ns < demand.until_ns)
    elsewhere = np.flatnonzero(after & ~on_old & (segments.kind == FIRST) & (segments.begin >= 0))
    if not elsewhere.size or segments.time_ns[elsewhere[0]] > demand.told_ns + pause_ns:
        return none, none
    turned_ns, bound = segments.time_ns[elsewhere[0]], segments.begin[elsewhere].min()
    fresh = on_old & after & (segments.kind == FIRST) & (segments.begin >= 0)
    before = fresh & (segments.begin < bound)
    if demand.asked_ns < demand.told_ns < turned_ns:
        return none, before
    busy = segments.time_ns <= _first_pause_ns(segments.time_ns[on_old], demand.told_ns, pause_ns)
    equal = fresh & ~before & busy if demand.asked_ns < demand.told_ns else none
    return before, equal


def _first_pause_ns(times_ns: Int64s, since_ns: int, pause_ns: int) -> int:
    """When a subflow stopped sending for more than `pause_ns`, the first time after a moment: its last segment before that."""
    last = times_ns[: int(np.searchsorted(times_ns, since_ns, side="right"))][-1:]
    moments = np.concatenate((last, times_ns[times_ns > since_ns]))
    if not last.size:
        return since_ns
    pauses = np.flatnonzero(np.diff(moments) > pause_ns)
    return int(moments[pauses[0]] if pauses.size else moments[-1])


def _round_trip_ns(sent: Observation, demand: Demand) -> int:
    """Median round trip of the old subflow, queues included, within a second around the demand; 0 when it is unknown."""
    table, packets = sent.rec.packets, sent.packets
    time_ns = table["time_ns"][packets]
    rows = packets[(np.abs(time_ns - demand.asked_ns) <= PAIR_NS) & (sent.rec.flow[packets] == sent.flows[demand.old])]
    median_ms = flow_round_trip(table, rows, sent.rec.from_client[rows]).median_ms
    return 0 if median_ms is None else round(median_ms * 1e6)


def _needless(sent: Observation, partner: Int64s) -> Bools:
    """Segments whose data had been sent before in a copy that arrived."""
    begin, end, kind = sent.segments.begin, sent.segments.end, sent.segments.kind
    again = np.flatnonzero(np.isin(kind, (RETRANSMISSION, REINJECTION)))
    arrived = np.flatnonzero((partner >= 0) & np.isin(begin, begin[again]))
    first: dict[tuple[int, int], int] = {}
    for index in arrived.tolist():
        first.setdefault((int(begin[index]), int(end[index])), index)
    out = np.zeros(len(sent.segments), np.bool_)
    out[again] = [first.get((int(begin[index]), int(end[index])), index) < index for index in again.tolist()]
    return out
