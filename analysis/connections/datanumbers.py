"""Data sequence numbers (DSN) and data acknowledgments (DATA_ACK) as positions in the data streams of MPTCP connections.

A data stream is one direction of a connection. Its DSNs and the DATA_ACKs that answer them share one number space, of which
a packet may carry 64 or 32 bits (RFC 8684 section 3.3.1). Numbers of 32 bits are the nearest to the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.compiled import compiled
from analysis.connections.keys import Uint64s
from analysis.connections.model import LIMIT, Array, Bools, Int64s
from analysis.connections.positions import Positions
from analysis.packets.schema import DSS_ACK, DSS_ACK8, DSS_DATA_FIN, DSS_MAP, DSS_MAP8
from analysis.packets.table import PacketTable

INVALID = -(1 << 62)
"""No position: there is no number in the packet, or it is absurd."""
_STRAY = 1 << 30
_NEAR = 1 << 32
VERIFIED, WRONG = 1, 2


@dataclass(frozen=True)
class DataNumbers:
    """Data-level positions. Per packet: `data`, position of the mapping's first byte, and `acked`, position that the
    DATA_ACK reaches; both INVALID without one. Per data stream: `first_dsn`, DSN of position 0; `fin`, position of DATA_FIN,
    -1 without one; `verdict`, VERIFIED or WRONG when the numbers tell whether `first_dsn` comes from the right key, else 0.
    """

    data: Int64s
    acked: Int64s
    first_dsn: Uint64s
    fin: Int64s
    verdict: Array


def find_data_numbers(
    table: PacketTable, positions: Positions, stream_of: Array, dsn_of_key: Uint64s, keyed: Bools, initial: Bools
) -> DataNumbers:
    """Positions of all DSNs and DATA_ACKs.

    `stream_of`: data stream of each flow direction, -1 for plain TCP. `dsn_of_key`, `keyed`: first DSN of each data stream
    by its key, and whether the key is known. `initial`: flow directions of initial subflows.
    """
    flags = table["dss_flags"]
    rows = np.flatnonzero((flags & (DSS_ACK | DSS_MAP) > 0) & (positions.direction >= 0))
    rows = rows[stream_of[positions.direction[rows]] >= 0]
    stream = stream_of[positions.direction[rows]]
    verdict = _verdicts(table, positions, rows, stream, dsn_of_key, keyed, initial)
    trusted = keyed & (verdict != WRONG)
    first_dsn, wide = dsn_of_key.copy(), trusted.copy()
    _first_seen(table, positions, rows, stream, trusted, first_dsn, wide)
    data, acked = np.full(len(table), INVALID, np.int64), np.full(len(table), INVALID, np.int64)
    fin = np.full(keyed.size, -1, np.int64)
    numbers = table["dsn"].view(np.int64), table["dack"].view(np.int64)
    base = first_dsn.view(np.int64)
    unwrap_data(rows, stream, flags, *numbers, table["map_bytes"], base, wide, data, acked, fin)
    return DataNumbers(data, acked, first_dsn, fin, verdict)


def _verdicts(
    table: PacketTable, positions: Positions, rows: Int64s, stream: Array, dsn_of_key: Uint64s, keyed: Bools, initial: Bools
) -> Array:
    """Does the first number of each data stream follow from its key? See `judge`."""
    verdict = np.zeros(keyed.size, np.uint8)
    numbers = table["dsn"].view(np.int64), table["dack"].view(np.int64), table["ssn"]
    base = dsn_of_key.view(np.int64)
    judge(rows, stream, positions.direction, table["dss_flags"], *numbers, base, keyed, initial, verdict)
    return verdict


def _first_seen(
    table: PacketTable, positions: Positions, rows: Int64s, stream: Array, trusted: Bools, first_dsn: Any, wide: Any
) -> None:
    """Without a key the first byte seen is position 0: the first mapping's, or without any the first DATA_ACK."""
    if trusted.all():
        return
    flags = table["dss_flags"][rows]
    chosen = np.flatnonzero((flags & DSS_ACK > 0) & ~trusted[stream ^ 1])[::-1]
    first_dsn[stream[chosen] ^ 1] = table["dack"][rows[chosen]]
    wide[stream[chosen] ^ 1] = flags[chosen] & DSS_ACK8 > 0
    chosen = np.flatnonzero((flags & DSS_MAP > 0) & ~trusted[stream])[::-1]
    row = rows[chosen]
    direction = positions.direction[row]
    inside = (positions.begin[row] + positions.origin[direction] - table["ssn"][row] + 1) & 0xFFFFFFFF
    inside = np.where((table["payload_bytes"][row] > 0) & (inside < table["map_bytes"][row]), inside, 0)
    first_dsn[stream[chosen]] = table["dsn"][row] + inside.astype(np.uint64)
    wide[stream[chosen]] = flags[chosen] & DSS_MAP8 > 0


