"""What a connection and its mobility protocol did about an event: the moments that `analysis.measures.phases` divides by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.connections.model import REINJECTION, RETRANSMISSION
from analysis.measures.delivery import Delivery
from analysis.measures.observation import Int64s, Observation
from analysis.measures.phases import LEAD_NS, Handover, Signal, Span, find_silence, gap_around, split_event
from analysis.measures.roundtrips import flow_round_trip

if TYPE_CHECKING:
    from analysis.mobileip import Mobility

MPTCP_SIGNALS = ("MP_JOIN SYN", "MP_PRIO", "REMOVE_ADDR", "ADD_ADDR")
"""What a path manager sends because paths have changed (RFC 8684 sections 3.2, 3.3.8, 3.4)."""
MOBILITY_SIGNALS = ("RRQ", "BU", "agent solicitation", "router solicitation", "HoTI", "CoTI", "HA discovery request")
"""What a mobile node sends because it has moved (RFC 5944 sections 2.2 and 3.3, RFC 6275 sections 5.2.5, 6.1.7 and 6.5)."""


class Actions:
    """Signalling of one connection around events. `mobility`: of the mobile node whose connection it is; without Mobile IP in
    it, it counts for nothing.

    `sent`: the data at its sender, where every repetition is seen; else what the observation itself saw.
    """

    def __init__(self, seen: Observation, sent: Observation, mobility: Mobility | None = None) -> None:
        self.seen = seen
        self.mobility = mobility = mobility if mobility is not None and mobility.present else None
        again = np.isin(sent.segments.kind, (RETRANSMISSION, REINJECTION))
        self.again_ns, self.on_other = sent.segments.time_ns[again], sent.segments.kind[again] == REINJECTION
        signals = seen.signals
        self.first = [_named(signals, signals["kind"].isin(MPTCP_SIGNALS))]
        if mobility is not None:
            messages = mobility.messages
            own = messages["kind"].isin(MOBILITY_SIGNALS) & ~messages["copy"]
            self.first.append(_named(messages, own))
        self.opened, self.third = (_first_of(signals, kind) for kind in ("MP_JOIN SYN", "MP_JOIN ACK"))

    def signal(self, event_ns: int, before_ns: int) -> Signal | None:
        """The first thing that was signalled in [event, before)."""
        found = []
        for times, kinds in self.first:
            at = int(np.searchsorted(times, event_ns))
            if at < times.size and times[at] < before_ns:
                found.append(Signal(int(times[at]), kinds[at]))
        return min(found) if found else None

    def repetition(self, event_ns: int, before_ns: int) -> Signal | None:
        """The first data that was sent again in [event, before)."""
        at = int(np.searchsorted(self.again_ns, event_ns))
        if at == self.again_ns.size or self.again_ns[at] >= before_ns:
            return None
        return Signal(int(self.again_ns[at]), "reinjection" if self.on_other[at] else "retransmission")

    def round_trip_ms(self, begin_ns: int, end_ns: int) -> float | None:
        """Median round trip by timestamps in [begin, end) of the slowest path that carried payload then."""
        seen, table = self.seen, self.seen.rec.packets
        time_ns = table["time_ns"]
        packets = seen.packets[(time_ns[seen.packets] >= begin_ns) & (time_ns[seen.packets] < end_ns)]
        segments = seen.segments.row[(seen.segments.time_ns >= begin_ns) & (seen.segments.time_ns < end_ns)]
        flow = seen.rec.flow
        trips = []
        for number in np.unique(flow[segments]):
            rows = packets[flow[packets] == number]
            trips.append(flow_round_trip(table, rows, seen.rec.from_client[rows]).median_ms)
        return max((trip for trip in trips if trip is not None), default=None)

    def registration(self, event_ns: int, before_ns: int) -> Span | None:
        """From the first RRQ or BU in [event, before) to the first reply that accepts one of them."""
        if self.mobility is None:
            return None
        table = self.mobility.registrations
        asked = table[(table["sent_ns"] >= event_ns) & (table["sent_ns"] < before_ns) & (table["kind"] != "refresh")]
        if asked.empty:
            return None
        accepted = asked.loc[asked["accepted_ns"] >= 0, "accepted_ns"]
        return Span(int(asked["sent_ns"].min()), None if accepted.empty else int(accepted.min()))

    def join(self, event_ns: int, before_ns: int) -> Span | None:
        """The first subflow that could carry data, of those whose first MP_JOIN SYN came in [event, before).

        It can when the third ACK has arrived at a sender of data that accepted the subflow, and with the fourth ACK at one
        that opened it (RFC 8684 section 3.2).
        """
        opened = {flow: begin_ns for flow, (begin_ns, _) in self.opened.items() if event_ns <= begin_ns < before_ns}
        done = []
        for flow, begin_ns in opened.items():
            end_ns, row = self.third.get(flow, (None, -1))
            if end_ns is not None and bool(self.seen.rec.flows["opened_by_client"].iloc[flow]) == self.seen.up:
                end_ns = self._fourth_ack(flow, row)
            if end_ns is not None:
                done.append((end_ns, begin_ns))
        if done:
            end_ns, begin_ns = min(done)
            return Span(begin_ns, end_ns)
        return Span(min(opened.values()), None) if opened else None

    def _fourth_ack(self, flow: int, third_row: int) -> int | None:
        """Time of the first packet on a flow that answers the third ACK of the data's sender."""
        packets = self.seen.packets
        answers = packets[(self.seen.rec.flow[packets] == flow) & ~self.seen.from_sender & (packets > third_row)]
        return int(self.seen.rec.packets["time_ns"][answers[0]]) if answers.size else None


