"""The tables of a reconstruction, made of what the other modules found out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.connections.datanumbers import INVALID, VERIFIED, WRONG, DataNumbers
from analysis.connections.delivery import Transfer, deliver, longest_gaps, out_of_order_depths
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
    """A column of text of which few values are distinct. `names`: these, or a type made of them."""
    kind = names if isinstance(names, pd.CategoricalDtype) else pd.CategoricalDtype(pd.Index(names, dtype="str"))
    return pd.Categorical.from_codes(np.asarray(codes), dtype=kind)


def flows_table(core: Core) -> pd.DataFrame:
    """One row per flow."""
    flows, member, offers, payload = core.flows, core.member, core.offers, core.payload
    time_ns, names = core.table["time_ns"], pd.CategoricalDtype(pd.Index(core.table.addresses.texts(), dtype="str"))
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


def connections_table(core: Core, flows: pd.DataFrame, fallback: Any, acks: pd.DataFrame) -> pd.DataFrame:
    """One row per connection; `flows`, `acks`: tables, `fallback`: reason per connection, "" without."""
    member, offers, count = core.member, core.offers, core.member.count
    owner, initial = member.connection, member.initial
    last_ns = np.full(count, -1, np.int64)
    np.maximum.at(last_ns, owner, flows["last_ns"].to_numpy())
    tokens, keys = member.tokens, member.keys
    dsns = np.where(np.repeat(core.mptcp, 2), core.numbers.first_dsn, np.uint64(0)).reshape(-1, 2)
    fin = (core.numbers.fin >= 0).reshape(-1, 2)
    columns: dict[str, Any] = {
        "transport": texts((core.mptcp & (fallback == "")).astype(np.int8), _TRANSPORTS),
        "version": offers.version[initial].astype(np.int8),
    }
    columns |= {name: flows[name].array[initial] for name in ("client", "client_port", "server", "server_port")}
    columns |= {
        "first_ns": first_times(core),
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
    measures = _stream_measures(core, acks)
    gap_ms = measures.pop("gap_ms")
    for name, values in measures.items():
        columns[f"{name}_up"], columns[f"{name}_down"] = values[0::2], values[1::2]
    columns["gap_up_ms"], columns["gap_down_ms"] = gap_ms[0::2], gap_ms[1::2]
    return pd.DataFrame(columns, index=pd.RangeIndex(count, name="connection"), copy=False)


def _stream_measures(core: Core, acks: pd.DataFrame) -> dict[str, Any]:
    """What is counted per data stream. Where the receiver is not in the capture all that was sent counts as delivered."""
    payload, size = core.payload, core.streams
    sent = totals(payload.stream, size, payload.flow_end - payload.flow_begin)
    data = totals(payload.stream, size, payload.new_bytes)
    lost = payload.kind == UNMAPPED
    unmapped = totals(payload.stream[lost], size, (payload.flow_end - payload.flow_begin)[lost])
    reinjected = totals(payload.stream, size, payload.reinjected) if payload.reinjected.size else np.zeros(size, np.int64)
    transfer = _transfer(core, acks)
    growth, missed = deliver(transfer, np.bincount(transfer.ack_stream, minlength=size) == 0)
    delivered, gap_ns = longest_gaps(growth, size)
    np.minimum.at(delivered, missed.stream, missed.begin)
    return {
        "bytes": data,
        "delivered": delivered,
        "payload": sent,
        "duplicate": sent - data - unmapped,
        "unmapped": unmapped,
        "missed": totals(missed.stream, size, missed.end - missed.begin),
        "reinjected": reinjected,
        "depth": out_of_order_depths(transfer, payload.reached, missed),
        "gap_ms": np.where(gap_ns >= 0, gap_ns / 1e6, np.nan),
    }


def _transfer(core: Core, acks: pd.DataFrame) -> Transfer:
    """All data streams at once."""
    payload = core.payload
    ack_direction = core.positions.direction[acks["row"].to_numpy()] ^ 1
    return Transfer(
        time_ns=core.table["time_ns"][payload.row],
        direction=payload.direction,
        stream=payload.stream,
        flow_begin=payload.flow_begin,
        flow_end=payload.flow_end,
        begin=payload.begin,
        end=payload.end,
        flow_new=payload.flow_new,
        new_bytes=payload.new_bytes,
        flow_reached=payload.flow_reached,
        ack_time_ns=acks["time_ns"].to_numpy(),
        ack_direction=ack_direction,
        ack_stream=core.member.streams[ack_direction],
        flow_ack=acks["flow_ack"].to_numpy(),
        data_ack=acks["data_ack"].to_numpy(),
        directions=2 * core.flows.count,
        streams=core.streams,
    )


def first_times(core: Core) -> Int64s:
    """Time of the first packet of each connection."""
    first_ns = np.full(core.member.count, np.iinfo(np.int64).max)
    np.minimum.at(first_ns, core.member.connection, core.table["time_ns"][core.flows.first_row])
    return first_ns


def fallbacks(core: Core) -> Any:
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
    rows = rows[core.flows.flow[rows] >= 0][::-1]
    first = np.full(member.count, -1, np.int64)
    first[member.connection[core.flows.flow[rows]]] = rows
    first_ns = first_times(core)
    for number in np.flatnonzero((first >= 0) & core.mptcp).tolist():
        after_s = (int(table["time_ns"][first[number]]) - int(first_ns[number])) / 1e9
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
