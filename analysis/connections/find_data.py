"""Oddities of the data stream: incomplete captures, contradicting mappings, repeated data, malformed options.

Source: RFC 8684 section 3.3 (DSS, DATA_ACK, DATA_FIN).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from analysis.connections.facts import ERROR, NOTE, WARNING, Facts, Finding, amount, side
from analysis.connections.ledger import ACKED, EARLY_BYTES, EARLY_COUNT, EARLY_INDEX, HIGH, distinct_mappings
from analysis.packets.schema import DSS_MAP, DSS_MAP8, OPTIONS_CUT, OPTIONS_MALFORMED

Int64s = npt.NDArray[np.int64]

_LOW_32 = np.uint64(0xFFFFFFFF)


def _receiver(group: int) -> str:
    """Who acknowledges the data of a direction (group: connection * 2 + up)."""
    return side(group % 2 == 0)


def _sender(group: int) -> str:
    return side(group % 2 == 1)


def find_uncaptured(facts: Facts) -> Iterator[Finding]:
    """Data that was acknowledged and is not in the capture: holes in it, and acknowledgments beyond its end."""
    accounts = facts.accounts
    if not accounts.size:
        return
    last_ns = np.repeat(facts.connection_column("last_ns"), 2)
    limit = np.minimum(accounts[:, ACKED], accounts[:, HIGH])
    missing = limit - _seen_below(facts, limit)
    for group in np.flatnonzero(missing > 0).tolist():
        first = int(facts.by_direction("delivered")[group])
        text = (
            f"The {_receiver(group)} acknowledged {amount(int(missing[group]))} of the {_sender(group)}'s data that are not in "
            f"the capture, the first at offset {first:,}: the capture is incomplete."
        )
        yield facts.of_connection(group // 2, last_ns[group], "capture-incomplete", text)
    # A DATA_FIN or FIN counts as one more.
    beyond = accounts[:, ACKED] - accounts[:, HIGH] - 1
    for group in np.flatnonzero(beyond > 0).tolist():
        text = (
            f"The {_receiver(group)} acknowledged {amount(int(beyond[group]))} beyond the last of the {_sender(group)}'s data "
            f"seen ({amount(int(accounts[group, HIGH]))}): not captured, or acknowledged without having been sent."
        )
        yield facts.of_connection(group // 2, last_ns[group], "ack-beyond-data", text)


def _seen_below(facts: Facts, limit: Int64s) -> Int64s:
    """Distinct bytes seen below an offset, per direction. Segments are counted only where there is a hole below it."""
    seen = limit.copy()
    holed = facts.by_direction("delivered") < limit
    if not holed.any():
        return seen
    mptcp = facts.connection_column("transport") == "mptcp"
    group = facts.segment_column("connection").astype(np.int64) * 2 + facts.segment_column("up")
    rows = np.flatnonzero(holed[group])
    group = group[rows]
    end = np.where(mptcp[group // 2], facts.segment_column("end")[rows], facts.segment_column("flow_end")[rows])
    size = np.clip(facts.segment_column("new_bytes")[rows] - np.maximum(end - limit[group], 0), 0, None)
    counted = np.bincount(group, weights=size, minlength=limit.size).astype(np.int64)
    return np.where(holed, np.minimum(counted, limit), limit)


def find_early_acks(facts: Facts) -> Iterator[Finding]:
    """Acknowledgments captured before the data they acknowledge: packets out of order, or clocks that disagree."""
    accounts = facts.accounts
    for group in np.flatnonzero(accounts[:, EARLY_COUNT] > 0).tolist():
        index = int(accounts[group, EARLY_INDEX])
        flow, row = int(facts.ack_column("flow")[index]), int(facts.ack_column("row")[index])
        mptcp = facts.connection_column("transport")[group // 2] == "mptcp"
        offset = facts.ack_column("data_ack" if mptcp else "flow_ack")[index]
        if offset > accounts[group, HIGH] + 1:
            continue  # told as uncaptured
        text = (
            f"{amount(int(accounts[group, EARLY_COUNT]), 'acknowledgments')} of the {_receiver(group)} came before their data, "
            f"by up to {amount(int(accounts[group, EARLY_BYTES]))}: captured out of order, or the capture lost packets."
        )
        yield facts.finding(flow, row, "ack-before-data", text, NOTE)


def find_contradictions(facts: Facts) -> Iterator[Finding]:
    """Mappings that give the same subflow bytes different DSNs (RFC 8684 section 3.3.1)."""
    table = facts.table
    mapped = (table["dss_flags"] & DSS_MAP > 0) & (table["map_bytes"] > 0) & (table["ssn"] > 0)
    rows = np.flatnonzero(mapped & (facts.flow >= 0))
    stream = facts.flow[rows].astype(np.int64) * 2 + facts.core.from_client[rows]
    streams = len(facts.core.flows) * 2
    ssn, length = table["ssn"][rows].astype(np.int64), table["map_bytes"][rows].astype(np.int64)
    distinct, goes_back, wide = distinct_mappings(stream, ssn, table["dsn"][rows].view(np.int64), length, streams)
    revisited = np.zeros(streams, np.bool_)
    revisited[stream[goes_back]] = True
    chosen = np.flatnonzero(distinct & revisited[stream])
    chosen = chosen[np.lexsort((wide[chosen], stream[chosen]))]
    if chosen.size < 2:
        return
    first, second = chosen[:-1], chosen[1:]
    # Numbers of 32 and of 64 bits can be compared in their lower half only.
    delta = (table["dsn"][rows[chosen]] - wide[chosen].astype(np.uint64)) & _LOW_32
    differs = delta[1:] != delta[:-1]
    overlaps = (stream[first] == stream[second]) & (wide[second] < wide[first] + length[first])
    pairs = np.flatnonzero(differs & overlaps)
    later = np.maximum(rows[first[pairs]], rows[second[pairs]])
    for pair, row in zip(pairs.tolist(), later.tolist(), strict=True):
        flow = int(facts.flow[row])
        numbers = " and ".join(_dsn(facts, int(rows[index])) for index in sorted((first[pair], second[pair])))
        text = f"SSN {int(wide[second[pair]])} of {facts.name(flow)} is mapped to two places: by mappings {numbers}."
        yield facts.finding(flow, row, "contradicting-mapping", text, ERROR)


def _dsn(facts: Facts, row: int) -> str:
    """One mapping as text."""
    table = facts.table
    dsn = int(table["dsn"][row])
    width = 64 if table["dss_flags"][row] & DSS_MAP8 else 32
    return f"SSN {int(table['ssn'][row])} = DSN {dsn} ({width} bits), {amount(int(table['map_bytes'][row]))}"


def find_duplicates(facts: Facts) -> Iterator[Finding]:
    """Payload that was sent more than once."""
    duplicate, payload, again = (facts.by_direction(name) for name in ("duplicate", "payload", "reinjected"))
    connection, last_ns = facts.flow_column("connection"), facts.connection_column("last_ns")
    repeated = np.zeros(duplicate.size, np.int64)
    for way, place in (("down", 0), ("up", 1)):
        np.add.at(repeated, connection.astype(np.int64) * 2 + place, facts.flow_column(f"repeated_{way}"))
    for group in np.flatnonzero(duplicate > 0).tolist():
        total, moved = int(duplicate[group]), int(again[group])
        same = min(int(repeated[group]), total)
        parts = [f"{same:,} retransmitted by TCP"] * (same > 0) + [f"{moved:,} reinjected by MPTCP"] * (moved > 0)
        rest = total - same - moved
        parts += [f"{rest:,} sent anew on the same subflow"] * (rest > 0)
        share = 100 * total / max(int(payload[group]), 1)
        text = f"{amount(total)} ({share:.1f} %) of the {_sender(group)}'s payload are repetitions: {', '.join(parts)}."
        yield facts.of_connection(group // 2, last_ns[group // 2], "duplicate-data", text, NOTE)


def find_missing_data_fins(facts: Facts) -> Iterator[Finding]:
    """Connections whose subflows all closed with FIN although a side never sent DATA_FIN (RFC 8684 section 3.3.3)."""
    mptcp = (facts.connection_column("transport") == "mptcp") & (facts.connection_column("fallback") == "")
    established = facts.flow_column("established_ns") >= 0
    closed = facts.flow_column("end") == "fin"
    chosen = np.zeros(mptcp.size, np.bool_)
    chosen[facts.flow_column("connection")[established & closed]] = True
    chosen[facts.flow_column("connection")[established & ~closed]] = False
    chosen &= mptcp & ~facts.connection_column("fastclose").astype(np.bool_)
    for way, of_client in (("up", True), ("down", False)):
        silent = chosen & ~facts.connection_column(f"data_fin_{way}").astype(np.bool_)
        for connection in np.flatnonzero(silent).tolist():
            text = f"All subflows ended with FIN, but no DATA_FIN of the {side(of_client)} was seen."
            yield facts.of_connection(connection, facts.connection_column("last_ns")[connection], "data-fin-missing", text)


def find_malformed(facts: Facts) -> Iterator[Finding]:
    """TCP options that are malformed or that the snap length cut off, per connection."""
    problems = facts.table["problems"]
    for bit, kind, what in (
        (OPTIONS_MALFORMED, "options-malformed", "with malformed TCP options; what stands behind the damage was not read"),
        (OPTIONS_CUT, "options-cut", "with TCP options cut off by the snap length: raise it"),
    ):
        rows = np.flatnonzero((problems & bit > 0) & (facts.flow >= 0))
        if not rows.size:
            continue
        connection = facts.flow_column("connection")[facts.flow[rows]]
        numbers, first, count = np.unique(connection, return_index=True, return_counts=True)
        for number, index, times in zip(numbers.tolist(), first.tolist(), count.tolist(), strict=True):
            row = int(rows[index])
            text = f"{amount(times, 'packets')} {what}."
            yield Finding(int(facts.time_ns[row]), row, number, -1, kind, text, WARNING)


DATA_FINDERS = (
    find_uncaptured, find_early_acks, find_contradictions, find_duplicates, find_missing_data_fins, find_malformed,
)  # fmt: skip