@compiled
def judge(
    rows: Any, stream: Any, direction: Any, flags: Any, dsn: Any, dack: Any, ssn: Any, base: Any, keyed: Any, initial: Any,
    verdict: Any,
) -> None:  # fmt: skip
    """Set `verdict` of the streams with `keyed` set by their first telling number.

    64 bits must lie within 2^32 behind `base`. Of 32 bits only a mapping on the initial subflow can tell, where both levels
    begin together. What a DATA_ACK says counts while no mapping says anything.
    """
    by_mapping = np.zeros(verdict.size, np.bool_)
    for k in range(rows.size):
        i = rows[k]
        g = np.int64(stream[k])
        o = g ^ 1
        bits = flags[i]
        if bits & DSS_ACK and bits & DSS_ACK8 and keyed[o] and verdict[o] == 0:
            verdict[o] = VERIFIED if 0 <= dack[i] - base[o] < _NEAR else WRONG
        if bits & DSS_MAP and keyed[g] and not by_mapping[g]:
            behind = dsn[i] - base[g]
            if bits & DSS_MAP8:
                verdict[g] = VERIFIED if 0 <= behind < _NEAR else WRONG
                by_mapping[g] = True
            elif initial[direction[i]] and bits & DSS_DATA_FIN == 0:
                agrees = (behind - np.int64(ssn[i]) + 1) & 0xFFFFFFFF == 0
                if agrees or ssn[i] == 1:
                    verdict[g] = VERIFIED if agrees else WRONG
                    by_mapping[g] = True


@compiled
def _offset(number: Any, is_wide: Any, g: Any, base: Any, wide: Any, near: Any) -> Any:
    """Position of a number in data stream `g`. The arithmetic is modulo 2^64. The upper half of `base` is unknown while
    `wide` is not set; the first number of 64 bits completes it."""
    low = (number - base[g] - near[g]) & 0xFFFFFFFF
    position = near[g] + ((low + 0x80000000) & 0xFFFFFFFF) - 0x80000000
    if is_wide:
        if not wide[g]:
            base[g] = number - position
            wide[g] = True
        position = number - base[g]
    return position if -_NEAR < position < LIMIT else INVALID


@compiled
def _settle(near: Any, last: Any, g: Any, position: Any, is_wide: Any) -> None:
    """Remember a position as the one to compare the next number with, unless it is a stray one of 32 bits."""
    if position == INVALID:
        return
    if is_wide or abs(position - near[g]) < _STRAY or abs(position - last[g]) < _STRAY:
        near[g] = position
    last[g] = position


@compiled
def unwrap_data(
    rows: Any, stream: Any, flags: Any, dsn: Any, dack: Any, map_bytes: Any, base: Any, wide: Any, data: Any, acked: Any,
    fin: Any,
) -> None:  # fmt: skip
    """Fill `data`, `acked` and `fin`. `rows` in order of time, `stream`: the data stream each belongs to."""
    near, last = np.zeros(base.size, np.int64), np.zeros(base.size, np.int64)
    for k in range(rows.size):
        i = rows[k]
        g = np.int64(stream[k])
        bits = flags[i]
        if bits & DSS_ACK:
            o = g ^ 1
            is_wide = bits & DSS_ACK8 > 0
            acked[i] = _offset(dack[i], is_wide, o, base, wide, near)
            _settle(near, last, o, acked[i], is_wide)
        if bits & DSS_MAP:
            is_wide = bits & DSS_MAP8 > 0
            data[i] = _offset(dsn[i], is_wide, g, base, wide, near)
            _settle(near, last, g, data[i], is_wide)
            if bits & DSS_DATA_FIN and data[i] != INVALID and fin[g] < 0 and map_bytes[i] > 0:
                fin[g] = data[i] + np.int64(map_bytes[i]) - 1
    for k in range(rows.size):  # DATA_FIN takes a number, but it is no byte
        o = np.int64(stream[k]) ^ 1
        if acked[rows[k]] == fin[o] + 1 and fin[o] >= 0:
            acked[rows[k]] -= 1