def _named(table: pd.DataFrame, chosen: pd.Series[bool]) -> tuple[Int64s, list[str]]:
    """Times and kinds of the chosen rows."""
    return table["time_ns"][chosen].to_numpy(np.int64), table["kind"][chosen].tolist()


def _first_of(signals: pd.DataFrame, kind: str) -> dict[int, tuple[int, int]]:
    """Flow -> time and row of its first signal of a kind."""
    rows = signals[signals["kind"] == kind].drop_duplicates("flow")
    columns = (rows[name].tolist() for name in ("flow", "time_ns", "row"))
    return {flow: (time_ns, row) for flow, time_ns, row in zip(*columns, strict=True)}


def handovers(
    actions: Actions, delivery: Delivery, events_ns: Sequence[int], limits_ns: Sequence[int], window: tuple[int, int, bool]
) -> list[Handover]:
    """One row per event, in ascending order. What was done from the next event on is done because of that one.

    `limits_ns`: per event, until when a recovery counts. `window`: time 0 of the result, least round trip in ns (0: unknown),
    and whether the end of the stream was seen.
    """
    t0_ns, rtt_ns, complete = window
    out: list[Handover] = []
    since_ns = 0
    for event_ns, next_ns, until_ns in zip(events_ns, [*events_ns[1:], np.iinfo(np.int64).max], limits_ns, strict=True):
        silence = find_silence(delivery.time_ns, event_ns, since_ns, rtt_ns, until_ns, complete)
        end_ns = until_ns if silence is None or silence.end_ns is None else silence.end_ns
        before_ns = min(next_ns, end_ns + 1)
        signal = actions.signal(event_ns, before_ns) or actions.repetition(event_ns, before_ns)
        steps = actions.registration(event_ns, next_ns), actions.join(event_ns, next_ns)
        row = split_event(event_ns, t0_ns, silence, until_ns, signal, *steps)
        gap_ms = gap_around(delivery.time_ns, event_ns, next_ns)
        round_trip_ms = actions.round_trip_ms(event_ns, min(event_ns + LEAD_NS, next_ns))
        beyond_ms = None if gap_ms is None or round_trip_ms is None else gap_ms - round_trip_ms
        out.append(replace(row, gap_ms=gap_ms, round_trip_ms=round_trip_ms, gap_beyond_round_trip_ms=beyond_ms))
        if silence is not None and silence.end_ns is not None:
            since_ns = silence.end_ns
    return out
