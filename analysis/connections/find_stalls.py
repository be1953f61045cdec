"""Oddities in time: data that waited, closed windows, subflows that were never used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from analysis.connections.facts import NOTE, WARNING, Facts, Finding, amount, side, span
from analysis.connections.ledger import ACKED, HIGH, SINCE_ACK, SINCE_NS, WAIT_ACK, WAIT_BEGIN_NS, WAIT_FROM, WAIT_NS
from analysis.packets import schema
from analysis.packets.schema import RST, SYN

Int64s = npt.NDArray[np.int64]

STALL_NS = 500_000_000
"""Data that waits so long for an acknowledgment is told: more than twice the usual least retransmission timeout, 200 ms."""
LONG_STALL_NS = 3_000_000_000
"""And from here on it is a warning."""
ZERO_WINDOW_NS = 50_000_000
"""A window closed for less is the normal play of a slow reader."""
_MOST_SILENT = 20
"""So many subflows of one connection are examined for silence."""
SILENT_BYTES, SILENT_NS = 100_000, 1_000_000_000
"""A subflow without payload is told when others carried so many bytes after its handshake, and it had so much time."""


def find_stalls(facts: Facts) -> Iterator[Finding]:
    """The longest wait of outstanding data for an acknowledgment, per direction, and data that was never acknowledged."""
    accounts = facts.accounts
    for group in np.flatnonzero(accounts[:, WAIT_NS] >= STALL_NS).tolist():
        account = accounts[group]
        begin, waited = int(account[WAIT_BEGIN_NS]), int(account[WAIT_NS])
        before, after = (int(account[index]) for index in (WAIT_FROM, WAIT_ACK))
        path = ""
        if facts.connection_column("transport")[group // 2] == "mptcp":
            subflow = facts.ack_column("subflow")
            last = f"the last acknowledgment before came on subflow {subflow[before]}, " if before >= 0 else ""
            path = f"; {last}the next on subflow {subflow[after]}"
        text = (
            f"Data of the {side(group % 2 == 1)} waited {span(waited)} for progress of the acknowledgments, from "
            f"{facts.after(group // 2, begin)} on{path}."
        )
        weight = WARNING if waited >= LONG_STALL_NS else NOTE
        yield facts.of_connection(group // 2, begin, "stall", text, weight)
    waiting = np.repeat(facts.connection_column("last_ns"), 2) - accounts[:, SINCE_NS]
    left = (accounts[:, SINCE_NS] >= 0) & (waiting >= STALL_NS) & (accounts[:, SINCE_ACK] >= 0)
    for group in np.flatnonzero(left).tolist():
        size = int(accounts[group, HIGH] - accounts[group, ACKED])
        text = (
            f"{amount(size)} of the {side(group % 2 == 1)}'s data were not acknowledged when the connection's packets end, "
            f"{span(int(waiting[group]))} after they began to wait."
        )
        yield facts.of_connection(group // 2, accounts[group, SINCE_NS], "unacknowledged", text)


def find_zero_windows(facts: Facts) -> Iterator[Finding]:
    """How long each side kept its window closed (RFC 9293 section 3.8.6.1), per connection."""
    table = facts.table
    usable = (table["flags"] & (SYN | RST) == 0) & (facts.flow >= 0)
    closed = np.flatnonzero(usable & (table["window"] == 0))
    if not closed.size:
        return
    owner = facts.flow_column("connection").astype(np.int64)
    by_client = facts.flow_column("opened_by_client").astype(np.bool_)
    affected = np.zeros(len(facts.core.connections), np.bool_)
    affected[owner[facts.flow[closed]]] = True
    rows = np.flatnonzero(usable & affected[owner[facts.flow]])
    group = owner[facts.flow[rows]] * 2 + (facts.core.from_client[rows] == by_client[facts.flow[rows]])
    order = np.argsort(group, kind="stable")
    rows, group = rows[order], group[order]
    zero = table["window"][rows] == 0
    fresh = np.concatenate(([True], group[1:] != group[:-1]))
    begins = np.flatnonzero(zero & (fresh | np.concatenate(([True], ~zero[:-1]))))
    # A period ends with the side's next packet that opens the window, or with its last packet.
    stops = np.flatnonzero(~zero | np.concatenate((fresh[1:], [True])))
    ends = stops[np.minimum(np.searchsorted(stops, begins), stops.size - 1)]
    lasted = facts.time_ns[rows[ends]] - facts.time_ns[rows[begins]]
    numbers, first, count = np.unique(group[begins], return_index=True, return_counts=True)
    total, longest = np.add.reduceat(lasted, first), np.maximum.reduceat(lasted, first)
    for at in np.flatnonzero(longest >= ZERO_WINDOW_NS).tolist():
        row = int(rows[begins[first[at]]])
        text = (
            f"The {side(numbers[at] % 2 == 1)} closed its window {amount(int(count[at]), 'times')}, {span(int(total[at]))} in "
            f"all, {span(int(longest[at]))} at the longest: its application did not read."
        )
        yield Finding(int(facts.time_ns[row]), row, int(numbers[at]) // 2, -1, "zero-window", text, NOTE)


def find_silent_subflows(facts: Facts) -> Iterator[Finding]:
    """Established subflows that are not backup and carried no payload while others did."""
    column = facts.flow_column
    silent = (column("payload_up") + column("payload_down") == 0) & (column("established_ns") >= 0)
    silent &= ~column("backup").astype(np.bool_) & (facts.connection_column("subflows")[column("connection")] > 1)
    silent &= (facts.connection_column("transport") == "mptcp")[column("connection")]
    # What the whole connection carried, and lasted, bounds what others did after the handshake.
    payload = facts.by_direction("payload")
    most = facts.connection_column("last_ns")[column("connection")] - column("established_ns")
    silent &= ((payload[::2] + payload[1::2])[column("connection")] >= SILENT_BYTES) & (most >= SILENT_NS)
    lowered = {option.flow for option in facts.options(schema.MP_PRIO) if option.backup} if silent.any() else set()
    examined: Counter[int] = Counter()
    flows = []
    for flow in np.flatnonzero(silent).tolist():
        examined[int(column("connection")[flow])] += 1
        if flow not in lowered and examined[int(column("connection")[flow])] <= _MOST_SILENT:
            flows.append(flow)
    facts.prepare_traffic({int(column("connection")[flow]) for flow in flows})
    for flow in flows:
        connection, since = int(column("connection")[flow]), int(column("established_ns")[flow])
        ended = facts.connection_column("last_ns")[connection] if column("end")[flow] == "open" else column("last_ns")[flow]
        lasted = int(ended) - since
        mates = facts.flows_of.get(connection, [])
        parts = [facts.traffic(mate, up, since, int(ended)) for mate in mates for up in (False, True)]
        carried = sum(part.payload_bytes for part in parts)
        if carried >= SILENT_BYTES and lasted >= SILENT_NS:
            text = f"S{facts.name(flow)[1:]} was active for {span(lasted)} without payload; others carried {amount(carried)}."
            number = int(column("subflow")[flow])
            yield Finding(since, int(facts.first_after_syn[flow]), connection, number, "silent-subflow", text, NOTE)


STALL_FINDERS = (find_stalls, find_zero_windows, find_silent_subflows)
