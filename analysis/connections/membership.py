"""Which flows make up which connection. An MPTCP connection is an initial flow and the flows that joined it by token.

Sources: RFC 8684 sections 3.1 and 3.2, RFC 6824 sections 3.1 and 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis.connections.flows import Flows
from analysis.connections.keys import Uint64s, tokens_and_dsns
from analysis.connections.model import Array, Bools, Int64s
from analysis.connections.offers import CAPABLE, JOIN, Offers
from analysis.connections.orphans import link_orphans
from analysis.packets.table import PacketTable


@dataclass(frozen=True)
class Membership:
    """Flows and their connections.

    Per flow: `connection`, `subflow` (0 is the initial one, else in order of the first packet) and `opened_by_client`, False
    where the connection's server opened a joined flow. Per connection, -1 or 0 where unseen: `initial`, number of its first
    flow; keys, tokens and DSNs of the first data bytes of (client, server), arrays (connections, 2); `token_seen`: a flow
    joined with that token.
    """

    connection: Array
    subflow: Array
    opened_by_client: Bools
    initial: Int64s
    keys: Uint64s
    tokens: Int64s
    first_dsns: Uint64s
    token_seen: Bools

    @property
    def count(self) -> int:
        """Number of connections."""
        return self.initial.size

    @cached_property
    def streams(self) -> Array:
        """Data stream of each flow direction: 2 * connection for what the connection's client sends, + 1 for its server."""
        opener = np.where(self.opened_by_client, 0, 1)
        both = np.stack((opener, 1 - opener), axis=1) + 2 * self.connection[:, None].astype(np.int64)
        return both.reshape(-1).astype(np.int32)


def find_membership(table: PacketTable, flows: Flows, offers: Offers) -> Membership:
    """Group flows to connections.

    A join belongs to the last connection that began before it at its capture point with a key of that token. Joins to
    connections whose keys are not in the capture are grouped by their tokens, and subflows of such connections by their data
    sequence numbers; what tells no direction counts as opened by the client.
    """
    root = np.arange(flows.count)
    opened_by_client = np.ones(flows.count, np.bool_)
    initial = np.flatnonzero(offers.state == CAPABLE)
    keys = np.stack((offers.client_key[initial], offers.server_key[initial]), axis=1)
    versions = np.repeat(offers.version[initial], 2)
    tokens, first_dsns = tokens_and_dsns(keys.reshape(-1), versions)
    joins = np.flatnonzero((offers.state == JOIN) & (offers.token >= 0))
    entry = _match(flows, offers, initial, tokens, joins)
    found = entry >= 0
    root[joins[found]] = initial[entry[found] // 2]
    opened_by_client[joins[found]] = entry[found] % 2 == 1
    used = np.zeros(tokens.size, np.bool_)
    used[entry[found]] = True
    strangers = joins[~found]
    group = _codes(offers.token[strangers], flows.place[strangers])
    first = np.zeros(group.size, np.int64)
    first[group[::-1]] = strangers[::-1]
    root[strangers] = first[group]
    orphan = (offers.state == JOIN) | ((offers.state == CAPABLE) & (offers.client_key == 0) & (offers.server_key == 0))
    orphan[joins[found]] = False
    link_orphans(table, flows, orphan, root, opened_by_client)
    connection, subflow, initial_of = _number(root)
    out = Membership(
        connection=connection.astype(np.int32),
        subflow=subflow.astype(np.int32),
        opened_by_client=opened_by_client,
        initial=initial_of,
        keys=np.zeros((initial_of.size, 2), np.uint64),
        tokens=np.full((initial_of.size, 2), -1, np.int64),
        first_dsns=np.zeros((initial_of.size, 2), np.uint64),
        token_seen=np.zeros((initial_of.size, 2), np.bool_),
    )
    rows = connection[initial]
    out.keys[rows], out.tokens[rows] = keys, tokens.reshape(-1, 2)
    out.first_dsns[rows], out.token_seen[rows] = first_dsns.reshape(-1, 2), used.reshape(-1, 2)
    return out


def _codes(token: Int64s, place: Int64s) -> Int64s:
    """Small numbers for pairs of token and capture point."""
    code: Int64s = np.unique(place << 32 | token, return_inverse=True)[1].astype(np.int64)
    return code


def _match(flows: Flows, offers: Offers, initial: Int64s, tokens: Int64s, joins: Int64s) -> Int64s:
    """For each join the index of its token in `tokens` (2 * index of the initial flow, + 1 for its server); -1 for none."""
    out = np.full(joins.size, -1, np.int64)
    entries = np.flatnonzero(tokens >= 0)
    if not entries.size or not joins.size:
        return out
    owner = initial[entries // 2]
    every = np.concatenate((tokens[entries], offers.token[joins]))
    code = _codes(every, flows.place[np.concatenate((owner, joins))])
    own, wanted = code[: entries.size], code[entries.size :]
    # The server's token goes before the client's, should they be equal.
    rank = own << 33 | flows.first_row[owner] << 1 | entries % 2
    order = np.argsort(rank)
    rank, entries, own = rank[order], entries[order], own[order]
    latest = np.searchsorted(rank, wanted << 33 | flows.first_row[joins] << 1 | 1, side="right") - 1
    earliest = np.minimum(latest + 1, entries.size - 1)
    for place in (earliest, np.maximum(latest, 0)):
        fits = own[place] == wanted
        out[fits] = entries[place[fits]]
    return out


def _number(root: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """Connection of each flow, in order of their first flows; subflow number; the root flow of each connection."""
    flow = np.arange(root.size)
    if (root == flow).all():
        return flow, np.zeros(root.size, np.int64), flow
    first = np.full(root.size, root.size, np.int64)
    np.minimum.at(first, root, flow)
    roots = np.flatnonzero(root == flow)
    roots = roots[np.argsort(first[roots])]
    number = np.full(root.size, -1, np.int64)
    number[roots] = np.arange(roots.size)
    connection = number[root]
    order = np.lexsort((flow, root != flow, connection))
    begins = np.searchsorted(connection[order], np.arange(roots.size))
    subflow = np.empty(root.size, np.int64)
    subflow[order] = flow - begins[connection[order]]
    return connection, subflow, roots
