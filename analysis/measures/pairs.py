"""The same subflows and the same segments at two capture points: the data's sender and its receiver."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.measures.observation import Int64s, Observation

Places = tuple[Int64s, Int64s, Int64s]


def shared_flows(sent: Observation, received: Observation) -> Int64s:
    """For each subflow of `sent` the number of the same one in `received`.

    A subflow is recognised by its initial sequence numbers, or by its addresses where a point did not see the handshake. One
    that the receiver never saw gets a number that no subflow has there.
    """
    known = {key: local for local, keys in enumerate(_flow_keys(received)) for key in keys}
    numbers = np.arange(received.flows.size, received.flows.size + sent.flows.size)
    for local, keys in enumerate(_flow_keys(sent)):
        numbers[local] = next((known[key] for key in keys if key in known), numbers[local])
    return numbers


def _flow_keys(seen: Observation) -> list[list[Any]]:
    """By what each subflow can be recognised, surest first."""
    rows = seen.rec.flows.iloc[seen.flows]
    ends = zip(rows["client"], rows["client_port"], rows["server"], rows["server_port"], strict=True)
    initial = zip(rows["client_isn"].tolist(), rows["server_isn"].tolist(), strict=True)
    return [[pair, end] if min(pair) >= 0 else [end] for pair, end in zip(initial, ends, strict=True)]


def common_flows(sent: Observation, received: Observation, until_ns: int) -> tuple[Places, Places]:
    """Segments at both points, (flow, begin, end), with the same number for the same subflow; sent ones up to a moment.

    What was sent on a subflow that never reached the receiver is lost.
    """
    early = sent.segments.take(sent.segments.time_ns <= until_ns)
    there = received.segments
    numbers = shared_flows(sent, received)
    return (numbers[early.flow], early.flow_begin, early.flow_end), (there.flow, there.flow_begin, there.flow_end)


def arrivals(sent: Observation, received: Observation) -> Int64s:
    """For each segment of `sent` the index of the same one in `received.segments`; -1 when it did not arrive.

    Copies of one segment are told apart by their timestamps; with the same one, the first sent is the first that arrived.
    """
    there = received.segments
    left = _identities(sent, shared_flows(sent, received)[sent.segments.flow])
    right = _identities(received, there.flow)
    right["index"] = np.arange(len(there))
    found = left.merge(right, how="left", on=list(left.columns))["index"].to_numpy(np.float64)
    return np.where(np.isnan(found), -1, found).astype(np.int64)


def _identities(seen: Observation, flow: Int64s) -> pd.DataFrame:
    """What makes a segment that segment: its place in its subflow, its timestamp, and which of equal ones it is."""
    segments = seen.segments
    stamp = seen.rec.packets["tsval"][segments.row]
    table = pd.DataFrame({"flow": flow, "begin": segments.flow_begin, "end": segments.flow_end, "stamp": stamp})
    table["copy"] = table.groupby(list(table.columns)).cumcount()
    return table
