"""The tables of a reconstruction, made of what the other modules found out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.connections.datanumbers import INVALID, VERIFIED, WRONG, DataNumbers
from analysis.connections.delivery import acknowledged, grow, longest_gaps, out_of_order_depths
from analysis.connections.flows import Flows
from analysis.connections.membership import Membership
from analysis.connections.model import LIMIT, UNMAPPED, Array, Bools, Int64s
from analysis.connections.offers import REASONS, Offers
from analysis.connections.payload import Fallen, Payload, totals
from analysis.connections.positions import Positions
from analysis.packets.schema import ACK, DSS_DATA_FIN, DSS_MAP, MP_FASTCLOSE, RST
from analysis.packets.table import PacketTable

_ENDS = ("open", "fin", "reset")
_KEYS = ("none", "seen", "verified", "wrong")
_TRANSPORTS = ("tcp", "mptcp")


@dataclass
class Core:
    """All that the tables are made of. `mptcp`: connections whose data has mappings; `answers`: rows that acknowledge."""

    table: PacketTable
    flows: Flows
    positions: Positions
    offers: Offers
    member: Membership
    mptcp: Bools
    numbers: DataNumbers
    payload: Payload
    fallen: Fallen

    @property
    def streams(self) -> int:
        """Number of data streams, two for each connection."""
        return 2 * self.member.count


def texts(codes: Any, names: Any) -> pd.Categorical:
    """A column of text of which few values are distinct."""
    return pd.Categorical.from_codes(np.asarray(codes), categories=pd.Index(names, dtype="str"))


def flows_table(core: Core) -> pd.DataFrame:
    """One row per flow."""
    flows, member, offers, payload = core.flows, core.member, core.offers, core.payload
    time_ns, names = core.table["time_ns"], core.table.addresses.texts()
    established = np.where(flows.third_row >= 0, time_ns[flows.third_row], -1) if flows.count else np.zeros(0, np.int64)
    whole = (established >= 0) & (flows.syn_row >= 0)
    handshake_ms = np.where(whole, (established - time_ns[flows.syn_row]) / 1e6, np.nan) if flows.count else np.zeros(0)
    columns: dict[str, Any] = {
        "connection": member.connection,
        "subflow": member.subflow,
        "point": flows.interface,
        "client": texts(flows.client, names),
        "client_port": flows.client_port,
        "server": texts(flows.server, names),
        "server_port": flows.server_port,
        "opened_by_client": member.opened_by_client,
        "first_ns": time_ns[flows.first_row],
        "last_ns": time_ns[flows.last_row],
        "established_ns": established,
        "handshake_ms": handshake_ms,
        "client_isn": flows.isn[:, 0],
        "server_isn": flows.isn[:, 1],
        "end": texts(_ends(flows), _ENDS),
        "backup": offers.backup,
        "client_id": offers.client_id,
        "server_id": offers.server_id,
        "join": texts(np.zeros(flows.count, np.int8), ("",)),
    }
    size = 2 * flows.count
    direction = payload.direction
    sent = totals(direction, size, payload.flow_end - payload.flow_begin)
    unique = totals(direction, size, payload.flow_new)
    reinjected = totals(direction, size, payload.reinjected) if payload.reinjected.size else np.zeros(size, np.int64)
    measures = {
        "packets": core.positions.packets,
        "payload": sent,
        "unique": unique,
        "repeated": sent - unique,
        "reinjected": reinjected,
        "data": totals(direction, size, payload.new_bytes),
        "out_of_order": totals(direction[payload.late], size),
        "overhead": core.positions.header_bytes,
    }
    up = np.arange(flows.count) * 2 + ~member.opened_by_client
    for name, values in measures.items():
        columns[f"{name}_up"], columns[f"{name}_down"] = values[up], values[up ^ 1]
    return pd.DataFrame(columns, index=pd.RangeIndex(flows.count, name="flow"), copy=False)


def _ends(flows: Flows) -> Array:
    """Index into _ENDS. A RST after both FINs ends nothing."""
    fin, rst = flows.fin_row, flows.reset_row
    closed = (fin >= 0).all(axis=1) & ((rst < 0) | (rst > fin.max(axis=1, initial=-1)))
    return np.select([closed, rst >= 0, (fin >= 0).any(axis=1)], [1, 2, 1], 0).astype(np.int8)


def connections_table(core: Core, flows: pd.DataFrame) -> pd.DataFrame:
    """One row per connection; `flows` is the table of flows."""
    member, offers, payload, count = core.member, core.offers, core.payload, core.member.count
    owner, initial = member.connection, member.initial
    first_ns, last_ns = np.full(count, np.iinfo(np.int64).max), np.full(count, -1, np.int64)
    np.minimum.at(first_ns, owner, flows["first_ns"].to_numpy())
    np.maximum.at(last_ns, owner, flows["last_ns"].to_numpy())
    fallback = _fallbacks(core, first_ns)
    transport = core.mptcp & (fallback == "")
    tokens, keys = member.tokens, member.keys
    dsns = np.where(np.repeat(core.mptcp, 2), core.numbers.first_dsn, np.uint64(0)).reshape(-1, 2)
    fin = (core.numbers.fin >= 0).reshape(-1, 2)
    columns: dict[str, Any] = {
        "transport": texts(transport.astype(np.int8), _TRANSPORTS),
        "version": offers.version[initial].astype(np.int8),
    }
    columns |= {name: flows[name].array[initial] for name in ("client", "client_port", "server", "server_port")}
    columns |= {
        "first_ns": first_ns,
        "last_ns": last_ns,
        "subflows": totals(owner, count),
        "point": core.flows.place[initial],
        "client_key": keys[:, 0],
        "server_key": keys[:, 1],
        "client_token": tokens[:, 0],
        "server_token": tokens[:, 1],
        "client_idsn": dsns[:, 0],
        "server_idsn": dsns[:, 1],
        "keys": texts(_key_verdicts(core), _KEYS),
        "checksum": offers.checksum[initial],
        "fallback": fallback,
        "fastclose": _fastclosed(core),
        "data_fin_up": fin[:, 0],
        "data_fin_down": fin[:, 1],
    }
    size = core.streams
    sent = totals(payload.stream, size, payload.flow_end - payload.flow_begin)
    data = totals(payload.stream, size, payload.new_bytes)
    lost = payload.kind == UNMAPPED
    unmapped = totals(payload.stream[lost], size, (payload.flow_end - payload.flow_begin)[lost])
    reinjected = totals(payload.stream, size, payload.reinjected) if payload.reinjected.size else np.zeros(size, np.int64)
    delivered, gap_ms = _deliveries(core)
    measures = {
        "bytes": data,
        "delivered": delivered,
        "payload": sent,
        "duplicate": sent - data - unmapped,
        "unmapped": unmapped,
        "reinjected": reinjected,
        "depth": out_of_order_depths(payload.stream, payload.new_bytes, payload.reached, size),
    }
    for name, values in measures.items():
        columns[f"{name}_up"], columns[f"{name}_down"] = values[0::2], values[1::2]
    columns["gap_up_ms"], columns["gap_down_ms"] = gap_ms[0::2], gap_ms[1::2]
    return pd.DataFrame(columns, index=pd.RangeIndex(count, name="connection"), copy=False)


def _deliveries(core: Core) -> tuple[Int64s, Any]:
    """Per data stream: bytes delivered in order, and the longest time without new ones in ms, NaN when unknown. Where the
    receiver is not in the capture all that was sent counts as delivered."""
    payload, positions = core.payload, core.positions
    streams = core.member.streams
    answered = np.full(core.streams, -1, np.int64)
    np.maximum.at(answered, streams, positions.top_ack)
    acked = np.zeros(core.streams, np.int64)
    rows = np.flatnonzero(core.numbers.acked > 0)
    np.maximum.at(acked, streams[positions.direction[rows] ^ 1], core.numbers.acked[rows])
    on_subflow = payload.flow_begin < positions.top_ack[payload.direction]
    taken = acknowledged(payload.stream, payload.begin, payload.end, on_subflow, acked)
    taken |= (answered < 0)[payload.stream] & (payload.begin >= 0)
    growth = grow(
        core.table["time_ns"][payload.row],
        payload.direction,
        payload.flow_end,
        payload.flow_reached,
        payload.stream,
        payload.begin,
        payload.end,
        taken,
        core.streams,
    )
    delivered, gap_ns = longest_gaps(growth, core.streams)
    return delivered, np.where(gap_ns >= 0, gap_ns / 1e6, np.nan)


def _fallbacks(core: Core, first_ns: Int64s) -> Any:
    """Per connection why it is no MPTCP, "" when it is or never was to be."""
    member, table = core.member, core.table
    out = np.full(member.count, "", object)
    state = core.offers.state[member.initial]
    for code, reason in REASONS.items():
        out[state == code] = reason
    missing = core.fallen.bytes[: core.streams].reshape(-1, 2).sum(axis=1)
    for number in np.flatnonzero(missing > 0).tolist():
        out[number] = f"{missing[number]} bytes without a mapping"
    flags = table["dss_flags"]
    rows = np.flatnonzero((flags & (DSS_MAP | DSS_DATA_FIN) == DSS_MAP) & (table["map_bytes"] == 0))
    rows = rows[core.flows.flow[rows] >= 0]
    owner = member.connection[core.flows.flow[rows]]
    for row, number in zip(rows[::-1].tolist(), owner[::-1].tolist(), strict=True):
        if core.mptcp[number]:
            after_s = (int(table["time_ns"][row]) - int(first_ns[number])) / 1e9
            out[number] = f"infinite mapping {after_s:.3f} s after the first packet"
    return out


def _key_verdicts(core: Core) -> Array:
    """Index into _KEYS."""
    member = core.member
    verdict = core.numbers.verdict.reshape(-1, 2)
    wrong, right = (verdict == WRONG).any(axis=1), (verdict == VERIFIED).any(axis=1) | member.token_seen.any(axis=1)
    return np.select([wrong, right, (member.keys != 0).any(axis=1)], [3, 2, 1], 0).astype(np.int8)


def _fastclosed(core: Core) -> Bools:
    signals = core.table.signals
    row = signals["row"][signals["subtype"] == MP_FASTCLOSE]
    flow = core.flows.flow[row]
    out = np.zeros(core.member.count, np.bool_)
    out[core.member.connection[flow[flow >= 0]]] = True
    return out


def segments_table(core: Core) -> pd.DataFrame:
    """One row per segment with payload."""
    payload = core.payload
    flow = payload.direction >> 1
    columns = {
        "time_ns": core.table["time_ns"][payload.row],
        "row": payload.row,
        "connection": payload.stream >> 1,
        "subflow": core.member.subflow[flow],
        "flow": flow,
        "up": payload.stream & 1 == 0,
        "begin": payload.begin,
        "end": payload.end,
        "flow_begin": payload.flow_begin,
        "flow_end": payload.flow_end,
        "new_bytes": payload.new_bytes,
        "kind": payload.kind,
    }
    return pd.DataFrame(columns, copy=False)


def acks_table(core: Core, transport_is_tcp: Bools) -> pd.DataFrame:
    """One row per packet that acknowledges. Plain TCP acknowledges its data by the subflow's numbers."""
    table, positions, member = core.table, core.positions, core.member
    row = np.flatnonzero((positions.direction >= 0) & (table["flags"] & (ACK | RST) == ACK)).astype(np.int32)
    acknowledged_direction = positions.direction[row] ^ 1
    flow = acknowledged_direction >> 1
    stream = member.streams[acknowledged_direction]
    flow_ack = positions.acked[row]
    flow_ack = np.where(flow_ack > LIMIT, -1, np.maximum(flow_ack, 0))
    data_ack = core.numbers.acked[row]
    plain = transport_is_tcp[stream >> 1] & (data_ack == INVALID)
    data_ack = np.where(plain, flow_ack, np.where(data_ack == INVALID, -1, np.maximum(data_ack, 0)))
    columns = {
        "time_ns": table["time_ns"][row],
        "row": row,
        "connection": stream >> 1,
        "subflow": member.subflow[flow],
        "flow": flow,
        "up": stream & 1 == 0,
        "data_ack": data_ack,
        "flow_ack": flow_ack,
    }
    return pd.DataFrame(columns, copy=False)
