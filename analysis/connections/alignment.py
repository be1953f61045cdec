"""Which packet at one capture point is which at another, for flows that are paired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from analysis.connections.pairing import Pair
from analysis.packets.schema import FIN, HAS_TIMESTAMPS, RST, SYN
from analysis.sequence import signed32

if TYPE_CHECKING:
    from analysis.connections.model import Reconstruction

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]


@dataclass
class Alignment:
    """Packets of paired flows, in parallel arrays in order of time.

    `row` of the packet table; `pair` number; `up`: sent by the client of the pair's first flow; `second`: captured at the
    second point. `seq` and `ack` count from the initial sequence numbers seen at that point, so that they are comparable.
    `mate` is the index of the same packet at the other point, -1 when it is not there; `jump` how far its relative sequence
    number differs there. `shift` (pairs, 2): sequence numbers at the second point minus those at the first, [down, up].
    """

    row: Int64s
    pair: Int64s
    up: Bools
    second: Bools
    seq: Int64s
    ack: Int64s
    payload: Int64s
    time_ns: Int64s
    mate: Int64s
    jump: Int64s
    shift: Int64s

    def group(self, index: Any) -> Int64s:
        """Pair * 2 + up of these packets."""
        out: Int64s = self.pair[index] * 2 + self.up[index]
        return out


def align(core: Reconstruction, pairs: list[Pair]) -> Alignment:
    """Match the packets of paired flows: same flags, relative numbers, payload length and timestamps, in order of time.

    What is left is tried without timestamps (a middlebox may remove or rewrite them) and then by timestamps alone (payload
    that changed its length shifts all numbers behind it).
    """
    table = core.packets
    number, second, flipped = _membership(core, pairs)
    row = np.flatnonzero((core.flow >= 0) & (number[core.flow] >= 0))
    flow = core.flow[row]
    pair, at_second = number[flow], second[flow]
    up = core.from_client[row] ^ (flipped[pair] & at_second)
    origin, shift = _origins(core, pairs)
    seq = signed32(table["seq"][row].astype(np.int64) - origin[pair, at_second.astype(np.int64), up.astype(np.int64)])
    ack = signed32(table["ack"][row].astype(np.int64) - origin[pair, at_second.astype(np.int64), 1 - up.astype(np.int64)])
    ack[table["flags"][row] & 16 == 0] = 0
    payload = table["payload_bytes"][row].astype(np.int64)
    nothing = np.full(row.size, -1, np.int64)
    out = Alignment(row, pair, up, at_second, seq, ack, payload, table["time_ns"][row], nothing, np.zeros_like(nothing), shift)
    kind = (table["flags"][row] & (SYN | FIN | RST)).astype(np.int64)
    stamped = table["options"][row] & HAS_TIMESTAMPS > 0
    stamps = [table["tsval"][row].astype(np.int64), table["tsecr"][row].astype(np.int64)]
    same = [pair, up.astype(np.int64), kind]
    everyone = np.ones(row.size, np.bool_)
    _match(out, everyone, [*same, seq, ack, payload, *stamps])
    _match(out, everyone, [*same, seq, ack, payload])
    _match(out, everyone & (payload > 0), [*same, seq, payload])
    _match(out, stamped & ((payload > 0) | (kind > 0)), [*same, (payload > 0).astype(np.int64), *stamps])
    found = out.mate >= 0
    out.jump[found] = seq[out.mate[found]] - seq[found]
    return out


def _membership(core: Reconstruction, pairs: list[Pair]) -> tuple[Int64s, Bools, Bools]:
    """Per flow its pair (-1: none) and whether it is the second one of it; per pair whether it is flipped."""
    number = np.full(len(core.flows), -1, np.int64)
    second = np.zeros(len(core.flows), np.bool_)
    for index, pair in enumerate(pairs):
        number[[pair.first, pair.second]] = index
        second[pair.second] = True
    return number, second, np.array([pair.flipped for pair in pairs], np.bool_)


def _origins(core: Reconstruction, pairs: list[Pair]) -> tuple[Int64s, Int64s]:
    """Initial sequence numbers (pairs, 2 points, [down, up]) and their difference; 0 where a point did not see them.

    Where only one point saw the handshake, its number serves both: the best guess is that nothing is rewritten.
    """
    isns = np.stack([core.flows["server_isn"].to_numpy(np.int64), core.flows["client_isn"].to_numpy(np.int64)], axis=1)
    first = isns[[pair.first for pair in pairs]].reshape(-1, 2)
    second = isns[[pair.second for pair in pairs]].reshape(-1, 2)
    for index, pair in enumerate(pairs):
        if pair.flipped:
            second[index] = second[index][::-1]
    known = (first >= 0) & (second >= 0)
    shift = np.where(known, signed32(second - first), 0)
    either = np.maximum(np.maximum(first, second), 0)
    return np.stack([np.where(known, first, either), np.where(known, second, either)], axis=1), shift


def _match(alignment: Alignment, allowed: Bools, columns: list[Int64s]) -> None:
    """Pair the packets without mate whose columns agree: the n-th of the first point with the n-th of the second."""
    rows = np.flatnonzero(allowed & (alignment.mate < 0))
    if not rows.size:
        return
    key = np.zeros(rows.size, np.uint64)
    for column in columns:
        key = (key ^ column[rows].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(31)
    second = alignment.second[rows]
    order = np.lexsort((second, key))
    key, second, rows = key[order], second[order], rows[order]
    place = np.arange(rows.size)
    fresh = np.concatenate(([True], (key[1:] != key[:-1]) | (second[1:] != second[:-1])))
    nth = place - np.maximum.accumulate(np.where(fresh, place, 0))
    order = np.lexsort((second, nth, key))
    key, nth, rows, second = key[order], nth[order], rows[order], second[order]
    pairs = np.flatnonzero((key[1:] == key[:-1]) & (nth[1:] == nth[:-1]) & ~second[:-1] & second[1:])
    one, other = rows[pairs], rows[pairs + 1]
    alignment.mate[one], alignment.mate[other] = other, one
