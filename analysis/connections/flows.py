"""TCP flows in a packet table: which packets belong together, and which end opened the flow.

A flow is one TCP connection between two endpoints at one capture point. A handshake with another initial sequence number
(ISN) on the same endpoints is another flow; late packets of the flow before it are recognised by their numbers.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.compiled import compiled
from analysis.connections.model import Array, Bools, Int32s, Int64s
from analysis.packets.schema import ACK, FIN, MP_CAPABLE, MP_JOIN, RST, SYN, TCP, UNUSABLE
from analysis.packets.table import PacketTable

_WELL_KNOWN, _EPHEMERAL = 1024, 32768  # ports below the one are servers', from the other on clients' (Linux's default range)
_NEAR = 1 << 16  # so far behind an ISN may the first packet be that was captured before its SYN

# Columns of `_Sides`, one pair per flow: [0] the lower endpoint, [1] the higher one.
_ISN, _FIRST, _LAST, _DATA, _SYN_BYTES, _FIN_ROW = range(6)
# Columns of `_Rows`.
_ROW_FIRST, _ROW_LAST, _ROW_SYN, _ROW_ANSWER, _ROW_THIRD, _ROW_RST, _PREVIOUS, _OPENER, _PLAIN, _INTERFACE = range(10)
_NONE, _MIXED = -1, -2


@dataclass(frozen=True)
class Flows:
    """Flows of a packet table. Arrays `flow` and `from_client` have one entry per packet, all others one per flow.

    `from_client`: sent by the flow's opener. Rows are those of the packet table, -1 where there is none: first and last
    packet, first SYN, SYN/ACK and RST, `third_row` the opener's first segment after the SYN/ACK. `base` (client, server):
    sequence number of the first byte of each side's stream; a guess where `isn` (client, server) is -1, unseen. `fin_row`
    (client, server): first FIN. `interface`: where all packets were captured, -1 when on several interfaces; `place`:
    number of the capture point. `seen_open`: a SYN or SYN/ACK tells which side is the client.
    """

    flow: Int32s
    from_client: Bools
    client: Int32s
    client_port: Array
    server: Int32s
    server_port: Array
    seen_open: Bools
    isn: Int64s
    base: Int64s
    fin_row: Int64s
    first_row: Int64s
    last_row: Int64s
    syn_row: Int64s
    answer_row: Int64s
    third_row: Int64s
    reset_row: Int64s
    interface: Int64s
    place: Int64s

    @property
    def count(self) -> int:
        """Number of flows."""
        return self.first_row.size


def find_flows(table: PacketTable, places: Sequence[int] | None = None) -> Flows:
    """All TCP flows of a table in order of time. `places`: number of the capture point of each interface, default one for all.

    Who opened a flow without handshake in the capture is told by MPTCP options that only an opener sends, else by the ports
    (below 1024: a server, from 32768 on: a client, else the lower one is the server's), else the first sender is the client.
    """
    place_of = _places(table, places)
    usable = (table["protocol"] == TCP) & (table["problems"] & UNUSABLE == 0)
    ends = table["src"], table["sport"], table["dst"], table["dport"]
    pair, side = np.full(len(table), -1, np.int32), np.zeros(len(table), np.uint8)
    slots = np.full(1 << max(int(usable.sum()) * 2 - 1, 1).bit_length(), -1, np.int32)
    seeds = np.array([secrets.randbits(64) | 1 for _ in range(3)], np.uint64)
    flags = table["flags"]
    pairs, room = pair_up(*ends, table["interface"], place_of, usable, flags, seeds, slots, pair, side)
    del slots
    sides, rows = np.full((room, 6, 2), _NONE, np.int64), np.full((room, 10), _NONE, np.int32)
    flow = np.full(len(table), -1, np.int32)
    count = split(
        pair, side, table["seq"], table["ack"], flags, table["payload_bytes"], table["interface"], pairs, sides, rows, flow
    )
    return _describe(table, place_of, flow, side, sides[:count], rows[:count])


def _places(table: PacketTable, places: Sequence[int] | None) -> Int64s:
    """Number of the capture point of each interface number that occurs."""
    used = int(table["interface"].max()) + 1 if len(table) else 0
    if places is None or not used:
        return np.zeros(max(used, 1), np.int64)
    if len(places) < used:
        raise ValueError(f"places: {len(places)} capture points for {used} interfaces: give one for each interface")
    return np.asarray(places, np.int64)


def _describe(table: PacketTable, place_of: Int64s, flow: Int32s, side: Array, sides: Int64s, rows: Int32s) -> Flows:
    """Name client and server of each flow, and order what is known of both sides accordingly."""
    rows = np.ascontiguousarray(rows.T).astype(np.int64)
    first, opener = rows[_ROW_FIRST], rows[_OPENER]
    client = _openers(table, flow, side, first, opener)
    client_first = side[first] == client  # the first packet came from the client
    source, target = table["src"][first], table["dst"][first]
    sport, dport = table["sport"][first], table["dport"][first]
    of_client, index = np.stack((client, 1 - client), axis=1), np.arange(first.size)[:, None]
    isn, data, seen, fin = (sides[index, column, of_client] for column in (_ISN, _DATA, _FIRST, _FIN_ROW))
    guess = np.where(data >= 0, data, seen)
    base = np.where(isn >= 0, (isn + 1) & 0xFFFFFFFF, guess)
    from_client = (side == client[flow]) & (flow >= 0) if first.size else np.zeros(flow.size, np.bool_)
    interface = rows[_INTERFACE]
    return Flows(
        flow=flow,
        from_client=from_client,
        client=np.where(client_first, source, target),
        client_port=np.where(client_first, sport, dport),
        server=np.where(client_first, target, source),
        server_port=np.where(client_first, dport, sport),
        seen_open=opener >= 0,
        isn=isn,
        base=base,
        fin_row=fin,
        first_row=first,
        last_row=rows[_ROW_LAST],
        syn_row=rows[_ROW_SYN],
        answer_row=rows[_ROW_ANSWER],
        third_row=rows[_ROW_THIRD],
        reset_row=rows[_ROW_RST],
        interface=np.where(interface == _MIXED, -1, interface),
        place=place_of[table["interface"][first]] if first.size else np.zeros(0, np.int64),
    )


def _openers(table: PacketTable, flow: Int32s, side: Array, first: Int64s, opener: Int64s) -> Int64s:
    """The side that opened each flow: 0 or 1. `opener` is -1 where no handshake was seen."""
    signals = table.signals
    row = signals["row"]
    # The third segment of a handshake: keys of both sides, or the longest MP_JOIN.
    keys = (signals["subtype"] == MP_CAPABLE) & (signals["length"] >= 20)
    join = (signals["subtype"] == MP_JOIN) & (signals["length"] == 24)
    telling = np.flatnonzero((keys | join) & (flow[row] >= 0))[::-1]
    hint = np.full(opener.size, -1, np.int64)
    hint[flow[row[telling]]] = side[row[telling]]
    sport, dport = table["sport"][first].astype(np.int64), table["dport"][first].astype(np.int64)
    sender = side[first].astype(np.int64)
    rank = _rank_of_port(sport) - _rank_of_port(dport)
    by_port = np.where((rank > 0) | ((rank == 0) & (sport >= dport)), sender, 1 - sender)
    return np.select([opener >= 0, hint >= 0], [opener, hint], by_port)


def _rank_of_port(port: Int64s) -> Int64s:
    """0 for a server's port, 2 for a client's, 1 when it does not tell."""
    return np.where(port < _WELL_KNOWN, 0, np.where(port >= _EPHEMERAL, 2, 1))


@compiled
def pair_up(
    src: Any, sport: Any, dst: Any, dport: Any, interface: Any, place_of: Any, usable: Any, flags: Any, seeds: Any, slots: Any,
    pair: Any, side: Any,
) -> Any:  # fmt: skip
    """Number the pairs of endpoints per capture point; `side`: 1 when the higher endpoint sent.

    Returns how many pairs there are, and how many flows at most: one for each pair and for each SYN that is not its first.

    `slots` is an open hash table of rows, filled with -1, a power of two long and at least twice the number of rows. The
    hash has random multipliers: addresses and ports are chosen by whoever sent the packets.
    """
    shift = np.uint64(32)
    mask = slots.size - 1
    count = 0
    flows = 0
    for i in range(src.size):
        if not usable[i]:
            continue
        low, high = np.int64(src[i]) << 16 | np.int64(sport[i]), np.int64(dst[i]) << 16 | np.int64(dport[i])
        side[i] = 1 if low > high else 0
        if low > high:
            low, high = high, low
        place = place_of[interface[i]]
        mixed = np.uint64(low) * seeds[0] + np.uint64(high) * seeds[1] + np.uint64(place) * seeds[2]
        mixed = (mixed ^ (mixed >> shift)) * np.uint64(0xBF58476D1CE4E5B9)
        slot = np.int64(mixed >> shift) & mask
        while True:
            j = slots[slot]
            if j < 0:
                slots[slot] = i
                pair[i] = count
                count += 1
                flows += 1
                break
            straight = src[j] == src[i] and dst[j] == dst[i] and sport[j] == sport[i] and dport[j] == dport[i]
            crossed = src[j] == dst[i] and dst[j] == src[i] and sport[j] == dport[i] and dport[j] == sport[i]
            if (straight or crossed) and place_of[interface[j]] == place:
                pair[i] = pair[j]
                if flags[i] & SYN:
                    flows += 1
                break
            slot = (slot + 1) & mask
    return count, flows


@compiled
def _apart(a: Any, b: Any) -> Any:
    """a - b modulo 2^32 as the nearest signed number (RFC 9293 section 3.4)."""
    return ((a - b + 0x80000000) & 0xFFFFFFFF) - 0x80000000


@compiled
def _same_opening(state: Any, rows: Any, s: Any, seq: Any) -> Any:
    """Does a SYN of side `s` belong to the flow? It may repeat, answer another SYN, or have been captured late."""
    if state[_ISN, s] >= 0:
        return state[_ISN, s] == seq
    if state[_ISN, 1 - s] >= 0:
        return rows[_OPENER] == 1 - s and rows[_PLAIN] < 0
    return state[_FIRST, s] >= 0 and 0 <= _apart(state[_FIRST, s], seq) <= _NEAR


@compiled
def _answers(state: Any, s: Any, seq: Any, ack: Any) -> Any:
    """Does a SYN/ACK of side `s` belong to the flow?"""
    o = 1 - s
    if state[_ISN, o] >= 0:
        return 1 <= _apart(ack, state[_ISN, o]) <= 1 + max(state[_SYN_BYTES, o], 0)
    near = state[_FIRST, s] < 0 or 0 <= _apart(state[_FIRST, s], seq) <= _NEAR
    return near and (state[_FIRST, o] < 0 or 0 <= _apart(state[_FIRST, o], ack - 1) <= _NEAR)


@compiled
def _distance(state: Any, s: Any, seq: Any, ack: Any, acknowledges: Any) -> Any:
    """How far the numbers of a segment are from those last seen in the flow."""
    total = 0
    if state[_LAST, s] >= 0:
        total += abs(_apart(seq, state[_LAST, s]))
    if acknowledges and state[_LAST, 1 - s] >= 0:
        total += abs(_apart(ack, state[_LAST, 1 - s]))
    return total


@compiled
def split(
    pair: Any, side: Any, seq: Any, ack: Any, flags: Any, payload: Any, interface: Any, pairs: Any, sides: Any, rows: Any,
    flow: Any,
) -> Any:  # fmt: skip
    """Split pairs of endpoints into flows at their handshakes; returns the number of flows.

    `sides` and `rows` have room for one flow per pair and per SYN, and hold -1.
    """
    newest = np.full(pairs, -1, np.int32)
    count = 0
    for i in range(pair.size):
        p = pair[i]
        if p < 0:
            continue
        s = np.int64(side[i])
        o = 1 - s
        number, answer, bits = np.int64(seq[i]), np.int64(ack[i]), flags[i] & (SYN | ACK | RST)
        f = newest[p]
        fresh = f < 0
        before = f if fresh else rows[f, _PREVIOUS]
        if fresh:
            pass
        elif bits == SYN:
            fresh = not _same_opening(sides[f], rows[f], s, number)
        elif bits == SYN | ACK:
            if not _answers(sides[f], s, number, answer) and sides[f, _ISN, s] != number:
                if before >= 0 and _answers(sides[before], s, number, answer):
                    f = before
                else:
                    fresh = True
        elif before >= 0:
            acknowledges = bits & ACK > 0
            here = _distance(sides[f], s, number, answer, acknowledges)
            if _distance(sides[before], s, number, answer, acknowledges) < here:
                f = before
        if fresh:
            rows[count, _PREVIOUS] = f
            rows[count, _ROW_FIRST] = i
            rows[count, _INTERFACE] = interface[i]
            f = newest[p] = count
            count += 1
        flow[i] = f
        _note(sides[f], rows[f], i, s, o, number, answer, flags[i], np.int64(payload[i]), np.int64(interface[i]))
    return count


@compiled
def _note(state: Any, rows: Any, i: Any, s: Any, o: Any, seq: Any, ack: Any, flags: Any, payload: Any, interface: Any) -> None:
    """Enter a packet into what is known of its flow."""
    bits = flags & (SYN | ACK | RST)
    rows[_ROW_LAST] = i
    if rows[_INTERFACE] != interface:
        rows[_INTERFACE] = _MIXED
    if bits & RST:
        if rows[_ROW_RST] < 0:
            rows[_ROW_RST] = i
        return
    if bits & SYN:
        if state[_ISN, s] < 0:
            state[_ISN, s] = seq
        state[_SYN_BYTES, s] = max(state[_SYN_BYTES, s], payload)
        if bits & ACK:
            if state[_ISN, o] < 0:
                state[_ISN, o] = (ack - 1) & 0xFFFFFFFF
            if rows[_ROW_ANSWER] < 0:
                rows[_ROW_ANSWER] = i
            if rows[_OPENER] < 0:
                rows[_OPENER] = o
        else:
            if rows[_OPENER] < 0:
                rows[_OPENER] = s
            if rows[_ROW_SYN] < 0 and rows[_OPENER] == s:
                rows[_ROW_SYN] = i
    else:
        rows[_PLAIN] = 1
        if rows[_ROW_ANSWER] >= 0 and rows[_ROW_THIRD] < 0 and rows[_OPENER] == s:
            rows[_ROW_THIRD] = i
    if flags & FIN and state[_FIN_ROW, s] < 0:
        state[_FIN_ROW, s] = i
    if state[_FIRST, s] < 0:
        state[_FIRST, s] = seq
    if payload > 0 and state[_DATA, s] < 0:
        state[_DATA, s] = seq
    state[_LAST, s] = (seq + payload) & 0xFFFFFFFF
    if bits & ACK and state[_LAST, o] < 0:
        state[_LAST, o] = ack
