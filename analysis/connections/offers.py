"""What the handshake of each flow says about MPTCP: MP_CAPABLE offered, accepted and confirmed, MP_JOIN with its token.

Sources: RFC 8684 sections 3.1, 3.2 and 3.7, RFC 6824 sections 3.1 and 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.connections.flows import Flows
from analysis.connections.keys import Uint64s
from analysis.connections.model import Array, Bools, Int64s
from analysis.packets.schema import ACK, MP_CAPABLE, MP_JOIN, RST, SYN
from analysis.packets.table import PacketTable

_CHECKSUM_REQUIRED = 0x80  # A flag of MP_CAPABLE

PLAIN, JOIN, CAPABLE, NO_ANSWER, NOT_REPEATED, NOT_ACCEPTED, NOT_CONFIRMED, NO_THIRD = range(8)
"""Values of `state`: TCP that never offered MPTCP, an additional subflow, an initial subflow, and why one fell back."""
REASONS = {
    NO_ANSWER: "the SYN was not answered",
    NOT_REPEATED: "the repeated SYN carried no MP_CAPABLE",
    NOT_ACCEPTED: "the SYN/ACK carried no MP_CAPABLE",
    NOT_CONFIRMED: "the third ACK carried no MP_CAPABLE",
    NO_THIRD: "the handshake was not completed",
}


@dataclass(frozen=True)
class Offers:
    """MPTCP in the handshakes, one entry per flow.

    `state`: one of PLAIN ... NO_THIRD. Keys are 0, version, token and address ids -1 where unseen. `checksum`: one side
    requires checksums; `backup`: one side set the B flag in MP_JOIN; `client_id`, `server_id`: address ids of the flow's
    opener and of the other side. `data_rows`, `data_bytes`: packets whose MP_CAPABLE maps the beginning of the stream.
    """

    state: Array
    version: Int64s
    client_key: Uint64s
    server_key: Uint64s
    checksum: Bools
    token: Int64s
    backup: Bools
    client_id: Int64s
    server_id: Int64s
    data_rows: Int64s
    data_bytes: Int64s


class _Options:
    """Options of one subtype on usable flows, sorted by the segment of the handshake that carries them."""

    def __init__(self, table: PacketTable, flows: Flows, subtype: int) -> None:
        signals = table.signals
        index = np.flatnonzero(signals["subtype"] == subtype)
        row = signals["row"][index]
        used = (flows.flow[row] >= 0) & (table["flags"][row] & RST == 0)
        self.index, self.row = index[used], row[used]
        self.signals, self.count = signals, flows.count
        self.flow = flows.flow[self.row]
        opener, flags = flows.from_client[self.row], table["flags"][self.row]
        self.length = self["length"]
        self.syn = opener & (flags & (SYN | ACK) == SYN)
        self.answer = ~opener & (flags & (SYN | ACK) == SYN | ACK)
        self.third = opener & (flags & SYN == 0)

    def __getitem__(self, name: str) -> Array:
        values: Array = self.signals[name][self.index]
        return values

    def any(self, chosen: Bools) -> Bools:
        """Per flow: is one of the chosen options there?"""
        out = np.zeros(self.count, np.bool_)
        out[self.flow[chosen]] = True
        return out

    def first(self, name: str, chosen: Bools, out: Any) -> None:
        """Enter a field of the first chosen option of each flow."""
        out[self.flow[chosen][::-1]] = self[name][chosen][::-1]


def read_offers(table: PacketTable, flows: Flows) -> Offers:
    """Read the MPTCP handshakes of all flows. What was captured only in part is judged by what is there."""
    count = flows.count
    capable, join = _Options(table, flows, MP_CAPABLE), _Options(table, flows, MP_JOIN)
    version = np.full(count, -1, np.int64)
    client_key, server_key = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    answer = capable.answer & (capable.length >= 12)
    third = capable.third & (capable.length >= 20)
    keyed_syn = capable.syn & (capable.length == 12)
    for chosen in (capable.syn, third, answer):  # the SYN/ACK decides
        capable.first("version", chosen, version)
    capable.first("sender_key", keyed_syn, client_key)
    capable.first("sender_key", third, client_key)
    capable.first("receiver_key", third, server_key)
    capable.first("sender_key", answer, server_key)
    joined = join.any(join.syn | join.answer | (join.length == 24))
    token = np.full(count, -1, np.int64)
    ids = np.full((2, count), -1, np.int64)
    opening = join.syn & (join.length == 12)
    join.first("token", opening, token)
    join.first("address_id", opening, ids[0])
    join.first("address_id", join.answer & (join.length == 16), ids[1])
    checksum = capable["flags"] & _CHECKSUM_REQUIRED > 0
    offers = capable.any(capable.syn), capable.any(answer), capable.any(third)
    state = _states(table, flows, joined, *offers)
    ids[:, (state == CAPABLE) & np.logical_or.reduce(offers)] = 0
    data = third & (capable["data_bytes"] > 0)
    return Offers(
        state=state,
        version=version,
        client_key=client_key,
        server_key=server_key,
        checksum=capable.any((capable.syn | answer) & checksum),
        token=token,
        backup=join.any((join.syn | join.answer) & (join["backup"] > 0)),
        client_id=ids[0],
        server_id=ids[1],
        data_rows=capable.row[data],
        data_bytes=capable["data_bytes"][data].astype(np.int64),
    )


def _states(table: PacketTable, flows: Flows, joined: Bools, syn: Bools, answer: Bools, third: Bools) -> Array:
    """State of each flow; `syn`, `answer`, `third`: which segments of its handshake carried MP_CAPABLE."""
    spoken = _dss_seen(table, flows)
    has_syn, has_answer, has_third = flows.syn_row >= 0, flows.answer_row >= 0, flows.third_row >= 0
    later = third | spoken.any(axis=1)
    offered = syn | (~has_syn & (answer | later))
    accepted = answer | (~has_answer & later)
    # The server sends DSS only after it saw a confirmation; what the client sends shows what it believes.
    confirmed = third | spoken[:, 1] | (spoken[:, 0] & ~has_third)
    state = np.full(flows.count, PLAIN, np.uint8)
    state[offered] = np.select(
        [confirmed & accepted, accepted & has_third, accepted, has_answer],
        [CAPABLE, NOT_CONFIRMED, NO_THIRD, NOT_ACCEPTED],
        NO_ANSWER,
    )[offered]
    refused = np.flatnonzero(state == NOT_ACCEPTED)
    if refused.size:
        state[refused[_gave_up(table, flows)[refused]]] = NOT_REPEATED
    state[joined] = JOIN
    return state


def _dss_seen(table: PacketTable, flows: Flows) -> Bools:
    """Per flow and side (client, server): did it send DSS options?"""
    seen = np.zeros((flows.count, 2), np.bool_)
    rows = np.flatnonzero((table["dss_flags"] > 0) & (flows.flow >= 0))
    seen[flows.flow[rows], 1 - flows.from_client[rows].astype(np.int64)] = True
    return seen


def _gave_up(table: PacketTable, flows: Flows) -> Bools:
    """Per flow: was a SYN sent without MP_CAPABLE? A client tries that when the first ones get no answer."""
    rows = np.flatnonzero((table["flags"] & (SYN | ACK | RST) == SYN) & (flows.flow >= 0) & flows.from_client)
    bare = rows[table["mp_subtypes"][rows] & (1 << MP_CAPABLE) == 0]
    out = np.zeros(flows.count, np.bool_)
    out[flows.flow[bare]] = True
    return out
