"""Subflows of connections whose keys are not in the capture, brought together by their data sequence numbers.

Both directions of a connection begin at random 64-bit numbers. Subflows whose numbers are close together in both directions
therefore belong to one connection: a chance of 2^-64 or so for two others.
"""

from __future__ import annotations

import numpy as np

from analysis.connections.flows import Flows
from analysis.connections.keys import Uint64s
from analysis.connections.model import Bools, Int64s
from analysis.packets.schema import DSS_ACK, DSS_ACK8, DSS_MAP, DSS_MAP8
from analysis.packets.table import PacketTable

_NEAR = 1 << 31


def link_orphans(table: PacketTable, flows: Flows, orphan: Bools, root: Int64s, opened_by_client: Bools) -> None:
    """Join the groups of flows that belong together, in place. `root`: lowest flow of the group of each flow.

    Only flows with `orphan` set are looked at, and of these only those that carry numbers of 64 bits for both directions.
    """
    if not orphan.any():
        return
    number, seen = _first_numbers(table, flows, orphan)
    known = np.flatnonzero(seen.all(axis=1))
    if known.size < 2:
        return
    values = number[known].reshape(-1)
    order = np.argsort(values)
    ascending = values[order]
    cluster = np.empty(values.size, np.int64)
    cluster[order] = np.cumsum(np.concatenate(([0], ascending[1:] - ascending[:-1] > _NEAR)))
    sides = cluster.reshape(-1, 2)
    turned = sides[:, 0] > sides[:, 1]
    keys = np.stack((flows.place[known], sides.min(axis=1), sides.max(axis=1)))
    _, group = np.unique(keys, axis=1, return_inverse=True)
    group = group.reshape(-1)
    first = np.full(known.size, root.size, np.int64)
    np.minimum.at(first, group, root[known])
    target = np.arange(root.size)
    np.minimum.at(target, root[known], first[group])
    # A group may lead to one that leads on; further ones do not occur in sound captures.
    target = target[target]
    root[:] = target[root]
    way = np.zeros(root.size, np.bool_)
    way[known] = turned
    opened_by_client[known] = turned == way[root[known]]


def _first_numbers(table: PacketTable, flows: Flows, orphan: Bools) -> tuple[Uint64s, Bools]:
    """First DSN or DATA_ACK of 64 bits per flow and direction of data (client's, server's), and where there is one."""
    number, seen = np.zeros((orphan.size, 2), np.uint64), np.zeros((orphan.size, 2), np.bool_)
    flags = table["dss_flags"]
    rows = np.flatnonzero((flags > 0) & (flows.flow >= 0))
    rows = rows[orphan[flows.flow[rows]]][::-1]
    side = 1 - flows.from_client[rows].astype(np.int64)
    for name, bits, of_peer in (("dack", DSS_ACK | DSS_ACK8, 1), ("dsn", DSS_MAP | DSS_MAP8, 0)):
        there = flags[rows] & bits == bits
        place = flows.flow[rows[there]], side[there] ^ of_peer
        number[place] = table[name][rows[there]]
        seen[place] = True
    return number, seen
