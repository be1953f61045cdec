"""Where the bytes of every segment lie in the stream of their flow, and how far every acknowledgment reaches.

Sequence numbers of 32 bits wrap. Each is taken as the number nearest to the one before it in the same direction of the same
flow (RFC 9293 section 3.4); a stray segment far away does not move that reference, two neighbours there do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.compiled import compiled
from analysis.connections.flows import Flows
from analysis.connections.model import LIMIT, Array, Int64s
from analysis.packets.schema import ACK, DSS_DATA_FIN, DSS_MAP, FIN, RST, SYN
from analysis.packets.table import PacketTable
from analysis.sequence import signed32

_STRAY = 1 << 30


@dataclass(frozen=True)
class Positions:
    """Positions in flow directions, which are numbered 2 * flow for the client's stream and 2 * flow + 1 for the server's.

    Per packet (0 where `flow` is -1): `direction` of its payload; `begin`, position of its first payload byte; `acked`, how
    far it acknowledges the opposite direction. Per direction: `packets`, `header_bytes`, `fin` (position of the FIN, -1
    without one), `top_ack` (how far the receiver acknowledged; -1 never) and `origin`, the distance of position 0 from the
    subflow's first byte by its mappings (0 when the handshake was captured; then they are the same).
    """

    direction: Array
    begin: Int64s
    acked: Int64s
    packets: Int64s
    header_bytes: Int64s
    fin: Int64s
    top_ack: Int64s
    origin: Int64s


def find_positions(table: PacketTable, flows: Flows) -> Positions:
    """Positions of all segments and acknowledgments."""
    base = flows.base.reshape(-1).copy()
    rows, directions = len(table), base.size
    direction = np.full(rows, -1, np.int32)
    begin, acked = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    counts = np.zeros((directions, 4), np.int64)
    counts[:, 2:] = -1
    numbers = table["seq"], table["ack"], table["flags"]
    sizes = table["payload_bytes"], table["overhead_bytes"]
    unwrap(flows.flow, flows.from_client, *numbers, *sizes, base, direction, begin, acked, counts)
    packets, header_bytes, fin, top_ack = (counts[:, column].copy() for column in range(4))
    return Positions(direction, begin, acked, packets, header_bytes, fin, top_ack, _origins(table, flows, direction))


def _origins(table: PacketTable, flows: Flows, direction: Array) -> Int64s:
    """For directions without ISN: where in the subflow position 0 is, modulo 2^32.

    A segment lies at the beginning of its mapping or behind it, so the smallest difference between the sequence number and
    the mapping's subflow sequence number is that of the subflow's first byte as soon as one beginning was seen.
    """
    base, unknown = flows.base.reshape(-1), (flows.isn < 0).reshape(-1)
    origin = np.zeros(base.size, np.int64)
    if not unknown.any():
        return origin
    flags = table["dss_flags"]
    rows = np.flatnonzero((flags & DSS_MAP > 0) & (direction >= 0) & (table["payload_bytes"] > 0))
    rows = rows[unknown[direction[rows]] & (table["map_bytes"][rows] > (flags[rows] & DSS_DATA_FIN > 0))]
    number = direction[rows]
    first_byte = table["seq"][rows].astype(np.int64) - table["ssn"][rows] + 1
    reference = np.full(base.size, -1, np.int64)
    reference[number[::-1]] = first_byte[::-1]
    least = np.zeros(base.size, np.int64)
    np.minimum.at(least, number, signed32(first_byte - reference[number]))
    known = np.zeros(base.size, np.bool_)
    known[number] = True
    origin[known] = (base - reference - least)[known] & 0xFFFFFFFF
    return origin


@compiled
def _apart(a: Any, b: Any) -> Any:
    """a - b modulo 2^32 as the nearest signed number."""
    return ((a - b + 0x80000000) & 0xFFFFFFFF) - 0x80000000


@compiled
def _settle(near: Any, last: Any, g: Any, position: Any) -> None:
    """Remember a position: `near` is what the next number is compared with, `last` the one before it, stray or not."""
    if abs(position - near[g]) < _STRAY or abs(position - last[g]) < _STRAY:
        near[g] = position
    last[g] = position


@compiled
def unwrap(
    flow: Any, from_client: Any, seq: Any, ack: Any, flags: Any, payload: Any, overhead: Any, base: Any, direction: Any,
    begin: Any, acked: Any, counts: Any,
) -> None:  # fmt: skip
    """Fill `direction`, `begin` and `acked` of all packets, and `counts` (packets, header bytes, FIN, highest
    acknowledgment) of all directions. `base` is -1 where a side sent nothing: the first acknowledgment then sets it."""
    near, last = np.zeros(base.size, np.int64), np.zeros(base.size, np.int64)
    near_ack, last_ack = np.zeros(base.size, np.int64), np.zeros(base.size, np.int64)
    for i in range(flow.size):
        if flow[i] < 0:
            continue
        g = 2 * np.int64(flow[i]) + (0 if from_client[i] else 1)
        o = g ^ 1
        bits = flags[i]
        direction[i] = g
        counts[g, 0] += 1
        counts[g, 1] += overhead[i]
        number = np.int64(seq[i]) + (1 if bits & SYN else 0)
        if base[g] < 0:
            base[g] = number
        begin[i] = near[g] + _apart(number, base[g] + near[g])
        if bits & RST == 0:
            _settle(near, last, g, begin[i])
            if bits & FIN and counts[g, 2] < 0:
                counts[g, 2] = begin[i] + np.int64(payload[i])
        if bits & (ACK | RST) == ACK:
            number = np.int64(ack[i])
            if base[o] < 0:
                base[o] = number
            acked[i] = near_ack[o] + _apart(number, base[o] + near_ack[o])
            _settle(near_ack, last_ack, o, acked[i])
    for i in range(flow.size):  # a FIN takes a number, but it is no byte
        if flow[i] >= 0 and flags[i] & (ACK | RST) == ACK:
            o = direction[i] ^ 1
            if acked[i] == counts[o, 2] + 1 and acked[i] > 0:
                acked[i] -= 1
            if acked[i] <= LIMIT:
                counts[o, 3] = max(counts[o, 3], acked[i])
